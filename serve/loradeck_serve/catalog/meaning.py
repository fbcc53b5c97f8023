"""What a reference means on this server: one revision, or several that share its callers."""

from dataclasses import dataclass

from loradeck_registry.aliases.log import AliasEntry
from loradeck_registry.registry import Revision


@dataclass(frozen=True)
class Meaning:
    """The revisions behind a reference, in order of their numbers, as the registry said at one moment.

    A weighted alias has several; `entry` is the alias's entry then, whose shares decide who gets which.
    """

    revisions: tuple[Revision, ...]
    label: str = ""
    """The alias, also where a bare name stands for it; empty for a number or a digest."""
    entry: AliasEntry | None = None

    @property
    def weighted(self) -> bool:
        """Whether callers get different revisions."""
        return len(self.revisions) > 1

    @property
    def main(self) -> Revision:
        """The revision with the largest share."""
        return self.draw("")

    def draw(self, caller: str) -> Revision:
        """The revision that answers `caller`: always the same one while the shares stand; `""` gets `main`."""
        if self.entry is None or not self.weighted:
            return self.revisions[0]
        number = self.entry.draw(caller).revision
        return next(revision for revision in self.revisions if revision.number == number)

    @property
    def shares(self) -> tuple[tuple[int, float], ...]:
        """Number and share of each revision, of a weighted alias."""
        if self.entry is None or not self.weighted:
            return ()
        return tuple((target.revision, target.weight) for target in self.entry.targets)

    @property
    def digests(self) -> frozenset[str]:
        """Of all its revisions."""
        return frozenset(revision.digest for revision in self.revisions)

    def same_as(self, other: "Meaning") -> bool:
        """Whether every caller gets what `other` gives."""
        return self.digests == other.digests and self.shares == other.shares
