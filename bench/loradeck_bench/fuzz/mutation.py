"""Bytes that are almost what they should be."""

import random


def mutated(content: bytes, chance: random.Random) -> bytes:
    """`content` with one to four changes: bits flipped, bytes set, cut, doubled, put in."""
    data = bytearray(content)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        _change(data, chance)
    return bytes(data)


def _change(data: bytearray, chance: random.Random) -> None:
    where = chance.randrange(len(data) + 1)
    kind = chance.randrange(7)
    if kind == 0 and data:
        data[where % len(data)] ^= 1 << chance.randrange(8)
    elif kind == 1 and data:
        data[where % len(data)] = chance.choice((0, 1, 0x7F, 0x80, 0xFF))
    elif kind == 2:
        del data[where:]
    elif kind == 3:
        del data[where : where + chance.randrange(1, 9)]
    elif kind == 4:
        data[where:where] = data[where : where + chance.randrange(1, 65)]
    elif kind == 5:
        data[where:where] = chance.randbytes(chance.randrange(1, 17))
    else:
        # A length that promises more than there is: varints of any size.
        data[where:where] = b"\xff" * chance.randrange(1, 11) + b"\x7f"
