"""From references as a user writes them to subjects: `REF=TASK` or `REF`, and an empty one for the base."""

from collections.abc import Sequence

from loradeck_bench.load.plan import Subject
from loradeck_bench.rows import DEFAULT_DATA, TASKS, label_set, read_rows
from loradeck_registry.errors import InvalidError


def subjects(
    references: Sequence[str], task: str | None = None, data: str | None = None, max_tokens: int | None = None
) -> dict[str, Subject]:
    """Subjects by reference, with rows of `data` (the project's own test set of the task if None).

    `task` is asked of references that name none. Raises InvalidError if one is left without a task.
    """
    found: dict[str, Subject] = {}
    for text in references:
        reference, _, named = text.partition("=")
        asked = named or task
        if asked not in TASKS:
            who = repr(reference) if reference else "the base"
            raise InvalidError(
                f"what is {who} asked? Say REF=TASK, or --task, with one of {', '.join(TASKS)}",
                reason="NO_TASK",
                field="task",
            )
        source = data or DEFAULT_DATA.get(asked)
        if source is None:
            raise InvalidError(f"{asked} has no data of its own: say --data", reason="NO_DATA", field="data")
        rows = tuple(read_rows(source, asked))
        labels = tuple(label_set(rows)) if asked == "classification" and not reference else ()
        found[reference] = Subject(reference, asked, rows, labels, max_tokens)
    return found
