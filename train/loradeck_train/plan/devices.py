"""Devices that a run can be planned for: named GPUs, and this machine."""

import contextlib
import difflib
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from loradeck_registry.errors import InvalidError

GIB = 2**30
_UTILISATION = 0.4
_PROBE_SECONDS = 0.3
_CONTAINER_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Versions 2 and 1 of Linux's control groups; the first says `max` where there is no limit."""


@dataclass(frozen=True)
class Device:
    """`flops` are those per second that training reaches in matrix products, in the recipe's precision."""

    name: str
    memory_bytes: int
    flops: float
    cuda: bool


GPUS = {
    "T4": (16, 65e12),
    "V100": (32, 125e12),
    "RTX-3090": (24, 71e12),
    "RTX-4080": (16, 97e12),
    "RTX-4090": (24, 165e12),
    "L4": (24, 121e12),
    "L40S": (48, 362e12),
    "A100-40GB": (40, 312e12),
    "A100-80GB": (80, 312e12),
    "H100": (80, 989e12),
    "H200": (141, 989e12),
}
"""By name: memory in GiB, and the maker's dense float16 or bfloat16 peak in floating-point operations per second."""


def named_gpu(name: str) -> Device:
    """A GPU of the table; training is taken to reach 40 % of its peak. Raises InvalidError for an unknown name."""
    key = next((known for known in GPUS if known.lower() == name.lower().replace(" ", "-")), None)
    if key is None:
        near = difflib.get_close_matches(name.upper(), GPUS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(GPUS)}"
        raise InvalidError(f"no GPU {name!r}; {hint}", field="gpu")
    memory, peak = GPUS[key]
    return Device(key, memory * GIB, _UTILISATION * peak, cuda=True)


def this_machine(precision: str) -> Device:
    """The GPU that is here, or else the CPU, whose speed is measured for a third of a second."""
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
        return Device(name, torch.cuda.get_device_properties(0).total_memory, _measured(dtype, "cuda"), cuda=True)
    return Device(
        f"this machine ({torch.get_num_threads()} threads)",
        _memory(),
        _measured(dtype, "cpu"),
        cuda=False,
    )


def _memory() -> int:
    """Bytes that this process may use: the machine's, or those of the container it runs in."""
    found = psutil.virtual_memory().total
    for limit in _CONTAINER_LIMITS:
        with contextlib.suppress(OSError, ValueError):
            found = min(found, int(limit.read_text()))
    return int(found)


def _measured(dtype: torch.dtype, kind: str) -> float:
    size = 768 if kind == "cpu" else 4096
    a, b = torch.randn(size, size, dtype=dtype, device=kind), torch.randn(size, size, dtype=dtype, device=kind)
    a @ b
    # A processor without units for bfloat16 may take a second per product.
    together = 1 if kind == "cpu" else 4
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < _PROBE_SECONDS:
        for _ in range(together):
            a @ b
        if kind == "cuda":
            torch.cuda.synchronize()
        count += together
    return _UTILISATION * count * 2 * size**3 / (time.perf_counter() - started)
