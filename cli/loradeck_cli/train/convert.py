"""`loradeck train merge` and `loradeck train extract`: between adapters and full checkpoints."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from loradeck_cli.number import Number
from loradeck_cli.train.options import emit, json_option, open_registry, publish_option, spinner, split_publish
from loradeck_registry.errors import InvalidError

if TYPE_CHECKING:
    from loradeck_registry.registry import Registry

_base_option = click.option("--base", metavar="REF", help="The base, where it is named otherwise now.")
_dtype_option = click.option(
    "--dtype", type=click.Choice(["bfloat16", "float32"]), default="bfloat16", show_default=True, help="As stored."
)
_registry_option = click.option(
    "--registry", "url", envvar="LORADECK_REGISTRY", metavar="URL", help="Registry of the revision."
)


@click.command()
@click.argument("reference", metavar="ADAPTER")
@_registry_option
@_base_option
@_dtype_option
@publish_option
@click.option("--output", type=click.Path(path_type=Path), help="Folder (default: build/merged/NAME).")
@json_option
def merge(
    reference: str,
    url: str | None,
    base: str | None,
    dtype: str,
    publish: str | None,
    output: Path | None,
    json_path: str | None,
) -> None:
    """Merge ADAPTER (NAME[@...]) into its base: one full checkpoint, compared with the pair after a reload."""
    registry = _registry(url)
    with spinner("merging"):
        from loradeck_train.convert.merge import merge as run_merge

        figures = run_merge(
            registry,
            reference,
            output or Path("build") / "merged" / reference.partition("@")[0],
            base=base,
            publish=split_publish(publish) if publish else None,
            dtype=dtype,
        )
    rows = {
        "revision": figures["revision"] or f"not pushed; files in {figures['folder']}",
        "base": f"{figures['base']} ({figures['base_digest']})",
        "size": f"{figures['bytes']:,} bytes",
        "embeddings": "tied" if figures["tied"] else "embedding and head apart",
        "check": f"{figures['mean_difference']:.4f} nats from the adapter on its base (largest "
        f"{figures['largest_difference']:.4f}), {figures['distance_from_base']:.2f} from the base",
    }
    emit(figures, rows, json_path)


@click.command()
@click.argument("reference", metavar="CHECKPOINT")
@_registry_option
@_base_option
@click.option("--rank", type=click.IntRange(1, 512), help="This rank.")
@click.option("--energy", type=Number(0, 1), help="The smallest rank that keeps this share of the change.")
@click.option("--error", type=Number(0, 1), help="The smallest rank of at most this relative error.")
@click.option("--budget", type=Number(0), help="The smallest rank that scores at most this much worse.")
@click.option("--ranks", default="1,2,4,8,16,32,64,128", show_default=True, metavar="N,N", help="Ranks of the table.")
@click.option("--embeddings/--no-embeddings", default=True, show_default=True, help="Let embedding and head take part.")
@click.option("--score", is_flag=True, help="Score every rank of the table; --budget does.")
@click.option("--data", metavar="SOURCE", help="Rows to score by (default: those of the checkpoint's recipe).")
@click.option("--split", default="test", show_default=True, help="Split of them.")
@click.option("--limit", type=click.IntRange(1), help="At most the first rows.")
@_dtype_option
@publish_option
@click.option("--output", type=click.Path(path_type=Path), help="Folder (default: build/extracted/NAME).")
@json_option
def extract(
    reference: str,
    url: str | None,
    base: str | None,
    rank: int | None,
    energy: float | None,
    error: float | None,
    budget: float | None,
    ranks: str,
    embeddings: bool,
    score: bool,
    data: str | None,
    split: str,
    limit: int | None,
    dtype: str,
    publish: str | None,
    output: Path | None,
    json_path: str | None,
) -> None:
    """Make an adapter out of CHECKPOINT (NAME[@...]): the change of its matrices, cut to a rank by SVD."""
    if sum(value is not None for value in (rank, energy, error, budget)) != 1:
        raise InvalidError("say what decides the rank: one of --rank, --energy, --error, --budget", field="rank")
    sizes = _ranks(ranks)
    registry = _registry(url)
    with spinner("extracting"):
        from loradeck_train.convert.extract import Scorer, Wanted
        from loradeck_train.convert.extract import extract as run_extract
        from loradeck_train.convert.held_out import held_out
        from loradeck_train.convert.score import score as score_model
        from loradeck_train.convert.sources import Source

        def scorer_of(source: Source) -> Scorer:
            examples = held_out(source, data, split, limit)
            return lambda model: score_model(model, source.task, examples)

        figures = run_extract(
            registry,
            reference,
            output or Path("build") / "extracted" / reference.partition("@")[0],
            Wanted(rank, energy, error, budget),
            base=base,
            ranks=sizes,
            publish=split_publish(publish) if publish else None,
            dtype=dtype,
            scorer_of=scorer_of if score or budget is not None else None,
            embeddings=embeddings,
        )
    rows = {
        "revision": figures["revision"] or f"not pushed; files in {figures['folder']}",
        "base": figures["base"],
        "rank": str(figures["rank"]),
        "size": f"{figures['bytes']:,} bytes",
        figures["score"] or "score": f"{figures['full_score']:.3f} of the checkpoint" if figures["score"] else None,
        "left out": f"{figures['left_out']:.2%} of the change has no place in an adapter (biases"
        + (")" if embeddings else ", embedding, head)"),
        "divergence": f"{figures['divergence_from_full']:.4f} nats from the checkpoint on the probe's prompts",
    }
    emit(figures, rows, json_path, _table(figures))


def _table(figures: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("rank", "error", "energy", "bytes", *([figures["score"]] if figures["score"] else [])):
        table.add_column(name, justify="right")
    for row in figures["table"]:
        cells = [str(row["rank"]), f"{row['error']:.3f}", f"{row['energy']:.1%}", f"{row['bytes']:,}"]
        table.add_row(*cells, *([f"{row['score']:.3f}"] if figures["score"] else []))
    return table


def _ranks(text: str) -> tuple[int, ...]:
    try:
        ranks = tuple(int(part) for part in text.split(","))
    except ValueError:
        ranks = ()
    if not ranks or min(ranks) < 1 or max(ranks) > 512:
        raise InvalidError(f"bad --ranks {text!r}: use numbers from 1 to 512 such as 4,8,16", field="ranks")
    return ranks


def _registry(url: str | None) -> "Registry":
    registry = open_registry(url)
    if registry is None:
        raise InvalidError("name the registry with --registry", field="registry")
    return registry
