"""Examples to score a conversion by: held-out rows of the data that the revision was trained on, or others."""

from loradeck_registry.errors import PreconditionError
from loradeck_train.convert.sources import Source
from loradeck_train.data.encoding import Encoded, encode_examples
from loradeck_train.data.examples import answer_field, map_rows
from loradeck_train.data.rows import iterate_rows
from loradeck_train.recipe.data import DataSettings


def held_out(source: Source, data: str | None, split: str, limit: int | None) -> list[Encoded]:
    """Rows of `data` (unset: the source in the revision's recipe), split `split`, with the recipe's columns.

    Raises PreconditionError (NO_DATA) where the recipe's source was a file, which is recorded by name alone, and what
    reading rows raises.
    """
    provenance = source.revision.manifest.provenance
    recorded = (provenance.get("recipe") or {}).get("data") or {}
    name = data or str(recorded.get("source", ""))
    if not name or name.startswith("file:"):
        raise PreconditionError(
            "the revision does not say where its held-out rows are: name them with --data",
            reason="NO_DATA",
            field="data",
        )
    settings = DataSettings.model_validate({"source": name, "columns": recorded.get("columns", {})})
    wanted = (*source.task.fields, answer_field(source.task.kind))
    rows = list(map_rows(iterate_rows(name, split, limit), settings.columns, wanted, name))
    length = provenance.get("max_length")
    encoded, _ = encode_examples(rows, source.task, source.tokenizer, length if isinstance(length, int) else 2048)
    return list(encoded)
