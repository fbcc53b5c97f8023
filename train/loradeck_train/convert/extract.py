"""A LoRA out of a full checkpoint: the change of every matrix, cut to the rank that is good enough."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from loradeck_registry.bases.shapes import read_shapes
from loradeck_registry.errors import PreconditionError
from loradeck_registry.registry import Registry
from loradeck_train.convert.folding import gains
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
Triple = tuple[Tensor, Tensor, Tensor]


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
    """A rank and what it keeps of the matrices' change: share of the squared norm, relative error (Frobenius),
    bytes of tensors, and the score where one was asked for."""

    rank: int
    energy: float
    error: float
    bytes: int
    score: float | None = None


@dataclass
class Factors:
    """Singular triples of every matrix's change, up to the largest rank, and the changes' squared norm."""

    triples: dict[str, Triple]
    """By linear module of the layers."""
    embedding: Triple | None
    head: Triple | None
    """Of the base's own rows, [rows, hidden]; None where they have not changed, or are left out."""
    energy: float
    left_out: float
    """Squared norm of what has no place in the adapter: biases, norms that feed no linear layer, and embedding and head
    if they are left out."""
    rows: Rows | None

    @property
    def all(self) -> list[Triple]:
        """Of layers, embedding and head."""
        return [*self.triples.values(), *(found for found in (self.embedding, self.head) if found is not None)]

    def changes(self, rank: int) -> Changes:
        """The pairs at `rank`, singular values shared by both sides."""
        return Changes(
            pairs={name: _pair(triple, rank) for name, triple in self.triples.items()},
            embedding=None if self.embedding is None else _pair(self.embedding, rank),
            head=None if self.head is None else _pair(self.head, rank),
        )

    def kept(self, rank: int) -> float:
        """Share of the matrices' squared norm."""
        kept = sum(float(values[:rank].double().square().sum()) for _, values, _ in self.all)
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
    embeddings: bool = True,
) -> dict[str, Any]:
    """Extract an adapter from the full checkpoint `reference`, write it to `output`, and push it if `publish` says so.

    What norms have learned goes into the linear layers behind them. `embeddings`: the base's own rows of embedding and
    head take part; new tokens' rows always do, whole. `scorer_of` gives every rank of the table a score, and the
    checkpoint itself. Returns figures for programs. Raises PreconditionError (NO_RANK: none of `ranks` is good enough;
    what opening the source and the proof raise).
    """
    source = open_source(registry, reference, base, "full")
    ranks = sorted({*ranks, *([wanted.rank] if wanted.rank else [])})
    full = load_causal(source.folder, torch.float32).eval()
    allowed = allowed_ids(source.task, source.base.identity.vocabulary)
    of_full = logprobs_at_end(full, source.prompts, allowed)
    scorer = scorer_of(source) if scorer_of is not None else None
    ceiling = scorer(full) if scorer is not None else None
    factors = _factors(source, full, max(ranks), embeddings)
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
        "embeddings": factors.embedding is not None or factors.head is not None,
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


def _pair(triple: Triple, rank: int) -> tuple[Tensor, Tensor]:
    u, values, v = triple
    root = values[:rank].sqrt()
    return (v[:, :rank] * root).t().contiguous(), (u[:, :rank] * root).contiguous()


def _factors(source: Source, full: Any, rank: int, embeddings: bool) -> Factors:
    plain = load_causal(source.base.folder, torch.float32).eval()
    shapes = read_shapes(source.base.folder, source.base.identity)
    gain, folded = gains(plain, full, source.prompts[0])
    changes: dict[str, Tensor] = {}
    left_out = 0.0
    before = dict(plain.named_parameters())
    for name, after in full.named_parameters():
        module = name.removesuffix(".weight")
        if module in shapes.modules:
            changes[module] = (after * gain.get(module, 1.0) - before[name]).detach()
        elif name in before and name not in folded and after.ndim == 1:
            left_out += _energy(after - before[name])
    (first, _), (second, own_head) = matrices(plain), matrices(full)
    heads = own_head * gain.get(shapes.head, 1.0)
    # Rows of new tokens are carried over as they are.
    sides = {shapes.embedding: (second - first).detach(), shapes.head: (heads - matrices(plain)[1]).detach()}
    for change in sides.values():
        change[shapes.vocabulary :] = 0
    sides = {name: change for name, change in sides.items() if _energy(change)}
    if not embeddings:
        left_out += sum(_energy(change) for change in sides.values())
        sides = {}
    added = [token.id for token in source.task.added_tokens]
    rows = None
    if added:
        inputs, outputs = (matrix[added].detach().clone() for matrix in (second, heads))
        rows = (torch.tensor(added, dtype=torch.int64), inputs, outputs)
    cut = {name: singular(change, rank) for name, change in sides.items()}
    return Factors(
        {name: singular(change, rank) for name, change in changes.items()},
        cut.get(shapes.embedding),
        cut.get(shapes.head),
        sum(_energy(change) for change in (*changes.values(), *sides.values())),
        left_out,
        rows,
    )


def _energy(change: Tensor) -> float:
    return float(change.detach().double().square().sum())


def _table(source: Source, factors: Factors, ranks: Sequence[int], dtype: str, scorer: Scorer | None) -> list[Row]:
    sides = sum(u.shape[0] + v.shape[0] for u, _, v in factors.all)
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
            f"no rank up to {best.rank} is good enough: it keeps {best.energy:.1%} of the matrices' change, an "
            f"error of {best.error:.3f}"
            + ("" if best.score is None or ceiling is None else f", scores {best.score:.3f} of {ceiling.value:.3f}")
            + f"; {left_out:.0%} of all change is where the adapter has no place for it: "
            "ask for less, or for more ranks with --ranks",
            reason="NO_RANK",
        )
    return found
