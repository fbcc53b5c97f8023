"""Names and references: `name`, `name@7`, `name@prod`, `name@sha256:...`; bases also `hub:` and `dir:`."""

import re
from dataclasses import dataclass
from pathlib import Path

from loradeck_registry.errors import InvalidError
from loradeck_registry.manifest import is_digest

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_REVISION = re.compile(r"[1-9][0-9]{0,7}")
_HUB = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
_HUB_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*")
LATEST = "latest"
PROD = "prod"


def check_name(name: str, what: str = "adapter name") -> str:
    """Return `name` if it is well formed, else raise InvalidError."""
    if not _NAME.fullmatch(name) or ".." in name:
        raise InvalidError(
            f"bad {what} {name[:80]!r}: use 1 to 63 of a-z 0-9 . _ -, starting with a letter or digit",
            reason="BAD_NAME",
            field="name",
        )
    return name


def check_alias(alias: str) -> str:
    """Return `alias` if it is a well-formed alias that can be stored, else raise InvalidError."""
    check_name(alias, "alias")
    if alias.isdigit():
        raise InvalidError(f"bad alias {alias!r}: an alias is never all digits", reason="BAD_NAME", field="alias")
    if alias == LATEST:
        raise InvalidError(
            "the alias `latest` is derived from the revisions and cannot be set", reason="BAD_NAME", field="alias"
        )
    return alias


@dataclass(frozen=True)
class Reference:
    """A parsed reference. At most one of `revision`, `digest`, `alias` is set; none means prod, else latest."""

    name: str
    revision: int | None = None
    digest: str | None = None
    alias: str | None = None

    @classmethod
    def parse(cls, text: str) -> "Reference":
        """Parse `name[@selector]`. Raises InvalidError (reason BAD_NAME or BAD_REFERENCE)."""
        name, separator, selector = text.partition("@")
        check_name(name)
        if not separator:
            return cls(name)
        if is_digest(selector):
            return cls(name, digest=selector)
        if _REVISION.fullmatch(selector):
            return cls(name, revision=int(selector))
        if selector == LATEST:
            return cls(name, alias=LATEST)
        if selector.isdigit() or ":" in selector or not _NAME.fullmatch(selector):
            raise InvalidError(
                f"bad reference {text[:120]!r}: "
                "after @ comes a revision number (7), an alias (prod) or sha256:<64 hex digits>",
                reason="BAD_REFERENCE",
                field="reference",
            )
        return cls(name, alias=selector)

    def __str__(self) -> str:
        selector = self.digest or self.alias or self.revision
        return self.name if selector is None else f"{self.name}@{selector}"


POCKET = "pocket:base"


@dataclass(frozen=True)
class BaseReference:
    """Where a base comes from: exactly one of `registry`, `hub`, `folder`, `pocket` is set."""

    registry: Reference | None = None
    hub: str | None = None
    hub_revision: str | None = None
    folder: Path | None = None
    pocket: bool = False
    """The small base that comes with the project."""

    @classmethod
    def parse(cls, text: str) -> "BaseReference":
        """Parse `name[@...]`, `hub:org/name[@revision]`, `org/name[@revision]`, `dir:folder` or `pocket:base`.

        Raises InvalidError.
        """
        if text == POCKET:
            return cls(pocket=True)
        if text.startswith("dir:"):
            if not text[4:]:
                raise InvalidError(
                    "bad base 'dir:': name a folder after the colon", reason="BAD_REFERENCE", field="base"
                )
            return cls(folder=Path(text[4:]))
        hub, separator, revision = text.removeprefix("hub:").partition("@")
        if _HUB.fullmatch(hub) and ".." not in hub:
            if separator and not _HUB_REVISION.fullmatch(revision):
                raise InvalidError(f"bad hub revision {revision[:80]!r}", reason="BAD_REFERENCE", field="base")
            return cls(hub=hub, hub_revision=revision or None)
        if text.startswith("hub:"):
            raise InvalidError(f"bad hub name {hub[:120]!r}: use org/name", reason="BAD_REFERENCE", field="base")
        if text.startswith(("/", ".", "~")):
            raise InvalidError(
                f"bad base {text[:120]!r}: a folder is named as dir:{text[:120]}", reason="BAD_REFERENCE", field="base"
            )
        if ":" in text.partition("@")[0]:
            raise InvalidError(
                f"bad base {text[:120]!r}: use a name in the registry, hub:org/name, dir:folder or {POCKET}",
                reason="BAD_REFERENCE",
                field="base",
            )
        return cls(registry=Reference.parse(text))

    def __str__(self) -> str:
        if self.registry is not None:
            return str(self.registry)
        if self.hub is not None:
            return f"hub:{self.hub}" + (f"@{self.hub_revision}" if self.hub_revision else "")
        return POCKET if self.pocket else f"dir:{self.folder}"
