"""What every test runs with: caches of its own, no hub, and signals as a terminal would give them."""

import atexit
import os
import shutil
import signal
import tempfile

# A run in the background of a shell ignores SIGINT, and so would every process that a test starts and interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, min(4, (os.cpu_count() or 1) // workers))))

if "LORADECK_CACHE" not in os.environ:
    os.environ["LORADECK_CACHE"] = tempfile.mkdtemp(prefix="loradeck-test-cache-")
    atexit.register(shutil.rmtree, os.environ["LORADECK_CACHE"], ignore_errors=True)
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
