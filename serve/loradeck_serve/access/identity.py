"""Who a call comes from: told by an API key or a client certificate, and by nothing else where those are asked for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from loradeck_registry.errors import DeniedError, NotFoundError, UnauthenticatedError
from loradeck_serve.access.callers import Callers
from loradeck_serve.access.grants import EVERYTHING, Grants
from loradeck_serve.access.keys import KeyRecord, Keys, parse_key

AUTHORIZATION = "authorization"
_BEARER = "bearer "


@dataclass(frozen=True)
class Identity:
    """A caller as the server knows it. `proof` says by what: nothing means that `name` is what the caller says."""

    name: str
    proof: Literal["none", "key", "certificate"] = "none"
    key_id: str = ""
    grants: Grants = EVERYTHING
    known: bool = True
    """Whether the file of callers has this one."""

    def check_known(self) -> None:
        """Raise DeniedError (NO_GRANTS) unless this caller has grants."""
        if not self.known:
            raise DeniedError(f"{self.name} has no grants on this server: ask whoever runs it", reason="NO_GRANTS")

    def check_method(self, method: str) -> None:
        """Raise DeniedError (NOT_GRANTED) unless this RPC is granted."""
        if method not in self.grants.methods:
            raise DeniedError(
                f"{self.name} may not call {method}: ask whoever runs the server for a grant",
                reason="NOT_GRANTED",
                metadata={"method": method},
            )

    def check_adapter(self, adapter: str) -> None:
        """Raise DeniedError (NOT_GRANTED) unless this name is granted; whether it exists plays no part."""
        if not self.grants.may_use(adapter):
            raise DeniedError(
                f"{self.name} may not use {adapter!r}: ask whoever runs the server for a grant",
                reason="NOT_GRANTED",
                field="adapter",
            )

    def hide_others(self, error: NotFoundError, adapter: str) -> NotFoundError:
        """`error` without what it says of other names (what there is instead), unless all of them are granted."""
        if error.reason != "NAME_NOT_FOUND" or "*" in self.grants.adapters:
            return error
        return NotFoundError(f"there is no {adapter!r} here: check the name", reason=error.reason)


NOBODY = Identity("")
"""Whoever calls, where no credentials are asked for."""


class Identities:
    """The known callers and keys, as the files said when they were last read."""

    def __init__(self, callers: Callers, keys: Keys) -> None:
        self._callers = callers
        self._records = keys.by_id()

    @property
    def records(self) -> Mapping[str, KeyRecord]:
        """The keys by id."""
        return self._records

    def identify(self, authorization: str | None, certificate: Callable[[], frozenset[str]]) -> Identity:
        """Who sends this `authorization` metadata, or has one of these names in a verified certificate.

        A key that is sent decides, and must be good. Raises UnauthenticatedError (NO_CREDENTIALS, BAD_KEY, KEY_REVOKED,
        KEY_EXPIRED, UNKNOWN_CERTIFICATE). Who is proven and has no grants is an identity too: its refusal has a name.
        """
        if authorization is not None:
            record = self._of_key(authorization)
            return self._named(record.caller, "key", record.id)
        names = certificate()
        if not names:
            raise UnauthenticatedError(
                "this server asks for an API key: send `authorization: Bearer KEY` (loradeck: --api-key-file)",
                reason="NO_CREDENTIALS",
            )
        caller = self._callers.of_certificate(names)
        if caller is None:
            raise UnauthenticatedError(
                "the client certificate belongs to no caller of this server: have its name added to one",
                reason="UNKNOWN_CERTIFICATE",
            )
        return self._named(caller, "certificate", "")

    def check(self, identity: Identity) -> Identity:
        """The same caller as known now. Raises UnauthenticatedError and DeniedError if it would be refused today."""
        if identity.proof == "key":
            record = self._records.get(identity.key_id)
            if record is None:
                raise self._ended("revoked")
            self._check_state(record)
        found = self._named(identity.name, identity.proof, identity.key_id)
        found.check_known()
        return found

    def _of_key(self, authorization: str) -> KeyRecord:
        scheme, text = authorization[: len(_BEARER)], authorization[len(_BEARER) :].strip()
        parts = parse_key(text) if scheme.lower() == _BEARER else None
        record = self._records.get(parts[0]) if parts else None
        if parts is None or record is None or not record.has(parts[1]):
            raise UnauthenticatedError("this API key is not known here: check it, or ask for one", reason="BAD_KEY")
        # Only now: who does not have the secret learns nothing about the key.
        self._check_state(record)
        return record

    def _check_state(self, record: KeyRecord) -> None:
        if (state := record.state(datetime.now(UTC))) != "valid":
            raise self._ended(state)

    @staticmethod
    def _ended(state: str) -> UnauthenticatedError:
        return UnauthenticatedError(f"this API key is {state}: ask for a new one", reason=f"KEY_{state.upper()}")

    def _named(self, name: str, proof: Literal["none", "key", "certificate"], key_id: str) -> Identity:
        caller = self._callers.callers.get(name)
        return Identity(name, proof, key_id, caller or Grants(), known=caller is not None)
