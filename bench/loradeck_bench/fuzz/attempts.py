"""Attempts: what is sent to a server, between nearly right and nonsense."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message

import loradeck.adapters.v1 as adapters
import loradeck.inference.v1 as inference
from loradeck_bench.fuzz.messages import fill, set_field
from loradeck_bench.fuzz.mutation import mutated

_OTHERS = (
    ("/grpc.health.v1.Health/Check", False), ("/grpc.health.v1.Health/Watch", True),
    ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", True),
    ("/loradeck.inference.v1.InferenceService/Nothing", False), ("/", False), ("/a/b/c/d", False),
    ("/loradeck.inference.v1.InferenceService/classify", False),
)  # fmt: skip
_DEADLINES = (None, None, 0.0, 0.001, 0.02, 0.2, 2.0, 1e6)
_PRINTABLE = "".join(map(chr, range(33, 127)))


@dataclass(frozen=True)
class Names:
    """Adapters that a server has, by task; what is asked of them is nearly right."""

    classification: Sequence[str] = ()
    short_qa: Sequence[str] = ()
    long_qa: Sequence[str] = ()
    generate: Sequence[str] = ()

    @property
    def all(self) -> Sequence[str]:
        """Every name."""
        return (*self.classification, *self.short_qa, *self.long_qa, *self.generate)


@dataclass(frozen=True)
class Attempt:
    """One call. `reads` is how many messages of a stream are read before it is cancelled; None: all."""

    path: str
    body: bytes
    streams: bool
    admin: bool
    metadata: tuple[tuple[str, str | bytes], ...]
    timeout: float | None
    reads: int | None
    cancel_after: float | None


class Attempts:
    """Endless attempts; the same seed gives the same ones."""

    def __init__(self, names: Names, seed: int) -> None:
        self._names = names
        self._chance = random.Random(seed)
        self._methods = [
            *_methods(inference.ClassifyRequest, "InferenceService"),
            *_methods(adapters.ListAdaptersRequest, "AdapterService"),
        ]

    def __iter__(self) -> Iterator[Attempt]:
        while True:
            yield self._attempt()

    def _attempt(self) -> Attempt:
        chance = self._chance
        if chance.random() < 0.06:
            path, streams = chance.choice(_OTHERS)
            body, admin = chance.randbytes(chance.randrange(30)), chance.random() < 0.3
        else:
            # Applications' door twice as often as the operators'.
            method = chance.choice(self._methods[:5] * 4 + self._methods[5:])
            service = method.containing_service
            path, admin = f"/{service.full_name}/{method.name}", service.name == "AdapterService"
            streams = method.server_streaming
            body = self._body(method)
        endless = path.endswith(("WatchAdapters", "Watch", "ServerReflectionInfo"))
        return Attempt(
            path, body, streams, admin, self._metadata(), chance.choice(_DEADLINES),
            reads=chance.choice((0, 1, 3)) if endless or (streams and chance.random() < 0.2) else None,
            cancel_after=0.2 if endless else chance.random() * 0.05 if chance.random() < 0.05 else None,
        )  # fmt: skip

    def _body(self, method: MethodDescriptor) -> bytes:
        chance = self._chance
        message = self._valid(method)
        kind = chance.random()
        if kind < 0.05:
            return message.SerializeToString()
        if kind < 0.45:
            set_field(message, chance.choice(list(message.DESCRIPTOR.fields)), chance)
            return message.SerializeToString()
        if kind < 0.65:
            fill(message, chance)
            return message.SerializeToString()
        if kind < 0.97:
            return mutated(message.SerializeToString(), chance)
        return chance.randbytes(chance.randrange(300))

    def _valid(self, method: MethodDescriptor) -> Message:
        """A message that the server takes."""
        message: Any = message_factory.GetMessageClass(method.input_type)()
        fields, chance = message.DESCRIPTOR.fields_by_name, self._chance
        values = {
            "text": "The bank opened a branch.", "question": "What opened?", "context": "The bank opened a branch.",
            "prompt": "The bank", "name": self._one(self._names.all), "alias": "fuzz", "target": "1", "reason": "fuzz",
        }  # fmt: skip
        for name, value in values.items():
            if name in fields:
                setattr(message, name, value)
        if "texts" in fields:
            message.texts.extend(("One.", "Two."))
        if "adapter" in fields:
            by_method = {
                "Classify": self._names.classification, "BatchClassify": self._names.classification,
                "AnswerShort": self._names.short_qa, "AnswerLong": self._names.long_qa,
                "Generate": self._names.generate,
            }  # fmt: skip
            message.adapter = self._one(by_method.get(method.name, self._names.all))
        if "sampling" in fields and chance.random() < 0.5:
            message.sampling.max_tokens = 4
        return message  # type: ignore[no-any-return]

    def _one(self, names: Sequence[str]) -> str:
        if not names:
            return ""
        return self._chance.choice(names) + self._chance.choice(("", "", "@1", "@latest"))

    def _metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        chance = self._chance
        if chance.random() < 0.5:
            return ()
        found: list[tuple[str, str | bytes]] = []
        for _ in range(chance.choice((1, 1, 2, 5, 40))):
            key = chance.choice(
                ("x-request-id", "x-loradeck-caller", "authorization", "x-other", "traceparent", "x-y-bin")
            )
            size = chance.choice((0, 1, 20, 129, 2000))
            if key.endswith("-bin"):
                found.append((key, chance.randbytes(size)))
            else:
                found.append((key, "".join(chance.choices(_PRINTABLE, k=size))))
        return tuple(found)


def _methods(request: Any, service: str) -> list[MethodDescriptor]:
    return list(request.DESCRIPTOR.file.services_by_name[service].methods)
