"""A run that waits where a test needs it, instead of a test that hopes to be quick enough."""

import time
from pathlib import Path
from typing import Any

from loradeck_train.loop.callbacks import HistoryWriter


def hold_behind(step: int, go: Path) -> None:
    """From now on a run of this process waits behind `step`, its line of the history written, until `go` is there."""
    write = HistoryWriter.on_log

    def on_log(self: HistoryWriter, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        write(self, args, state, control, **kwargs)
        while state.global_step == step and not go.exists():
            time.sleep(0.005)

    HistoryWriter.on_log = on_log  # type: ignore[method-assign]
