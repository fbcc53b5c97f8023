"""AnswerShort and AnswerLong: a question about a context."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Literal

from loradeck_registry.errors import InvalidError
from loradeck_serve.config import Limits
from loradeck_serve.domain import AnswerRequest, Call, Chunk, Final
from loradeck_serve.handlers.fields import check_sampling, check_text
from loradeck_serve.handlers.generation import Generation
from loradeck_serve.handlers.targets import Targets
from loradeck_serve.live import Live
from loradeck_serve.text.tokenizers import Tokenizers


class AnswerHandler:
    """Both kinds of answer; they differ in the task and in how the door hands them out."""

    def __init__(self, targets: Targets, tokenizers: Tokenizers, generation: Generation, limits: Live[Limits]) -> None:
        self._targets = targets
        self._tokenizers = tokenizers
        self._generation = generation
        self._limits = limits

    async def short(self, call: Call, request: AnswerRequest) -> Final:
        """The whole answer at once, stripped of surrounding white space."""
        final: Final | None = None
        async with aclosing(await self._run(call, request, "short_qa")) as events:
            async for event in events:
                if isinstance(event, Final):
                    final = event
        assert final is not None
        return Final(final.text.strip(), final.finish, final.provenance, final.usage)

    async def long(self, call: Call, request: AnswerRequest) -> AsyncGenerator[Chunk | Final]:
        """The answer in chunks, then one Final. Raises what is wrong with the request before anything is generated."""
        return await self._run(call, request, "long_qa")

    async def _run(
        self, call: Call, request: AnswerRequest, kind: Literal["short_qa", "long_qa"]
    ) -> AsyncGenerator[Chunk | Final]:
        check_text(request.question, "question", self._limits.now)
        check_text(request.context, "context", self._limits.now, required=False)
        check_sampling(request.sampling, self._limits.now, call.access.grants)
        target = await self._targets.find(call, request.adapter, kind)
        if "context" in target.task.fields and not request.context.strip():
            raise InvalidError(
                "`context` is empty, and this task's template needs it", reason="EMPTY_FIELD", field="context"
            )
        values = {"question": request.question, "context": request.context}
        prompt = await self._tokenizers.render(target.task, {f: values[f] for f in target.task.fields})
        field = "context" if len(request.context) >= len(request.question) else "question"
        return self._generation.run(call, target, prompt, request.sampling, field, stream=kind == "long_qa")
