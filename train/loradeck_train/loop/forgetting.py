"""What training cost the base: its perplexity on general text before the first step and after the last."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import nn

from loradeck_registry.errors import InvalidError, NotFoundError
from loradeck_train.data.encoding import Encoded
from loradeck_train.data.rows import iterate_rows
from loradeck_train.loop.evaluation import loss_per_token
from loradeck_train.loop.world import World

_WINDOW = 256
_MOST = 65_536
_FIELD = "evaluation.forgetting"
FORGETTING = "forgetting.json"
"""In the output folder."""


class Forgetting:
    """Perplexity by token on at most 65,536 tokens of a text, in windows of 256 tokens that see nothing before."""

    def __init__(self, source: str, tokenizer: Any, kept: Path, *, bf16: bool) -> None:
        """`kept` is a file in the output folder that remembers the figure before training for a resumed run. Raises
        NotFoundError or InvalidError for text that is not there or too short."""
        self._windows = tuple(_windows(source, tokenizer))
        if not self._windows:
            raise InvalidError(
                f"{Path(source).name} holds no text to measure forgetting on", reason="BAD_DATA", field=_FIELD
            )
        self._kept = kept
        self._bf16 = bf16

    def measure_before(self, model: nn.Module, resumed: bool) -> None:
        """Measure and remember; a resumed run keeps what was measured when it began."""
        if not (resumed and self._kept.is_file()):
            before = self._perplexity(model)
            if World.here().main:
                self._kept.write_text(json.dumps({"before": before}))

    def measure_after(self, model: nn.Module) -> dict[str, float]:
        """`perplexity_before`, `perplexity_after`, `ratio` and `tokens`."""
        before = float(json.loads(self._kept.read_text())["before"])
        after = self._perplexity(model)
        return {
            "perplexity_before": round(before, 4),
            "perplexity_after": round(after, 4),
            "ratio": round(after / before, 4),
            "tokens": sum(len(window.answer) for window in self._windows),
        }

    def _perplexity(self, model: nn.Module) -> float:
        return math.exp(loss_per_token(model, self._windows, bf16=self._bf16))


def _windows(source: str, tokenizer: Any) -> Iterator[Encoded]:
    taken = 0
    for text in _texts(source):
        ids = tokenizer.encode(text, add_special_tokens=False)
        for start in range(0, len(ids), _WINDOW):
            window = ids[start : start + _WINDOW]
            if len(window) > 1 and taken < _MOST:
                taken += len(window)
                yield Encoded(tuple(window[:1]), tuple(window[1:]))


def _texts(source: str) -> Iterator[str]:
    path = Path(source)
    if path.suffix in {".txt", ".md"}:
        if not path.is_file():
            raise NotFoundError(f"no text at {source}", field=_FIELD)
        yield path.read_text(encoding="utf-8")
        return
    for number, row in enumerate(iterate_rows(source), 1):
        if not isinstance(row.get("text"), str):
            raise InvalidError(
                f"row {number} of {path.name} has no column `text` with text", reason="MISSING_COLUMN", field=_FIELD
            )
        yield row["text"]
