"""Logs: one JSON object per line, of the server, of warnings, and of vLLM's loggers in whatever process."""

import json
import logging.config
import os
import subprocess
import sys
from importlib import resources

PROGRAM = """
import json, logging, logging.config, os, sys, warnings
from loradeck_serve.logs import set_up_logs
set_up_logs("info")
logging.getLogger("loradeck_serve.x").info("call", extra={"request_id": "r-1"})
warnings.warn("old", DeprecationWarning, stacklevel=1)
# What vLLM does in each of its processes.
with open(os.environ["VLLM_LOGGING_CONFIG_PATH"]) as file:
    logging.config.dictConfig(json.load(file))
logging.getLogger("vllm.engine").warning("from the engine", extra={"vllm_process_name": "EngineCore"})
logging.getLogger("vllm.engine").info("too quiet to be heard")
try:
    raise ValueError("two\\nlines")
except ValueError:
    logging.getLogger("vllm.engine").exception("died")
"""


def test_every_line_is_json_whoever_writes_it() -> None:
    command = [sys.executable, "-W", "always", "-c", PROGRAM]
    plain = {name: value for name, value in os.environ.items() if not name.startswith("VLLM_")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, env=plain)
    assert done.stdout == ""
    entries = [json.loads(line) for line in done.stderr.splitlines()]
    assert [entry["level"] for entry in entries] == ["info", "warning", "warning", "error"]
    assert entries[0]["request_id"] == "r-1"
    assert "old" in entries[1]["message"]
    assert entries[2]["process"] == "EngineCore"
    assert "two\nlines" in entries[3]["trace"]


def test_configuration_of_the_engines_logs_is_shipped_and_valid() -> None:
    text = resources.files("loradeck_serve").joinpath("engine_logs.json").read_text()
    assert logging.config.dictConfigClass(json.loads(text)).config["version"] == 1
