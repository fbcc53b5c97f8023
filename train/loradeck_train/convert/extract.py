"""A LoRA out of a full checkpoint: the change of every linear layer, cut to the rank that is good enough."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from loradeck_registry.errors import PreconditionError
from loradeck_registry.registry import Registry
from loradeck_registry.shapes import read_shapes
from loradeck_train.convert.publishing import proven_manifest, push_converted
from loradeck_train.convert.score import Score
from loradeck_train.convert.sources import Source, open_source
from loradeck_train.model.loading import load_causal
from loradeck_train.model.loss import logprobs_at_end
from loradeck_train.model.matrices import matrices
from loradeck_train.publish.changes import Changes
from loradeck_train.publish.export import write_adapter
from loradeck_train.publish.low_rank import singular
from loradeck_train.publish.merging import Rows
from loradeck_train.publish.proof import allowed_ids

RANKS = (1, 2, 4, 8, 16, 32, 64, 128)
_BYTES = {"bfloat16": 2, "float32": 4}
Scorer = Callable[[Any], Score]


@dataclass(frozen=True)
class Wanted:
    """What decides the rank: exactly one is set. `energy`: the smallest rank that keeps this share of the squared norm;
    `error`: with at most this relative error; `budget`: whose score is at most this much below the checkpoint's."""

    rank: int | None = None
    energy: float | None = None
    error: float | None = None
    budget: float | None = None


@dataclass(frozen=True)
class Row:
    """A rank and what it keeps of the linear layers' change: share of the squared norm, relative error (Frobenius),
    bytes of tensors, and the score where one was asked for."""

    rank: int
    energy: float
    error: float
    bytes: int
    score: float | None = None


@dataclass
class Factors:
    """Singular triples of every linear layer's change, up to the largest rank, and the change's squared norm."""

    triples: dict[str, tuple[Tensor, Tensor, Tensor]]
    energy: float
    left_out: float
    """Squared norm of what changed elsewhere: norms, biases, the base's own rows of embedding and head."""
    rows: Rows | None

    def changes(self, rank: int) -> Changes:
        """The pairs at `rank`, singular values shared by both sides."""
        pairs = {}
        for name, (u, values, v) in self.triples.items():
            root = values[:rank].sqrt()
            pairs[name] = ((v[:, :rank] * root).t().contiguous(), (u[:, :rank] * root).contiguous())
        return Changes(pairs=pairs)

    def kept(self, rank: int) -> float:
        """Share of the linear layers' squared norm."""
        kept = sum(float(values[:rank].double().square().sum()) for _, values, _ in self.triples.values())
        return min(1.0, kept / self.energy) if self.energy else 1.0


def extract(
    registry: Registry,
    reference: str,
    output: Path,
    wanted: Wanted,
    *,
    base: str | None,
    ranks: Sequence[int],
    publish: tuple[str, str | None] | None,
    dtype: str,
    scorer_of: Callable[[Source], Scorer] | None,
) -> dict[str, Any]:
    """Extract an adapter from the full checkpoint `reference`, write it to `output`, and push it if `publish` says so.

    `scorer_of` gives every rank of the table a score, and the checkpoint itself. Returns figures for programs. Raises
    PreconditionError (NO_RANK: none of `ranks` is good enough; what opening the source and the proof raise).
    """
    source = open_source(registry, reference, base, "full")
    ranks = sorted({*ranks, *([wanted.rank] if wanted.rank else [])})
    full = load_causal(source.folder, torch.float32).eval()
    allowed = allowed_ids(source.task, source.base.identity.vocabulary)
    of_full = logprobs_at_end(full, source.prompts, allowed)
    scorer = scorer_of(source) if scorer_of is not None else None
    ceiling = scorer(full) if scorer is not None else None
    factors = _factors(source, full, max(ranks))
    del full
    table = _table(source, factors, ranks, dtype, scorer)
    share = factors.left_out / (factors.left_out + factors.energy)
    chosen = _choose(table, wanted, ceiling, share)
    shutil.rmtree(output, ignore_errors=True)
    write_adapter(factors.changes(chosen.rank), factors.rows, output, dtype, read_shapes(source.base.folder))
    # The files are held to the model at that rank; how far that is from the checkpoint is a figure.
    expected = logprobs_at_end(_at_rank(source, factors, chosen.rank), source.prompts, allowed)
    record = {
        "method": "extract",
        "rank": chosen.rank,
        "energy": chosen.energy,
        "error": chosen.error,
        "left_out": share,
    }
    manifest, check = proven_manifest(source, output, "adapter", expected, dtype, record, lossy=False)
    revision = None
    if publish is not None:
        revision = push_converted(registry, manifest, output, *publish, reason=f"extract {source.revision}")
    return {
        "revision": str(revision) if revision else None,
        "source": str(source.revision),
        "base": source.base.reference,
        "rank": chosen.rank,
        "digest": manifest.digest(),
        "bytes": manifest.size,
        "folder": str(output),
        "left_out": share,
        "score": None if ceiling is None else ceiling.name,
        "full_score": None if ceiling is None else ceiling.value,
        "reload_difference": check.mean_difference,
        "divergence_from_full": _divergence(of_full, expected),
        "distance_from_base": (manifest.probe or {})["distance"],
        "table": [asdict(row) for row in table],
    }


