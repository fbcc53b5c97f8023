"""What all parts of a study file have in common: unknown keys refused, values fixed once read."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
"""Name of a base, data set, run, server, or evaluation; a run's is also its name in the registry."""
Text = Annotated[str, StringConstraints(min_length=1)]
Path = Annotated[str, Field(pattern=r"^[^/]+(/[^/]+)*$", description="keys of a result, `/` between them")]
Settings = dict[Text, Any]
"""Dotted keys and their values, as `--set key=value` takes them; null takes a key away. `${data.split}` in a text is
the file of that split of a data set."""


class Strict(BaseModel):
    """A part of a study file."""

    model_config = ConfigDict(extra="forbid", frozen=True)
