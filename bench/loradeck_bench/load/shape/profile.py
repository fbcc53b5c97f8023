"""How the rate of an open loop goes over time: constant, a ramp, steps; piecewise linear."""

import itertools
import math
from dataclasses import dataclass
from typing import Self

from loradeck_registry.errors import InvalidError


@dataclass(frozen=True)
class RateProfile:
    """Requests per second over time. Each piece is (seconds, rate at its start, rate at its end)."""

    pieces: tuple[tuple[float, float, float], ...]
    text: str
    """As a user wrote it."""

    @classmethod
    def constant(cls, rate: float, duration: float) -> Self:
        """`rate` throughout. Raises InvalidError unless both are above zero."""
        return cls._checked(((duration, rate, rate),), f"{rate:g}")

    @classmethod
    def parse(cls, text: str, duration: float) -> Self:
        """`2:20`, a ramp from 2 to 20 (further points, evenly spaced: `2:20:2`), or `5,10,20`, steps of equal length.

        Raises InvalidError (BAD_RATE).
        """
        try:
            rates = [float(part) for part in text.replace(",", ":").split(":")]
        except ValueError:
            rates = []
        if len(rates) < 2 or (":" in text and "," in text):
            raise InvalidError(
                f"bad rates {text!r}: use 2:20 for a ramp or 5,10,20 for steps", reason="BAD_RATE", field="rates"
            )
        if ":" in text:
            length = duration / (len(rates) - 1)
            pieces = tuple((length, begin, end) for begin, end in itertools.pairwise(rates))
        else:
            pieces = tuple((duration / len(rates), rate, rate) for rate in rates)
        return cls._checked(pieces, text)

    @classmethod
    def _checked(cls, pieces: tuple[tuple[float, float, float], ...], text: str) -> Self:
        numbers = [number for piece in pieces for number in piece]
        good = all(math.isfinite(number) and number >= 0 for number in numbers)
        if not good or not all(length > 0 and begin + end > 0 for length, begin, end in pieces):
            raise InvalidError("rate and duration must be above zero", reason="BAD_RATE", field="rate")
        return cls(pieces, text)

    @property
    def duration(self) -> float:
        """Seconds in all."""
        return sum(length for length, _, _ in self.pieces)

    def time_of(self, count: float) -> float | None:
        """When `count` requests are expected to have come; None if that is after the end."""
        begun = 0.0
        if count == 0:
            return begun
        for length, begin, end in self.pieces:
            expected = length * (begin + end) / 2
            if count < expected:
                # begin * x + (end - begin) / (2 * length) * x^2 = count, in the form that is exact for a flat piece.
                slope = (end - begin) / length
                return begun + 2 * count / (begin + math.sqrt(begin**2 + 2 * slope * count))
            count -= expected
            begun += length
        return None
