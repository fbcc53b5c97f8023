"""A small C kernel for the many small products of a decode step, built on first use where there is a C compiler.

A step of 64 requests has four such products per layer and slot; through torch each costs more for its start than for
its arithmetic. The kernel (`kernel.c`) goes through the rows of a batch once and reads, for each row, its own slot and
nothing else. Without a compiler, or on a machine that the result does not load on, torch does the work.
"""

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

SOURCE = Path(__file__).with_name("kernel.c")
FLAGS = ("-O3", "-march=native", "-fopenmp", "-ffp-contract=fast", "-fno-math-errno", "-std=gnu11", "-shared", "-fPIC")
MAX_INPUT = 16384
"""Widest input: a block of its rows stands on the stack."""

BLOCK = 16
"""Most rows of one slot that are computed together; the same number stands in the source."""

BUILD_SECONDS = 120.0

logger = logging.getLogger(__name__)


class Batch(ctypes.Structure):
    """`batch_t` of the source."""

    _fields_ = (
        ("rows", ctypes.c_void_p),
        ("slots", ctypes.c_void_p),
        ("blocks", ctypes.c_void_p),
        ("count", ctypes.c_int64),
        ("block_count", ctypes.c_int64),
    )


class Layer(ctypes.Structure):
    """`layer_t` of the source."""

    _fields_ = (
        ("a", ctypes.c_void_p),
        ("b", ctypes.c_void_p),
        ("input", ctypes.c_int64),
        ("columns", ctypes.c_int64),
        ("rank", ctypes.c_int64),
        ("slices", ctypes.c_int64),
        ("starts", ctypes.c_void_p),
    )


class Tiles(ctypes.Structure):
    """`tiles_t` of the source."""

    _fields_ = (
        ("a", ctypes.c_void_p),
        ("b", ctypes.c_void_p),
        ("ranks", ctypes.c_void_p),
        ("starts", ctypes.c_void_p),
        ("input", ctypes.c_int64),
        ("inner", ctypes.c_int64),
        ("slices", ctypes.c_int64),
    )


class Kernel:
    """The loaded kernel."""

    def __init__(self, library: Path) -> None:
        """Load it. Raises OSError if this machine cannot."""
        loaded = ctypes.CDLL(str(library))
        word, pointer = ctypes.c_int64, ctypes.c_void_p
        self._function: Any = loaded.add_lora
        self._function.argtypes = (word, pointer, word, pointer, word, pointer, pointer)
        self._function.restype = None
        self.tiles: Any = getattr(loaded, "add_lora_tiles", None)
        """`add_tiles` on addresses: y, its stride, x, its stride, batch, layer."""
        if self.tiles is not None:
            self.tiles.argtypes = (pointer, word, pointer, word, pointer, pointer)
            self.tiles.restype = None

    def has_tiles(self) -> bool:
        """Whether products in bfloat16 run on the matrix unit, which this process is then allowed to use."""
        return self.tiles is not None and torch.cpu._is_amx_tile_supported() and bool(torch.cpu._init_amx())

    def add(self, y: Tensor, x: Tensor, batch: int, layer: int) -> None:
        """Add x A^T B^T to the batch's rows of `y` [n, columns] in place, each with its own slot.

        `y` and `x` are both float32 or both bfloat16, with neighbouring columns next to each other; `batch` and `layer`
        are the addresses of a `Batch` and of a `Layer` with float32 matrices.
        """
        half = x.dtype == torch.bfloat16
        self._function(half, y.data_ptr(), y.stride(0), x.data_ptr(), x.stride(0), batch, layer)

    def add_tiles(self, y: Tensor, x: Tensor, batch: int, layer: int) -> None:
        """`add` for bfloat16, and the address of a `Tiles` as `layer`; only where there `has_tiles`."""
        self.tiles(y.data_ptr(), y.stride(0), x.data_ptr(), x.stride(0), batch, layer)


@lru_cache(maxsize=1)
def load_kernel() -> Kernel | None:
    """The kernel, built for this machine if it was not yet, or None if it cannot be had."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if platform.system() != "Linux" or not compiler or os.environ.get("LORADECK_NO_KERNEL"):
        logger.info("no C compiler: adapter operations run on torch")
        return None
    try:
        return Kernel(_build(compiler))
    except (OSError, subprocess.SubprocessError) as error:
        logger.warning("the adapter kernel could not be built, torch is used instead: %s", error)
        return None


def _build(compiler: str) -> Path:
    """The shared library, kept per source, flags, compiler and processor."""
    identity = "\0".join((SOURCE.read_text(), *FLAGS, compiler, platform.machine(), _processor()))
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "loradeck" / "kernels"
    library = folder / f"lora-{hashlib.sha256(identity.encode()).hexdigest()[:24]}.so"
    if library.exists():
        return library
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=folder) as work:
        target = Path(work) / "lora.so"
        subprocess.run(
            [compiler, *FLAGS, str(SOURCE), "-o", str(target)], check=True, capture_output=True, timeout=BUILD_SECONDS
        )
        # Two engines may build at once: each moves a whole file into place.
        target.replace(library)
    return library


def _processor() -> str:
    """The processor's features, which `-march=native` depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")
