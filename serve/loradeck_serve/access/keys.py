"""API keys: how they look, and the file that holds salted hashes of them and never a key.

A key is `ldk_<id>_<secret>`. The secret has 256 random bits, so nobody can guess it from its hash however fast the hash
is to compute: HMAC-SHA256 with a salt per key, microseconds per request, where a password would need scrypt.
"""

import hmac
import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Self

from filelock import FileLock, Timeout
from pydantic import Field, ValidationError

from loradeck_registry.errors import InvalidError, NotFoundError, PreconditionError, UnavailableError
from loradeck_serve.access.callers import check_caller
from loradeck_serve.config.loading import one_line
from loradeck_serve.config.strict import Strict

_KEY = re.compile(r"ldk_([a-z0-9]{8})_([A-Za-z0-9_-]{43})")
_LETTERS = "abcdefghijkmnpqrstuvwxyz23456789"
_LOCK_SECONDS = 10

State = Literal["valid", "expired", "revoked"]


class KeyRecord(Strict):
    """What is kept of one key."""

    id: str = Field(pattern=r"^[a-z0-9]{8}$", description="public part of the key")
    caller: str = Field(description="whose it is")
    salt: str = Field(pattern=r"^[0-9a-f]{32}$")
    hash: str = Field(pattern=r"^[0-9a-f]{64}$", description="HMAC-SHA256 of the secret under the salt")
    created: datetime
    expires: datetime | None = None
    revoked: datetime | None = None

    def state(self, now: datetime) -> State:
        """Whether it is good at `now`."""
        if self.revoked is not None and self.revoked <= now:
            return "revoked"
        return "expired" if self.expires is not None and self.expires <= now else "valid"

    def has(self, secret: str) -> bool:
        """Whether this is the key's secret, compared in constant time."""
        return hmac.compare_digest(_hash(self.salt, secret), self.hash)


class Keys(Strict):
    """All keys of a file, the oldest first."""

    keys: tuple[KeyRecord, ...] = ()

    @classmethod
    def read(cls, path: Path) -> Self:
        """From a JSON file. Raises NotFoundError or InvalidError (BAD_KEYS) with one line."""
        try:
            return cls.model_validate(json.loads(path.read_text(encoding="utf-8")))
        except OSError as error:
            raise NotFoundError(
                f"cannot read the keys {path} ({error.strerror}): `loradeck keys add` makes the file", field="access"
            ) from None
        except ValidationError as error:
            raise InvalidError(one_line(error, str(path), cls), reason="BAD_KEYS", field="access") from None
        except ValueError as error:
            raise InvalidError(f"{path} is not JSON: {error}", reason="BAD_KEYS", field="access") from None

    def by_id(self) -> dict[str, KeyRecord]:
        """The records by their keys' public parts."""
        return {record.id: record for record in self.keys}

    def add(self, caller: str, now: datetime, expires: datetime | None = None) -> tuple[Self, KeyRecord, str]:
        """A new key of `caller`: all keys with it, its record, and the key itself, which is kept nowhere."""
        taken = self.by_id()
        while (identifier := "".join(secrets.choice(_LETTERS) for _ in range(8))) in taken:
            pass
        secret, salt = secrets.token_urlsafe(32), secrets.token_hex(16)
        record = KeyRecord(
            id=identifier,
            caller=check_caller(caller),
            salt=salt,
            hash=_hash(salt, secret),
            created=now,
            expires=expires,
        )
        return self.model_copy(update={"keys": (*self.keys, record)}), record, f"ldk_{identifier}_{secret}"

    def revoke(self, identifier: str, now: datetime) -> Self:
        """All keys with this one revoked. Raises NotFoundError. Idempotent."""
        record = self.find(identifier)
        return self if record.revoked else self._with(record.model_copy(update={"revoked": now}))

    def rotate(self, identifier: str, now: datetime, overlap_ends: datetime) -> tuple[Self, KeyRecord, str]:
        """A new key of the same caller and lifetime; the old one ends at `overlap_ends`, if it does not end sooner.

        Raises NotFoundError, and InvalidError (KEY_ENDED) for a key that has ended already.
        """
        old = self.find(identifier)
        if (state := old.state(now)) != "valid":
            raise InvalidError(f"the key {identifier} is {state}: add a new one", reason="KEY_ENDED")
        lifetime = old.expires - old.created if old.expires else None
        ends = min(old.expires, overlap_ends) if old.expires else overlap_ends
        kept = self._with(old.model_copy(update={"expires": ends}))
        return kept.add(old.caller, now, now + lifetime if lifetime else None)

    def find(self, identifier: str) -> KeyRecord:
        """One record. Raises NotFoundError (KEY_NOT_FOUND)."""
        record = self.by_id().get(identifier)
        if record is None:
            raise NotFoundError(
                f"no key {identifier[:40]!r}: `loradeck keys list` shows the ids", reason="KEY_NOT_FOUND", field="id"
            )
        return record

    def _with(self, changed: KeyRecord) -> Self:
        return self.model_copy(update={"keys": tuple(changed if k.id == changed.id else k for k in self.keys)})


def parse_key(text: str) -> tuple[str, str] | None:
    """Id and secret of a key; None if the text is no key."""
    match = _KEY.fullmatch(text)
    return (match[1], match[2]) if match else None


def _hash(salt: str, secret: str) -> str:
    return hmac.digest(bytes.fromhex(salt), secret.encode(), "sha256").hex()


class KeyFile:
    """Changes the file: one writer at a time, and readers see the old file or the new one, never half of one."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> Keys:
        """What is in it; no keys if it does not exist yet."""
        return self.existing() if self._path.exists() else Keys()

    def existing(self) -> Keys:
        """What is in it. Raises what `Keys.read` raises."""
        return Keys.read(self._path)

    @contextmanager
    def changing(self, must_exist: bool = False) -> Iterator["KeyFile"]:
        """Keep other writers out. Raises UnavailableError (LOCKED), PreconditionError if it cannot write.

        With `must_exist` it raises what `Keys.read` raises too, before the lock makes a file or a folder.
        """
        if must_exist:
            self.existing()
        lock = FileLock(f"{self._path}.lock", timeout=_LOCK_SECONDS)
        try:
            lock.acquire()
        except Timeout:
            raise UnavailableError(
                f"another command is changing {self._path}: try again when it is done", reason="LOCKED"
            ) from None
        except OSError as error:
            raise PreconditionError(
                f"cannot write {self._path}: {error.strerror}; name a file in a folder that can be written",
                reason="NOT_WRITABLE",
            ) from None
        try:
            yield self
        finally:
            lock.release()

    def write(self, keys: Keys) -> None:
        """Replace the file. A new one is readable by its owner alone; otherwise owner and mode stay as they were."""
        old = self._path.stat() if self._path.exists() else None
        new = self._path.with_name(f".{self._path.name}.{secrets.token_hex(4)}")
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(keys.model_dump_json(indent=1, exclude_none=True) + "\n")
                file.flush()
                if old is not None:
                    os.fchmod(file.fileno(), old.st_mode & 0o777)
                    if (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()):
                        os.fchown(file.fileno(), old.st_uid, old.st_gid)
                os.fsync(file.fileno())
            os.replace(new, self._path)
        except BaseException:
            new.unlink(missing_ok=True)
            raise


def utc_now() -> datetime:
    """Now, to the second."""
    return datetime.now(UTC).replace(microsecond=0)
