"""Loss, perplexity per token and byte, bits, and token accuracy of references under a model; padding never counts."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from loradeck_bench.evaluation.figure import combined
from loradeck_bench.evaluation.likelihood.model import Loaded
from loradeck_bench.evaluation.likelihood.sequences import Sequenced, sequences
from loradeck_bench.evaluation.measured import method
from loradeck_bench.evaluation.scoring import data_digest, in_result_form
from loradeck_bench.rows import COLUMNS, Row
from loradeck_registry.errors import InvalidError

_LOGITS = 64_000_000
"""Most logits of a batch (rows x tokens x vocabulary): 256 MB in float32."""


def measure(
    rows: Sequence[Row],
    loaded: Loaded,
    *,
    whole: bool,
    max_length: int | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, Any]:
    """Figures of all rows in the form of result files.

    Rows longer than `max_length` tokens, or than the model's context, are left out whole and counted in `too_long`.
    An interrupted measurement gives the figures of the rows before, the longest, and says so in `unfinished`. Raises
    InvalidError if no row is left.
    """
    every = sequences(rows, loaded, whole=whole)
    context = int(getattr(loaded.model.config, "max_position_embeddings", 0) or 10**9)
    limit = min(max_length or context, context)
    kept = [sequence for sequence in every if len(sequence.ids) <= limit]
    if not kept:
        raise InvalidError(f"every row is longer than {limit} tokens", reason="TOO_LONG", field="max_length")
    scores: dict[int, tuple[float, int, int, int]] = {}
    tokens, started = 0, time.monotonic()
    unfinished = {}
    try:
        for batch in _batches(kept, len(loaded.allowed)):
            for sequence, (loss, hits) in zip(batch, batch_scores(batch, loaded), strict=True):
                scores[sequence.row] = loss, len(sequence.ids) - sequence.scored, sequence.text_bytes, hits
            tokens += sum(len(sequence.ids) for sequence in batch)
            progress(len(scores))
    except KeyboardInterrupt:
        if not scores:
            raise
        unfinished = {"unfinished": f"interrupted after {len(scores)} of {len(kept)} rows, the longest first"}
    seconds = time.monotonic() - started
    numbers = sorted(scores)
    result = in_result_form(_figures([scores[number] for number in numbers], loaded, whole), numbers)
    column = COLUMNS[loaded.task.kind][-1]
    revision = loaded.revision
    return {
        **result.figures,
        "task": loaded.task.kind,
        "adapter": loaded.name,
        "rows": len(rows),
        "data_digest": data_digest(rows),
        "answered": len(numbers),
        "failed": 0,
        "too_long": len(every) - len(kept),
        "without_reference": len(rows) - len(every),
        "answered_by": [
            {
                "name": revision.name if revision else loaded.name,
                "revision": revision.number if revision else 0,
                "digest": revision.digest if revision else "",
                "rows": len(numbers),
            }
        ],
        "scored_tokens": sum(scores[number][1] for number in numbers),
        "seconds": seconds,
        "tokens_per_second": tokens / seconds if seconds else 0.0,
        **unfinished,
        "items": [{"row": n, "gold": rows[n][column], "status": "ok", "scores": result.by_row[n]} for n in numbers],
    }


def batch_scores(batch: Sequence[Sequenced], loaded: Loaded) -> list[tuple[float, int]]:
    """For each sequence the summed loss in nats of its scored tokens, and how many of them are the first choice.

    The probability is over the tokens that the model may emit, as it is served.
    """
    import torch

    device, pad = loaded.allowed.device, int(loaded.allowed[0])
    longest = max(len(sequence.ids) for sequence in batch)
    ids = torch.tensor([[*s.ids, *[pad] * (longest - len(s.ids))] for s in batch], device=device)
    mask = torch.tensor([[1] * len(s.ids) + [0] * (longest - len(s.ids)) for s in batch], device=device)
    with torch.inference_mode():
        logits = loaded.model(input_ids=ids, attention_mask=mask).logits[..., loaded.allowed]
    position = torch.full((int(loaded.allowed.max()) + 1,), -1, device=device)
    position[loaded.allowed] = torch.arange(len(loaded.allowed), device=device)
    found = []
    for row, sequence in enumerate(batch):
        # The logits at one place are about the token behind it.
        scores = logits[row, sequence.scored - 1 : len(sequence.ids) - 1].float()
        targets = position[ids[row, sequence.scored : len(sequence.ids)]]
        loss = torch.nn.functional.cross_entropy(scores, targets, reduction="sum")
        found.append((float(loss), int((scores.argmax(dim=-1) == targets).sum())))
    return found


def _batches(kept: Sequence[Sequenced], vocabulary: int) -> Iterator[list[Sequenced]]:
    """Rows of like length together, as many as `_LOGITS` allows."""
    batch: list[Sequenced] = []
    for sequence in sorted(kept, key=lambda s: len(s.ids), reverse=True):
        if batch and (len(batch) + 1) * len(batch[0].ids) * vocabulary > _LOGITS:
            yield batch
            batch = []
        batch.append(sequence)
    yield batch


def _figures(scores: Sequence[tuple[float, int, int, int]], loaded: Loaded, whole: bool) -> Any:
    dtype = str(next(loaded.model.parameters()).dtype).removeprefix("torch.")
    answer = "label token" if loaded.task.uses_label_tokens else "answer and end of turn"
    what = "prompt and answer, all but the first token" if whole else answer
    how = method("transformers", f"model {loaded.name}", dtype, f"over {what}", "no padding, no reserved tokens")
    figures = {
        "loss": combined("ratio", [(loss, tokens) for loss, tokens, _, _ in scores], f"{how}; nats per token"),
        "perplexity": combined("perplexity", [(loss, tokens) for loss, tokens, _, _ in scores], f"{how}; exp(loss)"),
        "bits_per_token": combined(
            "ratio", [(loss / math.log(2), tokens) for loss, tokens, _, _ in scores], f"{how}; loss / ln 2"
        ),
        "token_accuracy": combined(
            "ratio",
            [(hits, tokens) for _, tokens, _, hits in scores],
            f"{how}; share that is the first choice",
        ),
    }
    if all(length for _, _, length, _ in scores):
        per_byte = f"{how}; by UTF-8 bytes of the scored text, which the end of turn has none of"
        figures["perplexity_per_byte"] = combined("perplexity", [(s[0], s[2]) for s in scores], per_byte)
        figures["bits_per_byte"] = combined("ratio", [(s[0] / math.log(2), s[2]) for s in scores], per_byte)
    return figures
