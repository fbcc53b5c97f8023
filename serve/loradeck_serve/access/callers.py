"""The callers' file: who there is, by which certificates they are known, and what each may do."""

import re
from pathlib import Path
from typing import Self

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from loradeck_registry.errors import InvalidError, NotFoundError
from loradeck_serve.access.grants import Grants
from loradeck_serve.config.loading import one_line
from loradeck_serve.config.strict import Strict

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@/-]{0,62}")


def check_caller(name: str) -> str:
    """The name of a caller. Raises InvalidError (BAD_NAME) if it cannot be one."""
    if not _NAME.fullmatch(name):
        raise InvalidError(
            f"bad caller name {name[:80]!r}: letters, digits and . _ @ / - behind a letter or digit, at most 63",
            reason="BAD_NAME",
            field="caller",
        )
    return name


class Caller(Grants):
    """One caller."""

    certificates: tuple[str, ...] = Field(
        default=(), description="names of client certificates: subject alternative name (DNS, URI, ...) or common name"
    )


class Callers(Strict):
    """All callers."""

    callers: dict[str, Caller] = Field(default_factory=dict)

    @field_validator("callers")
    @classmethod
    def _names(cls, callers: dict[str, Caller]) -> dict[str, Caller]:
        for name in callers:
            try:
                check_caller(name)
            except InvalidError as error:
                raise ValueError(error.message) from None
        return callers

    @model_validator(mode="after")
    def _one_caller_each(self) -> Self:
        seen: dict[str, str] = {}
        for name, caller in self.callers.items():
            for certificate in caller.certificates:
                if other := seen.get(certificate):
                    raise ValueError(f"the certificate {certificate!r} belongs to both {other!r} and {name!r}")
                seen[certificate] = name
        return self

    @classmethod
    def read(cls, path: Path) -> Self:
        """From a YAML file. Raises NotFoundError or InvalidError (BAD_CALLERS) with one line."""
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise NotFoundError(f"cannot read the callers {path}: {error.strerror}", field="access") from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            text = " ".join(str(error).split())
            raise InvalidError(f"{path} is not YAML: {text}", reason="BAD_CALLERS", field="access") from None
        if content is None:
            # Half-written, most likely: that nobody may do anything has to be said.
            raise InvalidError(
                f"{path} is empty: `callers: {{}}` if there are none", reason="BAD_CALLERS", field="access"
            )
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            raise InvalidError(one_line(error, str(path), cls), reason="BAD_CALLERS", field="access") from None

    def of_certificate(self, names: frozenset[str]) -> str | None:
        """The caller that has one of these names of a verified certificate."""
        for name, caller in self.callers.items():
            if not names.isdisjoint(caller.certificates):
                return name
        return None
