"""Virtual token counting: which adapter has had least, so that it goes next.

After Sheng et al., "Fairness in Serving Large Language Models" (OSDI 2024), with weights.
"""

from collections.abc import Iterable, Mapping

_REMEMBERED = 4096
"""Idle counters kept; the oldest go first. A forgotten one starts at the floor, as a new adapter's does."""


class VirtualTokens:
    """A counter of weighted tokens served per key. The smallest goes next.

    A key that was idle is lifted to the smallest counter among the busy ones, so that nobody saves up service by
    staying away, and nobody is punished for having been alone.
    """

    def __init__(
        self, prompt_token_cost: float = 1.0, output_token_cost: float = 2.0, weights: Mapping[str, float] | None = None
    ) -> None:
        self._prompt_token_cost = prompt_token_cost
        self._output_token_cost = output_token_cost
        self._weights = dict(weights or {})
        self._served: dict[str, float] = {}
        self._floor = 0.0

    def arrive(self, key: str, busy: Iterable[str]) -> None:
        """`key` was idle and now has work; `busy` are the keys that have work already."""
        self._floor = max(self._floor, min((self._served.get(k, 0.0) for k in busy), default=self._floor))
        self._served[key] = max(self._served.pop(key, 0.0), self._floor)
        while len(self._served) > _REMEMBERED:
            del self._served[next(iter(self._served))]

    def prompt(self, key: str, tokens: int) -> None:
        """Charge prompt tokens, at dispatch."""
        self._charge(key, tokens * self._prompt_token_cost)

    def output(self, key: str, tokens: int) -> None:
        """Charge generated tokens, as they come."""
        self._charge(key, tokens * self._output_token_cost)

    def of(self, key: str) -> float:
        """Virtual time of `key`."""
        return self._served.get(key, self._floor)

    def leave(self, key: str) -> None:
        """`key` has no more work; what it had counts as the floor if nobody else is busy."""
        self._served[key] = self._served.pop(key, self._floor)

    def quiet(self, last: str) -> None:
        """Nobody is busy; `last` was the last one."""
        self._floor = max(self._floor, self._served.get(last, 0.0))

    def _charge(self, key: str, cost: float) -> None:
        self._served[key] = self._served.get(key, self._floor) + cost / self._weights.get(key, 1.0)
