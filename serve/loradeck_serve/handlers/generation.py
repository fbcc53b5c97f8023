"""Generation, shared by answers and free generation: engine steps to text chunks and one final message."""

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from loradeck_serve.config import Limits
from loradeck_serve.domain import Call, Chunk, Final, Finish, Sampling, Usage
from loradeck_serve.handlers.dispatch import Admitted, Dispatcher
from loradeck_serve.handlers.fields import generate_settings
from loradeck_serve.handlers.targets import Target
from loradeck_serve.metrics import Metrics
from loradeck_serve.text.tokenizers import Tokenizers


class Generation:
    """Runs one prompt to its end. Closing the iterator aborts the request in the engine at once."""

    def __init__(self, dispatcher: Dispatcher, tokenizers: Tokenizers, limits: Limits, metrics: Metrics) -> None:
        self._dispatcher = dispatcher
        self._tokenizers = tokenizers
        self._limits = limits
        self._metrics = metrics

    async def run(
        self, call: Call, target: Target, prompt: Sequence[int], sampling: Sampling, field: str
    ) -> AsyncGenerator[Chunk | Final]:
        """Chunks, then exactly one Final whose text is their concatenation. `field` is blamed for a too long prompt."""
        room = self._dispatcher.check_prompt(len(prompt), 1, field)
        task = target.task
        detokenizer, stop_token_ids = await self._tokenizers.for_generation(task, (*task.stop, *sampling.stop))
        settings = generate_settings(sampling, task, self._limits, room, stop_token_ids)
        async with self._dispatcher.admit(call, target, len(prompt)) as admitted:
            texts: list[str] = []
            pending = tokens = cached = 0
            finish = Finish.LENGTH
            first = last = 0.0
            steps = admitted.engine.generate(
                admitted.engine_id(), prompt, settings, admitted.adapter, admitted.priority
            )
            async with aclosing(steps) as outputs:  # type: ignore[type-var]
                async for output in outputs:
                    last = time.monotonic()
                    first = first or last
                    count = len(output.token_ids)
                    cached = max(cached, output.cached_prompt_tokens)
                    tokens += count
                    pending += count
                    admitted.place.charge(count)
                    if text := detokenizer.push(output.token_ids):
                        texts.append(text)
                        yield Chunk(text, max(pending, 1))
                        pending = 0
                    if detokenizer.stopped or output.finish_reason is not None:
                        stopped = detokenizer.stopped or output.finish_reason == "stop"
                        finish = Finish.STOP if stopped else Finish.LENGTH
                        break
            if rest := detokenizer.end():
                texts.append(rest)
                yield Chunk(rest, max(pending, 1))
            self._observe(call, admitted, tokens, first, last)
        yield Final("".join(texts), finish, admitted.provenance, Usage(len(prompt), tokens, cached))

    def _observe(self, call: Call, admitted: Admitted, tokens: int, first: float, last: float) -> None:
        label = self._metrics.label(admitted.place.name)
        self._metrics.output_tokens.labels(label).inc(tokens)
        if first:
            self._metrics.first_token.labels(label).observe(first - call.arrival)
        if tokens > 1:
            self._metrics.per_token.labels(label).observe((last - first) / (tokens - 1))
