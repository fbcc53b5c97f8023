"""Which examples share a row of a given size."""

import bisect
import random
from collections.abc import Sequence


def fill_rows(lengths: Sequence[int], size: int, seed: int) -> list[list[int]]:
    """Rows of at most `size` tokens from examples of these lengths, by best fit in decreasing order (Ding et al.,
    2024): the indices of each row's examples. An example longer than `size` gets a row of its own. The order of equal
    lengths, and of the examples in a row, depends on `seed` alone."""
    shuffled = random.Random(seed).sample(range(len(lengths)), len(lengths))
    rows: list[list[int]] = []
    # Open rows by the room that is left, so that the tightest fit is found by bisection.
    room: list[tuple[int, int]] = []
    for index in sorted(shuffled, key=lambda i: -lengths[i]):
        at = bisect.bisect_left(room, (lengths[index], -1))
        if at == len(room):
            rows.append([index])
            row, left = len(rows) - 1, size - lengths[index]
        else:
            left, row = room.pop(at)
            rows[row].append(index)
            left -= lengths[index]
        if left > 0:
            bisect.insort(room, (left, row))
    return rows
