"""The task: what an adapter was trained to do, said once, used by training and by serving alike."""

import string
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from loradeck_registry.manifest import Digest

MAX_ADDED_TOKENS = 64
"""Most tokens that one adapter may add."""
MAX_LABELS = 128
"""Most labels of one classification task: the engine reports at most this many chosen log-probabilities."""
MAX_LABEL = 128
"""Most characters of a label."""
MAX_TEXT = 200_000
"""Most characters of a template or of a system prompt."""
MAX_STOPS, MAX_STOP = 32, 256
"""Most stop strings, and most characters of one: each token of an answer is held against all of them."""
MAX_TOKENS = 1 << 20
MAX_INTEGER = 2**31 - 1

TaskKind = Literal["classification", "short_qa", "long_qa", "generate"]

FIELDS: dict[str, tuple[str, ...]] = {
    "classification": ("text",),
    "short_qa": ("context", "question"),
    "long_qa": ("context", "question"),
}
"""Fields that the template of each fixed kind may name; `generate` names its own."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AddedToken(_Strict):
    """A token that the adapter adds to the base's vocabulary, on a reserved row."""

    content: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    id: int = Field(
        ge=0, le=MAX_INTEGER, description="row of the embedding and of the head; at or past the base's `vocabulary`"
    )


class Label(_Strict):
    """One class of a classification task."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=MAX_LABEL)]
    token: str | None = Field(default=None, description="the added token that stands for it; unset: scored as text")


class SamplingDefaults(_Strict):
    """Sampling settings of a request that sets none."""

    temperature: float = Field(default=0.0, ge=0, le=2)
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int = Field(default=0, ge=0, le=MAX_INTEGER, description="0 disables")


class Task(_Strict):
    """How requests become token ids and how outputs become answers. Stored in the manifest as JSON."""

    kind: TaskKind
    format: Literal["chat", "plain"] = Field(
        default="chat", description="chat: the tokenizer's chat template; plain: system, a blank line, template"
    )
    system: str | None = Field(default=None, max_length=MAX_TEXT, description="system prompt")
    template: str = Field(
        max_length=MAX_TEXT, description="user message with {field} placeholders; {{ and }} are literal braces"
    )
    labels: tuple[Label, ...] = Field(default=(), max_length=MAX_LABELS)
    text_normalisation: Literal["sum", "mean"] = Field(
        default="mean", description="how token log-probabilities of a text label are combined"
    )
    stop: tuple[Annotated[str, StringConstraints(max_length=MAX_STOP)], ...] = Field(
        default=(), max_length=MAX_STOPS, description="stop strings beside the end-of-turn tokens"
    )
    max_tokens: int = Field(
        default=256, ge=1, le=MAX_TOKENS, description="most tokens to generate when a request does not say"
    )
    sampling: SamplingDefaults = SamplingDefaults()
    added_tokens: tuple[AddedToken, ...] = Field(default=(), max_length=MAX_ADDED_TOKENS)
    tokenizer_digest: Digest | None = Field(default=None, description="of the base tokenizer it was trained with")
    chat_template_digest: Digest | None = Field(default=None, description="of the chat template; unset for plain")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.kind == "classification") != bool(self.labels):
            raise ValueError("`labels` are given for kind classification and only there")
        names = [label.name for label in self.labels]
        if len(set(names)) != len(names) or len(names) == 1:
            raise ValueError("`labels` must be two or more different names")
        tokens = [label.token for label in self.labels if label.token is not None]
        if tokens and (len(tokens) != len(names) or len(set(tokens)) != len(names)):
            raise ValueError("either every label has a `token` of its own, or none has one")
        contents = {t.content for t in self.added_tokens}
        if len(contents) != len(self.added_tokens) or len({t.id for t in self.added_tokens}) != len(contents):
            raise ValueError("`added_tokens` must differ in content and in id")
        missing = [t for t in tokens if t not in contents]
        if missing:
            raise ValueError(f"label tokens without an entry in `added_tokens`: {', '.join(missing)}")
        unknown = set(self.fields) - set(FIELDS.get(self.kind, self.fields))
        if unknown:
            raise ValueError(f"`template` names unknown fields: {', '.join(sorted(unknown))}")
        return self

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the template's placeholders, in order, each once. Raises ValueError on a bad template."""
        found: dict[str, None] = {}
        for _, name, spec, conversion in string.Formatter().parse(self.template):
            if name is None:
                continue
            if not name.isidentifier() or spec or conversion:
                raise ValueError(f"bad placeholder {{{name}}} in `template`: use {{name}} only")
            found[name] = None
        return tuple(found)

    @property
    def uses_label_tokens(self) -> bool:
        """Whether a classification is read off one forward pass."""
        return bool(self.labels) and self.labels[0].token is not None
