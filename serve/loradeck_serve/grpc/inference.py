"""InferenceService: converts, calls a handler, converts."""

from contextlib import aclosing
from typing import Any

import loradeck.inference.v1 as inference
from loradeck_serve.grpc import converters
from loradeck_serve.grpc.calls import current_call
from loradeck_serve.handlers.answer import AnswerHandler
from loradeck_serve.handlers.classify import ClassifyHandler
from loradeck_serve.handlers.generate import GenerateHandler


class InferenceServicer(inference.InferenceServiceServicer):
    """Errors are raised as domain errors; the interceptor maps them."""

    def __init__(self, classify: ClassifyHandler, answer: AnswerHandler, generate: GenerateHandler) -> None:
        self._classify = classify
        self._answer = answer
        self._generate = generate

    async def Classify(self, request: inference.ClassifyRequest, context: Any) -> inference.ClassifyResponse:
        """See the proto."""
        reply = await self._classify.classify(current_call.get(), converters.classify_request(request))
        return converters.classify_response(reply)

    async def BatchClassify(
        self, request: inference.BatchClassifyRequest, context: Any
    ) -> inference.BatchClassifyResponse:
        """See the proto."""
        replies = await self._classify.batch(current_call.get(), converters.batch_classify_request(request))
        return inference.BatchClassifyResponse(results=[converters.classify_response(reply) for reply in replies])

    async def AnswerShort(self, request: inference.AnswerShortRequest, context: Any) -> inference.AnswerShortResponse:
        """See the proto."""
        final = await self._answer.short(current_call.get(), converters.answer_request(request))
        return converters.answer_short_response(final)

    async def AnswerLong(self, request: inference.AnswerLongRequest, context: Any) -> None:
        """See the proto."""
        events = await self._answer.long(current_call.get(), converters.answer_request(request))
        async with aclosing(events):
            async for event in events:
                await context.write(converters.answer_long_response(event))

    async def Generate(self, request: inference.GenerateRequest, context: Any) -> None:
        """See the proto."""
        events = await self._generate.generate(current_call.get(), converters.generate_request(request))
        async with aclosing(events):
            async for event in events:
                await context.write(converters.generate_response(event))
