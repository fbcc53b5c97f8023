"""Protobuf messages to domain types and back: the only file that knows both."""

from datetime import UTC, datetime

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

import loradeck.adapters.v1 as adapters
import loradeck.inference.v1 as inference
from loradeck_serve import domain

_RESIDENCY = {
    domain.Residency.NONE: inference.RESIDENCY_UNSPECIFIED,
    domain.Residency.HOT: inference.RESIDENCY_HOT,
    domain.Residency.WARM: inference.RESIDENCY_WARM,
    domain.Residency.COLD: inference.RESIDENCY_COLD,
    domain.Residency.REMOTE: inference.RESIDENCY_REMOTE,
}
_FINISH = {
    domain.Finish.STOP: inference.FINISH_REASON_STOP,
    domain.Finish.LENGTH: inference.FINISH_REASON_LENGTH,
    domain.Finish.SCORED: inference.FINISH_REASON_SCORED,
}
_SCORING = {
    domain.Scoring.LABEL_TOKENS: inference.SCORING_METHOD_LABEL_TOKENS,
    domain.Scoring.TEXT_SUM: inference.SCORING_METHOD_TEXT_SUM,
    domain.Scoring.TEXT_MEAN: inference.SCORING_METHOD_TEXT_MEAN,
}
_STATE = {
    "remote": adapters.ADAPTER_STATE_UNSPECIFIED,
    "loading": adapters.ADAPTER_STATE_LOADING,
    "loaded": adapters.ADAPTER_STATE_LOADED,
    "cached": adapters.ADAPTER_STATE_CACHED,
    "draining": adapters.ADAPTER_STATE_DRAINING,
    "failed": adapters.ADAPTER_STATE_FAILED,
}


def classify_request(message: inference.ClassifyRequest) -> domain.ClassifyRequest:
    """To domain."""
    return domain.ClassifyRequest(message.adapter, message.text, tuple(message.labels))


def batch_classify_request(message: inference.BatchClassifyRequest) -> domain.BatchClassifyRequest:
    """To domain."""
    return domain.BatchClassifyRequest(message.adapter, tuple(message.texts), tuple(message.labels))


def answer_request(message: inference.AnswerShortRequest | inference.AnswerLongRequest) -> domain.AnswerRequest:
    """To domain."""
    return domain.AnswerRequest(message.adapter, message.question, message.context, sampling(message.sampling))


def generate_request(message: inference.GenerateRequest) -> domain.GenerateRequest:
    """To domain."""
    given = message.WhichOneof("input")
    return domain.GenerateRequest(
        message.adapter,
        fields=dict(message.fields.values) if given == "fields" else None,
        prompt=message.prompt if given == "prompt" else None,
        message=message.message if given == "message" else None,
        sampling=sampling(message.sampling),
    )


def sampling(message: inference.Sampling) -> domain.Sampling:
    """To domain; an unset field is None."""
    return domain.Sampling(
        temperature=message.temperature if message.HasField("temperature") else None,
        top_p=message.top_p if message.HasField("top_p") else None,
        top_k=message.top_k if message.HasField("top_k") else None,
        seed=message.seed if message.HasField("seed") else None,
        max_tokens=message.max_tokens if message.HasField("max_tokens") else None,
        stop=tuple(message.stop),
    )


def classify_response(reply: domain.ClassifyReply) -> inference.ClassifyResponse:
    """To protobuf."""
    return inference.ClassifyResponse(
        label=reply.label,
        probabilities=[inference.LabelProbability(label=n, probability=p) for n, p in reply.probabilities],
        method=_SCORING[reply.method],
        provenance=provenance(reply.provenance),
        usage=usage(reply.usage),
    )


def answer_short_response(final: domain.Final) -> inference.AnswerShortResponse:
    """To protobuf."""
    return inference.AnswerShortResponse(
        answer=final.text,
        finish_reason=_FINISH[final.finish],
        provenance=provenance(final.provenance),
        usage=usage(final.usage),
    )


