"""Messages to results and back."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Literal

import loradeck.adapters.v1 as adapters
import loradeck.inference.v1 as inference
from loradeck_client import results

_RESIDENCY: dict[int, results.Residency] = {1: "hot", 2: "warm", 3: "cold", 4: "remote"}
_FINISH: dict[int, results.FinishReason] = {1: "stop", 2: "length", 3: "scored"}
_SCORING: dict[int, results.ScoringMethod] = {1: "label_tokens", 2: "text_sum", 3: "text_mean"}
_STATE: dict[int, results.AdapterState] = {1: "loading", 2: "loaded", 3: "cached", 4: "draining", 5: "failed"}


def classify_request(adapter: str, text: str, labels: Iterable[str]) -> inference.ClassifyRequest:
    """To protobuf."""
    return inference.ClassifyRequest(adapter=adapter, text=text, labels=labels)


def batch_request(adapter: str, texts: Iterable[str], labels: Iterable[str]) -> inference.BatchClassifyRequest:
    """To protobuf."""
    return inference.BatchClassifyRequest(adapter=adapter, texts=texts, labels=labels)


def answer_request(
    kind: Literal["short", "long"], adapter: str, question: str, context: str, sampling: results.Sampling | None
) -> Any:
    """To protobuf."""
    message = inference.AnswerShortRequest if kind == "short" else inference.AnswerLongRequest
    return message(adapter=adapter, question=question, context=context, sampling=_sampling(sampling))


def generate_request(
    adapter: str,
    fields: Mapping[str, str] | None,
    prompt: str | None,
    message: str | None,
    sampling: results.Sampling | None,
) -> inference.GenerateRequest:
    """To protobuf."""
    return inference.GenerateRequest(
        adapter=adapter,
        fields=None if fields is None else inference.TemplateFields(values=fields),
        prompt=prompt,
        message=message,
        sampling=_sampling(sampling),
    )


def classification(message: inference.ClassifyResponse) -> results.Classification:
    """From protobuf."""
    return results.Classification(
        label=message.label,
        probabilities=tuple(results.LabelProbability(p.label, p.probability) for p in message.probabilities),
        method=_SCORING.get(message.method, ""),
        provenance=_provenance(message.provenance),
        usage=_usage(message.usage),
    )


def short_answer(message: inference.AnswerShortResponse) -> results.Answer:
    """From protobuf."""
    return results.Answer(
        message.answer,
        _FINISH.get(message.finish_reason, ""),
        _provenance(message.provenance),
        _usage(message.usage),
    )


def stream_event(message: Any) -> results.Chunk | results.Answer:
    """From a message of AnswerLong's or Generate's stream."""
    if message.WhichOneof("event") == "chunk":
        return results.Chunk(message.chunk.text, message.chunk.tokens)
    final = message.final
    return results.Answer(
        final.text, _FINISH.get(final.finish_reason, ""), _provenance(final.provenance), _usage(final.usage)
    )


def adapter(message: adapters.Adapter) -> results.Adapter:
    """From protobuf."""
    loaded = message.HasField("load_time")
    return results.Adapter(
        name=message.name,
        revision=message.revision,
        digest=message.digest,
        aliases=tuple(message.aliases),
        task=message.task,
        rank=message.rank,
        size_bytes=message.size_bytes,
        state=_STATE.get(message.state, ""),
        pinned=message.pinned,
        running_requests=message.running_requests,
        error_reason=message.error_reason,
        load_seconds=message.load_duration.ToNanoseconds() / 1e9 if loaded else 0.0,
        load_time=_time(message.load_time) if loaded else None,
        last_use_time=_time(message.last_use_time) if message.HasField("last_use_time") else None,
    )


def watch_event(message: adapters.WatchAdaptersResponse) -> results.Adapter | results.AliasFlip:
    """From protobuf."""
    if message.WhichOneof("event") == "adapter":
        return adapter(message.adapter)
    flip = message.alias_flip
    return results.AliasFlip(
        flip.name,
        flip.alias,
        flip.previous_revision,
        flip.revision,
        _time(flip.flip_time),
        tuple((target.revision, target.share) for target in flip.shares),
    )


def capacity(message: adapters.GetCapacityResponse) -> results.Capacity:
    """From protobuf."""
    return results.Capacity(
        slots=message.slots,
        slots_used=message.slots_used,
        host_adapters=message.host_adapters,
        host_adapters_used=message.host_adapters_used,
        max_rank=message.max_rank,
        adapter_size_bytes=message.adapter_size_bytes,
        cache_free_bytes=message.cache_free_bytes,
        cache_adapters=message.cache_adapters,
    )


def _sampling(value: results.Sampling | None) -> inference.Sampling | None:
    if value is None:
        return None
    return inference.Sampling(
        temperature=value.temperature,
        top_p=value.top_p,
        top_k=value.top_k,
        seed=value.seed,
        max_tokens=value.max_tokens,
        stop=value.stop,
    )


def _provenance(message: inference.Provenance) -> results.Provenance:
    return results.Provenance(
        request_id=message.request_id,
        adapter=message.adapter,
        revision=message.revision,
        digest=message.digest,
        requested=message.requested,
        residency=_RESIDENCY.get(message.residency, ""),
        queue_seconds=message.queue_time.ToNanoseconds() / 1e9,
        load_seconds=message.load_time.ToNanoseconds() / 1e9,
    )


def _usage(message: inference.Usage) -> results.Usage:
    return results.Usage(message.prompt_tokens, message.output_tokens, message.cached_prompt_tokens)


def _time(message: Any) -> datetime:
    return datetime.fromtimestamp(message.ToNanoseconds() / 1e9, UTC)