def _divergence(truth: Sequence[Tensor], found: Sequence[Tensor]) -> float:
    """Mean Kullback-Leibler divergence in nats, over the probe's prompts."""
    values = [float((p.exp() * (p - q)).sum()) for p, q in zip(truth, found, strict=True)]
    return sum(values) / len(values)


def _factors(source: Source, full: Any, rank: int) -> Factors:
    plain = load_causal(source.base.folder, torch.float32)
    modules = read_shapes(source.base.folder).modules
    triples = {}
    energy = left_out = 0.0
    vocabulary = source.base.identity.vocabulary
    before = dict(plain.named_parameters())
    for name, after in full.named_parameters():
        module = name.removesuffix(".weight")
        if module in modules:
            change = (after - before[name]).detach()
            triples[module] = singular(change, rank)
            energy += float(change.double().square().sum())
        elif name in before:
            # Rows of new tokens are carried over as they are; any other change has no place in an adapter.
            size = vocabulary if after.ndim == 2 else len(after)
            left_out += float((after - before[name])[:size].detach().double().square().sum())
    added = [token.id for token in source.task.added_tokens]
    rows = None
    if added:
        inputs, outputs = (matrix[added].detach().clone() for matrix in matrices(full))
        rows = (torch.tensor(added, dtype=torch.int64), inputs, outputs)
    return Factors(triples, energy, left_out, rows)


def _table(source: Source, factors: Factors, ranks: Sequence[int], dtype: str, scorer: Scorer | None) -> list[Row]:
    sides = sum(u.shape[0] + v.shape[0] for u, _, v in factors.triples.values())
    rows = 0 if factors.rows is None else 2 * factors.rows[1].numel()
    found = []
    for rank in ranks:
        energy = factors.kept(rank)
        value = None if scorer is None else scorer(_at_rank(source, factors, rank)).value
        found.append(Row(rank, energy, max(0.0, 1 - energy) ** 0.5, (rank * sides + rows) * _BYTES[dtype], value))
    return found


def _at_rank(source: Source, factors: Factors, rank: int) -> Any:
    from loradeck_train.publish.merging import merge_into

    return merge_into(source.base.folder, factors.changes(rank), factors.rows, "float32").eval()


def _choose(table: Sequence[Row], wanted: Wanted, ceiling: Score | None, left_out: float) -> Row:
    def good(row: Row) -> bool:
        if wanted.rank is not None:
            return row.rank == wanted.rank
        if wanted.energy is not None:
            return row.energy >= wanted.energy
        if wanted.error is not None:
            return row.error <= wanted.error
        assert wanted.budget is not None
        assert ceiling is not None
        assert row.score is not None
        own = Score(ceiling.name, row.score, ceiling.more_is_better)
        return own.loss_against(ceiling) <= wanted.budget

    found = next((row for row in table if good(row)), None)
    if found is None:
        best = table[-1]
        raise PreconditionError(
            f"no rank up to {best.rank} is good enough: it keeps {best.energy:.1%} of the linear layers' change, an "
            f"error of {best.error:.3f}"
            + ("" if best.score is None or ceiling is None else f", scores {best.score:.3f} of {ceiling.value:.3f}")
            + f"; {left_out:.0%} of all change is in embeddings, norms and biases, which an adapter leaves out: "
            "ask for less, or for more ranks with --ranks",
            reason="NO_RANK",
        )
    return found
