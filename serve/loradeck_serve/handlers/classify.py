"""Classify: one forward pass over label tokens, or one scored pass per text label, and a softmax."""

import asyncio
import math
import time
from collections.abc import Sequence

from loradeck_registry.errors import InvalidError, LoradeckError, PreconditionError
from loradeck_serve.config import Limits
from loradeck_serve.domain import BatchClassifyRequest, Call, ClassifyReply, ClassifyRequest, Scoring, Usage
from loradeck_serve.handlers.dispatch import Dispatcher
from loradeck_serve.handlers.fields import check_labels, check_text
from loradeck_serve.handlers.targets import Target, Targets
from loradeck_serve.live import Live
from loradeck_serve.observation.metrics import Metrics
from loradeck_serve.text.tokenizers import Tokenizers
from loradeck_tasks.task import Task

BATCH_AT_ONCE = 64
"""Texts of one batch that are in the queue or the engine at a time, so that a batch cannot fill the queue."""
MOST_LABEL_TOKENS = 2048
"""Of all labels that are scored as text: each token may cost a pass of the engine."""


class ClassifyHandler:
    """Classify and BatchClassify."""

    def __init__(
        self, targets: Targets, tokenizers: Tokenizers, dispatcher: Dispatcher, limits: Live[Limits], metrics: Metrics
    ) -> None:
        self._targets = targets
        self._tokenizers = tokenizers
        self._dispatcher = dispatcher
        self._limits = limits
        self._metrics = metrics

    async def classify(self, call: Call, request: ClassifyRequest) -> ClassifyReply:
        """The most probable label, and every candidate's probability."""
        check_text(request.text, "text", self._limits.now)
        target = await self._targets.find(call, request.adapter, "classification", request.labels)
        labels = self._labels(target.task, request.labels)
        return await self._one(call, target, request.text, labels, "text")

    async def batch(self, call: Call, request: BatchClassifyRequest) -> tuple[ClassifyReply, ...]:
        """One reply per text, in order. The first failure ends all others and is raised."""
        if not 1 <= len(request.texts) <= self._limits.now.batch_texts:
            raise InvalidError(
                f"`texts` has {len(request.texts)} entries: it must have 1 to {self._limits.now.batch_texts}",
                reason="OUT_OF_RANGE",
                field="texts",
            )
        for index, text in enumerate(request.texts):
            check_text(text, f"texts[{index}]", self._limits.now)
        target = await self._targets.find(call, request.adapter, "classification", request.labels)
        labels = self._labels(target.task, request.labels)
        window = asyncio.Semaphore(BATCH_AT_ONCE)

        async def one(index: int, text: str) -> ClassifyReply:
            async with window:
                return await self._one(call, target, text, labels, f"texts[{index}]")

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(index, text)) for index, text in enumerate(request.texts)]
        except BaseExceptionGroup as group_error:
            raise group_error.exceptions[0] from None
        return tuple(task.result() for task in tasks)

    async def _one(self, call: Call, target: Target, text: str, labels: Sequence[str], field: str) -> ClassifyReply:
        task = target.task
        prompt, candidates = await self._tokenizers.render_labelled(task, {"text": text}, labels)
        if not task.uses_label_tokens and sum(map(len, candidates)) > MOST_LABEL_TOKENS:
            raise _labels_too_long(target)
        self._dispatcher.check_prompt(len(prompt), max(map(len, candidates)), field)
        async with self._dispatcher.admit(call, target, len(prompt)) as admitted:
            scores = await admitted.engine.score(
                admitted.engine_id(), prompt, candidates, admitted.adapter, admitted.priority
            )
            label = self._metrics.label(admitted.place.name)
            self._metrics.first_token.labels(label).observe(time.monotonic() - call.arrival)
        method = self._method(task)
        probabilities = softmax([combine(values, method) for values in scores.logprobs])
        ranked = sorted(zip(labels, probabilities, strict=True), key=lambda pair: -pair[1])
        usage = Usage(len(prompt), 0, scores.cached_prompt_tokens)
        return ClassifyReply(ranked[0][0], tuple(ranked), method, admitted.provenance, usage)

    @staticmethod
    def _labels(task: Task, asked: tuple[str, ...]) -> tuple[str, ...]:
        known = tuple(label.name for label in task.labels)
        if not asked:
            return known
        unknown = [label for label in asked if label not in known]
        if unknown:
            raise InvalidError(
                f"`labels` holds {unknown[0][:80]!r}, which is none of the task's labels: {', '.join(known)}"[:1000],
                reason="UNKNOWN_LABEL",
                field="labels",
            )
        check_labels(asked)
        return asked

    @staticmethod
    def _method(task: Task) -> Scoring:
        if task.uses_label_tokens:
            return Scoring.LABEL_TOKENS
        return Scoring.TEXT_SUM if task.text_normalisation == "sum" else Scoring.TEXT_MEAN


def _labels_too_long(target: Target) -> LoradeckError:
    message = f"the labels have more than {MOST_LABEL_TOKENS} tokens together: use fewer, or shorter names"
    if target.own_task:
        return PreconditionError(
            f"{target.name}@{target.revision}: {message}, or label tokens", reason="LABELS_TOO_LONG", field="adapter"
        )
    return InvalidError(message, reason="LABELS_TOO_LONG", field="labels")


def combine(logprobs: Sequence[float], method: Scoring) -> float:
    """One score per candidate from its tokens' log-probabilities."""
    total = math.fsum(logprobs)
    return total / len(logprobs) if method is Scoring.TEXT_MEAN else total


def softmax(scores: Sequence[float]) -> list[float]:
    """Probabilities that sum to 1. Raises LoradeckError (NOT_FINITE) if no score is finite."""
    top = max(scores)
    if not math.isfinite(top) or any(math.isnan(score) for score in scores):
        raise LoradeckError("the model gave no finite score for any label", reason="NOT_FINITE")
    weights = [math.exp(score - top) for score in scores]
    total = math.fsum(weights)
    return [weight / total for weight in weights]
