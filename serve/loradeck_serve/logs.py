"""Structured logs: one JSON object per line on standard error. Prompts and answers are never logged."""

import json
import logging
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "vllm_process_name"}


class JsonFormatter(logging.Formatter):
    """Level, time, logger, message, and whatever the call passed as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry.update({key: value for key, value in vars(record).items() if key not in _STANDARD})
        if (process := getattr(record, "vllm_process_name", record.processName)) != "MainProcess":
            entry["process"] = process
        if record.exc_info:
            entry["trace"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False, default=str)


def set_up_logs(level: str) -> None:
    """Send the server's own loggers to standard error as JSON lines; other libraries' from warnings on.

    To be called before vLLM is imported: the engine's processes, which inherit the environment, log in the same way.
    """
    root = logging.getLogger()
    root.handlers[:] = [json_handler()]
    root.setLevel(logging.WARNING)
    logging.captureWarnings(True)
    logging.getLogger("loradeck_serve").setLevel(level.upper())
    os.environ.setdefault("VLLM_LOGGING_CONFIG_PATH", str(Path(__file__).with_name("engine_logs.json")))


def json_handler() -> logging.Handler:
    """Writes JSON lines to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    return handler


def engine_handler() -> logging.Handler:
    """The handler of vLLM's loggers that `engine_logs.json` names; VLLM_LOGGING_LEVEL keeps its meaning."""
    logging.getLogger("vllm").setLevel(os.environ.get("VLLM_LOGGING_LEVEL", "WARNING").upper())
    return json_handler()
