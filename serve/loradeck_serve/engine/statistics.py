"""A snapshot of vLLM's scheduler, kept up to date by the statistics that it sends with its outputs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass
class Snapshot:
    """Last known state of the scheduler."""

    running: int = 0
    waiting: int = 0
    kv_cache_used: float = 0.0


def snapshot_logger(snapshot: Snapshot) -> Callable[..., Any]:
    """A vLLM statistics logger that does nothing but write `snapshot`."""
    from vllm.v1.metrics.loggers import StatLoggerBase

    class SnapshotLogger(StatLoggerBase):  # type: ignore[misc]
        def __init__(self, vllm_config: Any, engine_index: int = 0) -> None:
            pass

        def record(self, scheduler_stats: Any, iteration_stats: Any, *others: Any, **more: Any) -> None:
            if scheduler_stats is not None:
                snapshot.running = int(scheduler_stats.num_running_reqs)
                snapshot.waiting = int(scheduler_stats.num_waiting_reqs)
                snapshot.kv_cache_used = float(scheduler_stats.kv_cache_usage)

        def log_engine_initialized(self) -> None:
            pass

    return SnapshotLogger
