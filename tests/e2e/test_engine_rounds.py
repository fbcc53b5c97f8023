"""The engine as a child process that is asked round by round."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator

import pytest

from tests.support.tiny import make_tiny_adapter, make_tiny_base

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def temporary() -> Iterator[str]:
    """A temporary folder with a path short enough for sockets below it."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield folder


def test_rounds_adapters_and_mistakes_over_the_pipe(tmp_path, temporary) -> None:
    base = make_tiny_base(tmp_path / "base")
    adapter = make_tiny_adapter(base, tmp_path / "adapter", rank=4)
    settings = {"model": str(base), "slots": 1, "kv_cache_gib": 0.1, "max_model_len": 64, "enforce_eager": True}
    prompts = [[1, 2, 3], [4, 5], [6]]
    orders = [
        {"load": {"digest": "a", "folder": str(adapter), "rank": 4}},
        {"prompts": prompts, "output_tokens": 5, "adapter": "a"},
        {"prompts": prompts, "output_tokens": 5, "concurrency": 1, "stream": False},
        {"prompts": prompts, "output_tokens": 5, "adapter": "unknown"},
        {"prompts": prompts, "output_token": 5},
    ]
    command = [sys.executable, "-m", "loradeck_serve.engine.rounds", "--settings", json.dumps(settings)]
    lines = "".join(json.dumps(order) + "\n" for order in orders)
    environment = os.environ | {"TMPDIR": temporary}
    done = subprocess.run(
        command, input=lines, capture_output=True, text=True, timeout=250, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr[-2000:]
    # Neither the folder of the engine's sockets nor a socket is left.
    assert [name for name in os.listdir(temporary) if name.startswith("loradeck-") or len(name) == 36] == []
    ready, loaded, streamed, whole, unknown, misspelt = map(json.loads, done.stdout.splitlines())
    assert (ready["ready"], ready["slots"], ready["compiled"]) == (True, 1, False)
    assert loaded == {"loaded": "a"}
    assert streamed["tokens"] == whole["tokens"] == 15
    assert all(0 < first <= last for first, last in zip(streamed["ttft_ms"], streamed["latency_ms"], strict=True))
    assert whole["ttft_ms"] == []
    # One at a time: the round takes as long as all its requests one after the other.
    assert 1000 * whole["seconds"] >= sum(whole["latency_ms"])
    assert "not loaded" in unknown["error"]
    assert list(misspelt) == ["error"]
