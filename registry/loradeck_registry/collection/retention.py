"""Retention: which revisions a collection may retire."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Record:
    """One revision as retention sees it."""

    name: str
    number: int
    digest: str


@dataclass(frozen=True)
class Retention:
    """Keep the newest `keep_last` revisions of each name (None: all); of the older ones those with an alias or a tag.

    The newest revision of a name is always kept, and so is what an alias points to; what its rollback would restore is
    kept unless `keep_aliased` is off. `names` limits it to some names.
    """

    keep_last: int | None = None
    keep_aliased: bool = True
    keep_tagged: bool = True
    names: frozenset[str] | None = None

    def retires(
        self,
        records: Mapping[str, Iterable[Record]],
        aliased: frozenset[tuple[str, int]],
        restorable: frozenset[tuple[str, int]],
        tagged: frozenset[str],
    ) -> list[Record]:
        """The records that go. `aliased` and `restorable` hold name and number, `tagged` manifest digests."""
        if self.keep_last is None:
            return []
        gone = []
        for name, revisions in records.items():
            if self.names is not None and name not in self.names:
                continue
            ordered = sorted(revisions, key=lambda record: -record.number)
            for record in ordered[max(self.keep_last, 1) :]:
                place = (record.name, record.number)
                if place in aliased or (self.keep_aliased and place in restorable):
                    continue
                if self.keep_tagged and record.digest in tagged:
                    continue
                gone.append(record)
        return gone
