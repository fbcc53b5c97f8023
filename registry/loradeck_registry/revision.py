"""A revision: a name, a number, and the manifest whose digest it is."""

import json
from dataclasses import dataclass

from pydantic import ValidationError

from loradeck_registry.errors import DamagedError, PreconditionError
from loradeck_registry.manifest import Manifest

FORMAT = 1
"""Of registries and of manifests."""


@dataclass(frozen=True)
class Revision:
    """An immutable revision: `name@number`, which is its content `digest` (of its manifest)."""

    name: str
    number: int
    digest: str
    manifest: Manifest

    def __str__(self) -> str:
        return f"{self.name}@{self.number}"


def parse_manifest(content: bytes, what: str) -> Manifest:
    """The manifest in `content`. Raises DamagedError if it is not one, PreconditionError if its format is newer."""
    try:
        return Manifest.model_validate_json(content)
    except ValidationError as error:
        try:
            form = json.loads(content).get("format")
        except (ValueError, AttributeError, RecursionError):
            form = None
        if isinstance(form, int) and form > FORMAT:
            raise PreconditionError(
                f"the manifest of {what} has format {form}, this loradeck reads {FORMAT}: upgrade loradeck",
                reason="MANIFEST_FORMAT",
            ) from error
        first = error.errors()[0]
        raise DamagedError(
            f"the manifest of {what} is not valid: {'.'.join(map(str, first['loc']))}: {first['msg']}"
        ) from error
