"""The base of every settings model: unknown keys are refused, and values do not change."""

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """Immutable, and closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)
