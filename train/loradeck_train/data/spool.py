"""Sequences on the disk: rows and token ids of sets that are larger than the memory, by number as from a list."""

import bisect
import os
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Generic, TypeVar, overload

Item = TypeVar("Item")


class Spool(Sequence[Item], Generic[Item]):
    """A sequence whose items lie in a file without a name, gone with the process. In memory an item takes 8 bytes."""

    def __init__(self, items: Iterable[Item], dump: Callable[[Item], bytes], load: Callable[[bytes], Item]) -> None:
        self._load = load
        self._ends = array("Q", [0])
        self._file = tempfile.TemporaryFile(prefix="loradeck-spool-")  # noqa: SIM115
        for item in items:
            self._ends.append(self._ends[-1] + self._file.write(dump(item)))
        self._file.flush()

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Item]: ...
    def __getitem__(self, index: int | slice) -> Item | Sequence[Item]:
        if isinstance(index, slice):
            return Chosen(self, range(*index.indices(len(self))))
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        # pread has no position to share, so that processes which inherit the file can read as well.
        start = self._ends[index]
        return self._load(os.pread(self._file.fileno(), self._ends[index + 1] - start, start))

    def __iter__(self) -> Iterator[Item]:
        for index in range(len(self)):
            yield self[index]


class Chosen(Sequence[Item], Generic[Item]):
    """Some items of another sequence, by number; an item may come more than once."""

    def __init__(self, items: Sequence[Item], numbers: Sequence[int]) -> None:
        self._items = items
        self._numbers = numbers

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Item]: ...
    def __getitem__(self, index: int | slice) -> Item | Sequence[Item]:
        if isinstance(index, slice):
            return Chosen(self._items, self._numbers[index])
        return self._items[self._numbers[index]]


class Joined(Sequence[Item], Generic[Item]):
    """Sequences behind one another."""

    def __init__(self, parts: Sequence[Sequence[Item]]) -> None:
        self._parts = parts
        self._starts = [0]
        for part in parts:
            self._starts.append(self._starts[-1] + len(part))

    def __len__(self) -> int:
        return self._starts[-1]

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Item]: ...
    def __getitem__(self, index: int | slice) -> Item | Sequence[Item]:
        if isinstance(index, slice):
            return Chosen(self, range(*index.indices(len(self))))
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        part = bisect.bisect_right(self._starts, index) - 1
        return self._parts[part][index - self._starts[part]]