def answer_long_response(event: domain.Chunk | domain.Final) -> inference.AnswerLongResponse:
    """To protobuf."""
    if isinstance(event, domain.Chunk):
        return inference.AnswerLongResponse(chunk=_chunk(event))
    return inference.AnswerLongResponse(final=_final(event))


def generate_response(event: domain.Chunk | domain.Final) -> inference.GenerateResponse:
    """To protobuf."""
    if isinstance(event, domain.Chunk):
        return inference.GenerateResponse(chunk=_chunk(event))
    return inference.GenerateResponse(final=_final(event))


def provenance(value: domain.Provenance) -> inference.Provenance:
    """To protobuf."""
    return inference.Provenance(
        request_id=value.request_id,
        adapter=value.adapter,
        revision=value.revision,
        digest=value.digest,
        requested=value.requested,
        residency=_RESIDENCY[value.residency],
        queue_time=duration(value.queue_seconds),
        load_time=duration(value.load_seconds),
    )


def usage(value: domain.Usage) -> inference.Usage:
    """To protobuf."""
    return inference.Usage(
        prompt_tokens=value.prompt_tokens,
        output_tokens=value.output_tokens,
        cached_prompt_tokens=value.cached_prompt_tokens,
    )


def adapter(view: domain.AdapterView) -> adapters.Adapter:
    """To protobuf; times that are not known stay unset."""
    message = adapters.Adapter(
        name=view.name,
        revision=view.revision,
        digest=view.digest,
        aliases=view.aliases,
        task=view.task,
        rank=view.rank,
        size_bytes=view.size_bytes,
        state=_STATE[view.state],
        pinned=view.pinned,
        running_requests=view.running_requests,
        error_reason=view.error_reason,
    )
    if view.load_time:
        message.load_time.CopyFrom(timestamp(view.load_time))
        message.load_duration.CopyFrom(duration(view.load_seconds))
    if view.last_use_time:
        message.last_use_time.CopyFrom(timestamp(view.last_use_time))
    return message


def watch_adapters_response(event: domain.AdapterView | domain.AliasFlip) -> adapters.WatchAdaptersResponse:
    """To protobuf."""
    if isinstance(event, domain.AdapterView):
        return adapters.WatchAdaptersResponse(adapter=adapter(event))
    return adapters.WatchAdaptersResponse(
        alias_flip=adapters.AliasFlip(
            name=event.name,
            alias=event.alias,
            previous_revision=event.previous_revision,
            revision=event.revision,
            flip_time=timestamp(event.flip_time),
            shares=[adapters.AliasShare(revision=number, share=share) for number, share in event.shares],
        )
    )


def get_capacity_response(value: domain.Capacity) -> adapters.GetCapacityResponse:
    """To protobuf."""
    return adapters.GetCapacityResponse(
        slots=value.slots,
        slots_used=value.slots_used,
        host_adapters=value.host_adapters,
        host_adapters_used=value.host_adapters_used,
        max_rank=value.max_rank,
        adapter_size_bytes=value.adapter_size_bytes,
        cache_free_bytes=value.cache_free_bytes,
        cache_adapters=value.cache_adapters,
    )


def duration(seconds: float) -> Duration:
    """To protobuf."""
    message = Duration()
    message.FromNanoseconds(int(seconds * 1e9))
    return message


def timestamp(seconds: float) -> Timestamp:
    """To protobuf, from seconds since the epoch."""
    message = Timestamp()
    message.FromDatetime(datetime.fromtimestamp(seconds, UTC))
    return message


def _chunk(value: domain.Chunk) -> inference.GenerationChunk:
    return inference.GenerationChunk(text=value.text, tokens=value.tokens)


def _final(value: domain.Final) -> inference.GenerationFinal:
    return inference.GenerationFinal(
        text=value.text,
        finish_reason=_FINISH[value.finish],
        provenance=provenance(value.provenance),
        usage=usage(value.usage),
    )
