"""The adapter's part of a recipe: shape, scale, start, and what of the embeddings is trained."""

import re
from typing import Literal, Self

from pydantic import Field, model_validator

from loradeck_train.recipe.strict import NonEmpty, Strict


class LoraSettings(Strict):
    """Shape and start of the adapter. The scale is alpha / rank (LoRA, Hu et al. 2021)."""

    rank: int = Field(default=16, ge=1, le=512, description="rank of every module's A and B")
    alpha: float = Field(default=32.0, gt=0, description="the update is scaled by alpha / rank")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="dropout in front of A while training")
    target_modules: Literal["all-linear"] | tuple[NonEmpty, ...] = Field(
        default="all-linear", description="`all-linear` (all but the head), or leaf names such as q_proj; [] for none"
    )
    rslora: bool = Field(default=False, description="scale by alpha / sqrt(rank) (Kalajdzievski 2023)")
    rank_pattern: dict[NonEmpty, int] = Field(
        default_factory=dict, description="end of a module's name (regular expression) -> its rank"
    )
    alpha_pattern: dict[NonEmpty, float] = Field(default_factory=dict, description="the same for alpha")
    loraplus_ratio: float | None = Field(
        default=None, ge=1, description="learning rate of B by that of A (LoRA+, Hayou et al. 2024); 16 is a usual one"
    )
    init: Literal["default", "gaussian", "eva", "pissa"] = Field(
        default="default",
        description="default: A uniform (Kaiming), B zero; gaussian: A normal; eva: A from the activations' main "
        "directions (Paischer et al. 2024); pissa: the weights' main part (Meng et al. 2024), taken off at publish",
    )
    eva_batches: int = Field(default=4, ge=1, description="batches of training data that EVA looks at")
    dora: bool = Field(
        default=False, description="magnitude and direction apart (Liu et al. 2024); published as its nearest LoRA"
    )
    dora_rank: int | None = Field(
        default=None, ge=1, le=512, description="rank of the LoRA that DoRA is published as; unset: four times its own"
    )
    embeddings: Literal["rows", "lora", "both"] = Field(
        default="rows",
        description="rows: new tokens' rows alone are trained; lora: LoRA on the whole embedding and head, new rows "
        "stay where they start; both. The last two change every token's row, and need a server with "
        "engine.embedding_lora",
    )
    embedding_sides: Literal["both", "input", "output"] = Field(
        default="both", description="with LoRA on the embeddings: embedding and head, or one of them"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name, pattern in (("rank_pattern", self.rank_pattern), ("alpha_pattern", self.alpha_pattern)):
            for key, value in pattern.items():
                try:
                    re.compile(key)
                except re.error as error:
                    raise ValueError(f"`{name}`: {key!r} is no regular expression ({error})") from error
                if not 0 < value <= (512 if name == "rank_pattern" else float("inf")):
                    raise ValueError(f"`{name}.{key}` is {value}: ranks go from 1 to 512, alphas are over 0")
        if self.dora and self.init == "pissa":
            raise ValueError("`dora` and `init: pissa` exclude each other: both rewrite the base's weights")
        if self.init == "eva" and self.embeddings != "rows":
            raise ValueError("`init: eva` knows no embeddings: use `embeddings: rows`")
        if self.init == "pissa" and self.embeddings != "rows":
            raise ValueError("`init: pissa` knows no embeddings: use `embeddings: rows`")
        if self.dora and self.embeddings != "rows":
            raise ValueError("`dora` is for linear layers alone: use `embeddings: rows`")
        if self.dora_rank is not None and not self.dora:
            raise ValueError("`dora_rank` belongs to `dora: true`")
        if self.embeddings == "rows" and self.embedding_sides != "both":
            raise ValueError("`embedding_sides` belongs to `embeddings: lora` or `both`")
        if self.embeddings == "rows" and self.target_modules == ():
            raise ValueError("nothing to train: `target_modules` is empty and `embeddings` is `rows`")
        return self

    @property
    def scale(self) -> float:
        """Factor of B A without patterns."""
        return self.alpha / (self.rank**0.5 if self.rslora else self.rank)

    def rank_of(self, module: str) -> int:
        """Rank of the module of that full name; PEFT's rule: the first pattern that matches its end."""
        for pattern, rank in self.rank_pattern.items():
            if re.match(rf"(.*\.)?({pattern})$", module):
                return rank
        return self.rank

    @property
    def largest_rank(self) -> int:
        """Rank bound of the training-time adapter."""
        return max([self.rank, *self.rank_pattern.values()])

    @property
    def published_rank(self) -> int:
        """Rank of the published adapter, which has one for all modules: what a server's max_lora_rank must hold."""
        if self.dora:
            return self.dora_rank or min(512, 4 * self.largest_rank)
        return self.largest_rank * (2 if self.init == "pissa" else 1)


class QuantizationSettings(Strict):
    """QLoRA (Dettmers et al. 2023): the frozen base in 4 bits through bitsandbytes, the adapter in full precision."""

    kind: Literal["nf4", "fp4"] = "nf4"
    double: bool = Field(default=True, description="quantise the block scales too: 0.4 bits less per weight")


LORA_FIELDS = tuple(LoraSettings.model_fields)
