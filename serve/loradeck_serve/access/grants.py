"""What a caller may do: which adapters, which RPCs, how much."""

from fnmatch import fnmatchcase
from functools import cached_property, lru_cache
from typing import Any

from pydantic import Field, field_validator

from loradeck.adapters.v1 import ListAdaptersRequest
from loradeck.inference.v1 import ClassifyRequest
from loradeck_serve.config.strict import Strict

_READING = ("List", "Get", "Watch")
_ODD = "adapter patterns hold small letters, digits, `.`, `_`, `-` and the wildcards `*`, `?`, `[...]`"


def _methods(service: Any) -> frozenset[str]:
    return frozenset(method.name for method in service.methods)


@lru_cache(maxsize=1)
def groups() -> dict[str, frozenset[str]]:
    """Names for several RPCs: `inference`, `admin`, and `read`, the part of `admin` that changes nothing."""
    asking = _methods(ClassifyRequest.DESCRIPTOR.file.services_by_name["InferenceService"])
    operating = _methods(ListAdaptersRequest.DESCRIPTOR.file.services_by_name["AdapterService"])
    reading = frozenset(name for name in operating if name.startswith(_READING))
    return {"inference": asking, "admin": operating, "read": reading}


class Grants(Strict):
    """The rights of one caller. Limits of 0 are none; they hold for each server by itself."""

    adapters: tuple[str, ...] = Field(
        default=(), description="names of adapters, and of the base, with wildcards: clf-*; '*' is all"
    )
    rpcs: tuple[str, ...] = Field(
        default=("inference",), description="RPCs, or the groups `inference`, `admin`, `read` (admin without changes)"
    )
    requests_per_second: float = Field(default=0, ge=0, description="calls; a batch is one")
    tokens_per_minute: int = Field(default=0, ge=0, description="prompt and output tokens")
    concurrent: int = Field(default=0, ge=0, description="calls at once, waiting ones included")
    max_tokens: int = Field(default=0, ge=0, description="most tokens that a request may generate")

    @field_validator("rpcs")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        known = set(groups()).union(*groups().values())
        if odd := [name for name in names if name not in known]:
            raise ValueError(f"no such RPC: {', '.join(odd)}; there are {', '.join(sorted(known))}")
        return names

    @field_validator("adapters")
    @classmethod
    def _patterns(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            if not pattern or set(pattern) - set("abcdefghijklmnopqrstuvwxyz0123456789._-*?[]!"):
                raise ValueError(f"bad pattern {pattern!r}: {_ODD}")
        return patterns

    @cached_property
    def methods(self) -> frozenset[str]:
        """The RPCs, one by one."""
        return frozenset().union(*(groups().get(name, frozenset((name,))) for name in self.rpcs))

    def may_use(self, adapter: str) -> bool:
        """Whether an adapter, or the base, of this name may be asked for, seen or changed."""
        return any(fnmatchcase(adapter, pattern) for pattern in self.adapters)

    def most_tokens(self, limit: int) -> int:
        """The smaller of the server's limit and the caller's."""
        return min(limit, self.max_tokens) if self.max_tokens else limit


EVERYTHING = Grants(adapters=("*",), rpcs=("inference", "admin"))
"""Of everybody, where a server asks for no credentials."""
