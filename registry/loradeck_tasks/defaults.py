"""Tasks used where nothing else is said: by recipes that name only a kind, and by requests to the base."""

from loradeck_tasks.task import Task, TaskKind

_SYSTEM = {
    "classification": "Name the theme of the text.",
    "short_qa": "Answer the question from the context in a few words.",
    "long_qa": "Answer the question from the context in detail.",
    "generate": None,
}
_TEMPLATE = {
    "classification": "{text}",
    "short_qa": "{context}\n\nQuestion: {question}",
    "long_qa": "{context}\n\nQuestion: {question}",
    "generate": "{prompt}",
}
_MAX_TOKENS = {"classification": 1, "short_qa": 48, "long_qa": 192, "generate": 256}


def default_task(kind: TaskKind, **changes: object) -> Task:
    """The default task of a kind, with `changes` to its fields (for classification `labels` is needed)."""
    fields: dict[str, object] = {
        "kind": kind,
        "system": _SYSTEM[kind],
        "template": _TEMPLATE[kind],
        "max_tokens": _MAX_TOKENS[kind],
    }
    return Task.model_validate(fields | changes)
