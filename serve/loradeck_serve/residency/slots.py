"""Which adapters the engine has in slots, followed from outside: the engine keeps the least recently used order."""

from collections import OrderedDict


class SlotOrder:
    """The engine gives an adapter a slot at its load and in each batch, in place of the least recently used one."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._order: OrderedDict[str, None] = OrderedDict()

    def touch(self, digest: str) -> bool:
        """The adapter is used now. Returns whether it was in a slot already."""
        was_in = digest in self._order
        self._order[digest] = None
        self._order.move_to_end(digest)
        while len(self._order) > self._slots:
            self._order.popitem(last=False)
        return was_in

    def remove(self, digest: str) -> None:
        """The adapter left the engine."""
        self._order.pop(digest, None)

    def clear(self) -> None:
        """The engine is gone."""
        self._order.clear()

    @property
    def used(self) -> int:
        """Slots in use."""
        return len(self._order)

    def __contains__(self, digest: str) -> bool:
        return digest in self._order
