"""Coalescing: when the tokens of a stream come faster than is worth a message each, several make one chunk."""

_SLACK = 0.1
"""How much later than expected a token may come and still be in its chunk, as a share of the tokens' distance."""
_MEMORY = 0.5
"""Weight of the newest distance in the running mean."""


class Pacer:
    """Says how long to leave a stream's next tokens with the engine, which merges what nobody reads.

    The first token is never held. Later, as many tokens are waited for as come within `window` seconds of the first of
    them, going by the distance of the last ones; where not even two would, none is held. When fewer or more came than
    that, the next token is taken as it comes, and counts anew.
    """

    def __init__(self, window: float, most_tokens: int) -> None:
        self._window = window
        self._remaining = most_tokens
        self._last = 0.0
        """When the newest token came, as far as is known."""
        self._distance = 0.0
        self._expected = 0
        """Tokens that the last pause was made for; 0 if there was none."""
        self._slack = 0.0

    def pause(self, now: float, tokens: int) -> float:
        """Seconds until the engine should be looked at again, after `tokens` (1 or more) were found at `now`."""
        self._remaining -= tokens
        met = tokens == self._expected
        arrival = now - self._slack if met else now
        last, self._last = self._last, arrival
        surprised, self._expected = self._expected > 0 and not met, 0
        if not last:
            return 0.0
        distance = (arrival - last) / tokens
        self._distance += _MEMORY * (distance - self._distance) if self._distance else distance
        if surprised:
            return 0.0
        distance = max(self._distance, 1e-4)
        self._slack = _SLACK * distance
        # The first token of the chunk comes after one distance, and may then wait for the window.
        merged = min(int((self._window - self._slack) / distance) + 1, self._remaining)
        if merged < 2:
            return 0.0
        self._expected = merged
        return arrival + merged * distance + self._slack - now
