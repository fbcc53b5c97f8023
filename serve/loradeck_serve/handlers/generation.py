"""Generation, shared by answers and free generation: engine steps to text chunks and one final message."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from loradeck_serve.config import Limits
from loradeck_serve.domain import Call, Chunk, Final, Finish, Sampling, Usage
from loradeck_serve.handlers.dispatch import Admitted, Dispatcher
from loradeck_serve.handlers.fields import generate_settings
from loradeck_serve.handlers.pacing import Pacer
from loradeck_serve.handlers.targets import Target
from loradeck_serve.live import Live
from loradeck_serve.observation.metrics import Metrics
from loradeck_serve.text.tokenizers import Rendered


class Generation:
    """Runs one prompt to its end. Closing the iterator aborts the request in the engine at once."""

    def __init__(self, dispatcher: Dispatcher, limits: Live[Limits], metrics: Metrics) -> None:
        self._dispatcher = dispatcher
        self._limits = limits
        self._metrics = metrics

    async def run(
        self, call: Call, target: Target, prompt: Rendered, sampling: Sampling, field: str, *, stream: bool = True
    ) -> AsyncGenerator[Chunk | Final]:
        """Chunks, then exactly one Final whose text is their concatenation. `field` is blamed for a too long prompt.

        Without `stream` the chunks may be one.
        """
        length = len(prompt.token_ids)
        room = self._dispatcher.check_prompt(length, 1, field)
        task = target.task
        stops = (*task.stop, *sampling.stop)
        # Where a stop string may end the answer, somebody has to read along.
        most = min(call.access.grants.most_tokens(self._limits.now.max_tokens), room)
        settings = generate_settings(sampling, task, most, prompt.stop_token_ids, not stream and not stops)
        detokenizer = prompt.detokenizer(stops)
        pacer = Pacer(self._limits.now.chunk_milliseconds / 1000, settings.max_tokens)
        async with self._dispatcher.admit(call, target, length) as admitted:
            texts: list[str] = []
            shown = cached = 0
            finish = Finish.LENGTH
            first = last = 0.0
            steps = admitted.engine.generate(
                admitted.engine_id(), prompt.token_ids, settings, admitted.adapter, admitted.priority
            )
            async with aclosing(steps) as outputs:  # type: ignore[type-var]
                async for output in outputs:
                    last = time.monotonic()
                    first = first or last
                    admitted.passage.first_token(first)
                    count = len(output.token_ids)
                    cached = max(cached, output.cached_prompt_tokens)
                    admitted.charge(count)
                    if text := detokenizer.push(output.token_ids):
                        texts.append(text)
                        yield Chunk(text, max(detokenizer.tokens - shown, 1))
                        shown = detokenizer.tokens
                    if detokenizer.stopped or output.finish_reason is not None:
                        stopped = detokenizer.stopped or output.finish_reason == "stop"
                        finish = Finish.STOP if stopped else Finish.LENGTH
                        break
                    if pause := pacer.pause(last, max(count, 1)):
                        await asyncio.sleep(pause)
            tokens = detokenizer.tokens
            if rest := detokenizer.end():
                texts.append(rest)
                yield Chunk(rest, max(tokens - shown, 1))
            self._observe(call, admitted, tokens, first, 0.0 if settings.whole else last)
        yield Final("".join(texts), finish, admitted.provenance, Usage(length, tokens, cached))

    def _observe(self, call: Call, admitted: Admitted, tokens: int, first: float, last: float) -> None:
        label = self._metrics.label(admitted.place.name)
        self._metrics.output_tokens.labels(label).inc(tokens)
        if first:
            self._metrics.first_token.labels(label).observe(first - call.arrival)
        if tokens > 1 and last:
            self._metrics.per_token.labels(label).observe((last - first) / (tokens - 1))
