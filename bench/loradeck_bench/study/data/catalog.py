"""The catalogue of data sets: what each study needs, under which licence, and where it is public."""

from functools import cache
from pathlib import Path
from typing import Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from loradeck_registry.errors import NotFoundError

_FILE = Path(__file__).with_name("catalog.yaml")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Every(_Strict):
    """One row in `of` (`first`), or all others (`rest`): a split of a set that has none."""

    of: int = Field(ge=2)
    part: Literal["first", "rest"]


class DataFile(_Strict):
    """One file of a set, as a study reads it."""

    names: tuple[str, ...] = Field(default=(), description="other names that it goes by")
    url: str | None = None
    hub: str | None = Field(default=None, description="data set of the hub, split train")
    first: int | None = Field(default=None, ge=1, description="of the hub's rows, so many")
    every: Every | None = None
    sha256: str | None = None
    rows: int | None = None
    columns: tuple[str, ...] = Field(default=(), description="columns that every row has")
    optional: bool = Field(default=False, description="the set is whole without it: a licence's text")

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if self.url and self.hub:
            raise ValueError("a file has a `url` or a `hub`, not both")
        return self

    @property
    def address(self) -> str | None:
        """Where it is public, None if nowhere."""
        return self.url or (f"https://huggingface.co/datasets/{self.hub}" if self.hub else None)


class DataSet(_Strict):
    """One set."""

    what: str
    licence: str
    files: dict[str, DataFile] = Field(min_length=1)
    folders: tuple[str, ...] = Field(default=(), description="other names of its folder")
    optional: bool = Field(default=False, description="no run of the study needs it")
    get: str = Field(default="", description="how to come by a set that is not public")

    @property
    def public(self) -> bool:
        """Whether all that it needs can be fetched."""
        return all(file.address or file.optional for file in self.files.values())


@cache
def _catalogue() -> dict[str, dict[str, DataSet]]:
    tree = yaml.safe_load(_FILE.read_text(encoding="utf-8"))
    return {
        study: {name: DataSet.model_validate(entry) for name, entry in sets.items()} for study, sets in tree.items()
    }


def sets_of(study: str) -> dict[str, DataSet]:
    """The sets of a study by name. Raises NotFoundError."""
    found = _catalogue().get(study)
    if found is None:
        raise NotFoundError(f"no study {study!r} has data of its own: there are {', '.join(sorted(_catalogue()))}")
    return found
