"""Numbered logs: entries 1, 2, 3, … of a folder, each created only if absent, never changed, without gaps."""

import json
import uuid
from typing import Any

from pydantic import ValidationError

from loradeck_registry import layout
from loradeck_registry.errors import DamagedError
from loradeck_registry.records import Record
from loradeck_registry.remembering import remember
from loradeck_registry.stores.store import Store

KEPT = 4096
"""Decoded entries of one log that are kept."""


class NumberedLog:
    """One log, for any number of threads. Entries are JSON objects; a decoded one is kept, because it never changes."""

    def __init__(self, store: Store, folder: str, model: type[Record] = Record) -> None:
        """`model` says what each entry must hold."""
        self._store = store
        self._folder = folder
        self._model = model
        self._entries: dict[int, dict[str, Any]] = {}
        self._last = 0

    def last(self) -> int:
        """Number of the newest entry, 0 if there is none. After the first call one look-up when nothing was added."""
        last = self._last
        if last == 0:
            last = max(self.numbers(), default=0)
        else:
            while self._store.size(layout.numbered(self._folder, last + 1)) is not None:
                last += 1
        # Threads may do this at once: each value is true when it is found, and an older one never replaces a newer.
        self._last = max(self._last, last)
        return last

    def numbers(self) -> list[int]:
        """Numbers of all entries, ascending."""
        found = map(layout.number_of, self._store.entries(self._folder))
        return sorted(number for number in found if number is not None)

    def read(self, number: int) -> dict[str, Any]:
        """Entry `number`. Raises NotFoundError, DamagedError."""
        entry = self._entries.get(number)
        if entry is None:
            key = layout.numbered(self._folder, number)
            entry = remember(self._entries, number, decode(self._store.get(key), key, self._model), KEPT)
        return entry

    def append(self, number: int, entry: dict[str, Any]) -> bool:
        """Write entry `number`, which must be the next one; False if another writer has taken the number.

        An object store may have taken the entry although its answer was lost and the request was sent again: an entry
        therefore carries an `id` of its own, and one that is found under the number is recognised.
        """
        key = layout.numbered(self._folder, number)
        entry = entry | {"id": uuid.uuid4().hex}
        return (
            self._store.put_if_absent(key, encode(entry)) or decode(self._store.get(key), key).get("id") == entry["id"]
        )


def encode(entry: dict[str, Any]) -> bytes:
    """A small record as JSON bytes."""
    return json.dumps(entry, sort_keys=True, ensure_ascii=False, allow_nan=False).encode()


def decode(content: bytes, key: str, model: type[Record] = Record) -> dict[str, Any]:
    """The record in `content`, which holds what `model` demands. Raises DamagedError naming `key`."""
    try:
        entry = json.loads(content)
    except (ValueError, RecursionError):
        entry = None
    if not isinstance(entry, dict):
        raise DamagedError(
            f"the record {key} is damaged: it is not a JSON object; restore it from a copy of the registry",
            metadata={"object": key},
        )
    try:
        model.model_validate(entry)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(step)[:40] for step in first["loc"][:6])
        raise DamagedError(
            f"the record {key} is damaged: `{where}`: {first['msg']}; restore it from a copy of the registry",
            metadata={"object": key},
        ) from None
    return entry
