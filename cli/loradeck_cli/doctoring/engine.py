"""The engine: a vLLM that loradeck knows, its plugin, and whether it imports, in a process of its own."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import metadata

from loradeck_cli.doctoring.check import Check, Result, examine

IMPORT_SECONDS = 180
PROGRAM = """
import json, logging, sys
logging.disable(logging.CRITICAL)
out, sys.stdout = sys.stdout, sys.stderr
import torch, transformers, vllm
from vllm.lora.request import LoRARequest
import vllm.platforms
kernel = None
if vllm.platforms.current_platform.is_cpu():
    from loradeck_serve.engine.plugin.kernel import load_kernel
    kernel = load_kernel() is not None
print(json.dumps({"torch": torch.__version__, "transformers": transformers.__version__,
    "device": vllm.platforms.current_platform.device_name, "kernel": kernel}), file=out)
"""


def engine(imports: bool) -> Iterator[Check]:
    """Checks of the engine. `imports` starts a process that imports it, which takes ten seconds and more."""
    yield from examine("engine", [("vllm", version), ("plugin", plugin)])
    if imports:
        yield from examine("engine", [("imports", imported)])
    else:
        yield Check("engine", "imports", "skipped", "not tried (--quick)")


def version() -> Result:
    """A vLLM in the range that the engine is built for."""
    from loradeck_serve.engine.versions import vllm_version

    return "ok", vllm_version()


def plugin() -> Result:
    """The entry point by which vLLM's processes find loradeck's operations."""
    names = {point.name for point in metadata.entry_points(group="vllm.general_plugins")}
    if "loradeck" not in names:
        return "failed", "vLLM does not see loradeck's plugin", "install loradeck again: pip install --force-reinstall"
    allowed = os.environ.get("VLLM_PLUGINS")
    if allowed is not None and "loradeck" not in allowed.split(","):
        return "failed", f"VLLM_PLUGINS={allowed} keeps it out", "add loradeck to it, or unset it"
    return "ok", "registered"


def imported() -> Result:
    """torch, transformers and vLLM import together, and the adapter kernel is built where it is used."""
    begin = time.monotonic()
    try:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", PROGRAM],
            capture_output=True, text=True, timeout=IMPORT_SECONDS, check=False,
            env=os.environ | {"VLLM_LOGGING_LEVEL": "ERROR"},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return "failed", f"not done after {IMPORT_SECONDS} s", "the machine is overloaded, or its disk very slow"
    seconds = time.monotonic() - begin
    if done.returncode:
        last = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "no output")
        return (
            "failed",
            f"{last.strip()[:300]} (exit code {done.returncode})",
            "make the environment anew with `make setup`, or pip install with constraints.txt",
        )
    found = json.loads(done.stdout.splitlines()[-1])
    text = f"torch {found['torch']}, transformers {found['transformers']}, {found['device']}, {seconds:.0f} s"
    if found["kernel"] is False:
        return (
            "warning",
            f"{text}; the adapter kernel is not in use",
            "adapters answer slower: install gcc, let the cache folder be writable, unset LORADECK_NO_KERNEL",
        )
    return "ok", text + ("; adapter kernel built for this processor" if found["kernel"] else "")
