"""Random messages of any type, made from its descriptor."""

import random
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

_TEXTS = (
    "", " ", "\n", "\x00", "x", "..", "../../etc", "a" * 64, "clf@", "@", "clf@prod@prod", "clf@0", "clf@-1",
    "clf@latest", "absent", "absent@prod", "clf@absent",
    "clf@99999999999999999999", "clf@sha256:", "clf@sha256:" + "0" * 64, "CLF", "клф", "\u202e", "\U0001f600",
    "%s%n",
    "{text}", "{{", "<|im_end|>", "<|endoftext|>", "'; drop table", "null", "NaN", "\ufffd", "a\u0300" * 50,
)  # fmt: skip
_INTEGERS = (0, 1, -1, 2, 7, 255, 256, 65535, 2**31 - 1, -(2**31), 2**63 - 1, -(2**63))
_FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 2.0, 1e-45, 1e38, float("inf"), float("-inf"), float("nan"))
_BITS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}


def text(chance: random.Random) -> str:
    """A text: a nasty one, a short one of any characters, or now and then a long one."""
    kind = chance.random()
    if kind < 0.6:
        return chance.choice(_TEXTS)
    size = chance.randrange(40) if kind < 0.97 else chance.randrange(60_000)
    # Surrogates are no text in protobuf.
    return "".join(chr(chance.choice((32, 97, 0x400, 0x4E00, 0x1F600)) + chance.randrange(64)) for _ in range(size))


def fill(message: Message, chance: random.Random, depth: int = 3) -> None:
    """Set random fields to random values."""
    for field in message.DESCRIPTOR.fields:
        if chance.random() < 0.7:
            set_field(message, field, chance, depth)


def set_field(message: Message, field: Any, chance: random.Random, depth: int = 3) -> None:
    """Set one field to a random value, or clear it."""
    message.ClearField(field.name)
    if chance.random() < 0.1:
        return
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        entries = getattr(message, field.name)
        for _ in range(_count(chance)):
            entries[text(chance)] = text(chance)
    elif field.is_repeated:
        values = getattr(message, field.name)
        for _ in range(_count(chance)):
            if field.message_type is None:
                values.append(_value(field, chance))
            elif depth:
                fill(values.add(), chance, depth - 1)
    elif field.message_type is not None:
        inner = getattr(message, field.name)
        inner.SetInParent()
        if depth:
            fill(inner, chance, depth - 1)
    else:
        setattr(message, field.name, _value(field, chance))


def _count(chance: random.Random) -> int:
    return chance.choice((0, 1, 1, 2, 3, 9, 40, 300))


def _value(field: Any, chance: random.Random) -> Any:
    kind = field.cpp_type
    if kind == FieldDescriptor.CPPTYPE_STRING:
        return chance.randbytes(chance.randrange(50)) if field.type == FieldDescriptor.TYPE_BYTES else text(chance)
    if kind in (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE):
        return chance.choice(_FLOATS)
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return chance.random() < 0.5
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        return chance.choice((*(v.number for v in field.enum_type.values), 99, -1))
    low, high = _BITS[kind]
    return min(max(chance.choice(_INTEGERS), low), high) if chance.random() < 0.8 else chance.randint(low, high)
