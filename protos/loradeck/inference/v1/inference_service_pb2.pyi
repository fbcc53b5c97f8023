from loradeck.inference.v1 import provenance_pb2 as _provenance_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ScoringMethod(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SCORING_METHOD_UNSPECIFIED: _ClassVar[ScoringMethod]
    SCORING_METHOD_LABEL_TOKENS: _ClassVar[ScoringMethod]
    SCORING_METHOD_TEXT_SUM: _ClassVar[ScoringMethod]
    SCORING_METHOD_TEXT_MEAN: _ClassVar[ScoringMethod]
SCORING_METHOD_UNSPECIFIED: ScoringMethod
SCORING_METHOD_LABEL_TOKENS: ScoringMethod
SCORING_METHOD_TEXT_SUM: ScoringMethod
SCORING_METHOD_TEXT_MEAN: ScoringMethod

class LabelProbability(_message.Message):
    __slots__ = ("label", "probability")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    label: str
    probability: float
    def __init__(self, label: _Optional[str] = ..., probability: _Optional[float] = ...) -> None: ...

class ClassifyRequest(_message.Message):
    __slots__ = ("adapter", "text", "labels")
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    adapter: str
    text: str
    labels: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, adapter: _Optional[str] = ..., text: _Optional[str] = ..., labels: _Optional[_Iterable[str]] = ...) -> None: ...

class ClassifyResponse(_message.Message):
    __slots__ = ("label", "probabilities", "method", "provenance", "usage")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    PROBABILITIES_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    label: str
    probabilities: _containers.RepeatedCompositeFieldContainer[LabelProbability]
    method: ScoringMethod
    provenance: _provenance_pb2.Provenance
    usage: _provenance_pb2.Usage
    def __init__(self, label: _Optional[str] = ..., probabilities: _Optional[_Iterable[_Union[LabelProbability, _Mapping]]] = ..., method: _Optional[_Union[ScoringMethod, str]] = ..., provenance: _Optional[_Union[_provenance_pb2.Provenance, _Mapping]] = ..., usage: _Optional[_Union[_provenance_pb2.Usage, _Mapping]] = ...) -> None: ...

class BatchClassifyRequest(_message.Message):
    __slots__ = ("adapter", "texts", "labels")
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    adapter: str
    texts: _containers.RepeatedScalarFieldContainer[str]
    labels: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, adapter: _Optional[str] = ..., texts: _Optional[_Iterable[str]] = ..., labels: _Optional[_Iterable[str]] = ...) -> None: ...

class BatchClassifyResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[ClassifyResponse]
    def __init__(self, results: _Optional[_Iterable[_Union[ClassifyResponse, _Mapping]]] = ...) -> None: ...

class AnswerShortRequest(_message.Message):
    __slots__ = ("adapter", "question", "context", "sampling")
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    QUESTION_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    adapter: str
    question: str
    context: str
    sampling: _provenance_pb2.Sampling
    def __init__(self, adapter: _Optional[str] = ..., question: _Optional[str] = ..., context: _Optional[str] = ..., sampling: _Optional[_Union[_provenance_pb2.Sampling, _Mapping]] = ...) -> None: ...

class AnswerShortResponse(_message.Message):
    __slots__ = ("answer", "finish_reason", "provenance", "usage")
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    answer: str
    finish_reason: _provenance_pb2.FinishReason
    provenance: _provenance_pb2.Provenance
    usage: _provenance_pb2.Usage
    def __init__(self, answer: _Optional[str] = ..., finish_reason: _Optional[_Union[_provenance_pb2.FinishReason, str]] = ..., provenance: _Optional[_Union[_provenance_pb2.Provenance, _Mapping]] = ..., usage: _Optional[_Union[_provenance_pb2.Usage, _Mapping]] = ...) -> None: ...

class AnswerLongRequest(_message.Message):
    __slots__ = ("adapter", "question", "context", "sampling")
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    QUESTION_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    adapter: str
    question: str
    context: str
    sampling: _provenance_pb2.Sampling
    def __init__(self, adapter: _Optional[str] = ..., question: _Optional[str] = ..., context: _Optional[str] = ..., sampling: _Optional[_Union[_provenance_pb2.Sampling, _Mapping]] = ...) -> None: ...

class GenerationFinal(_message.Message):
    __slots__ = ("text", "finish_reason", "provenance", "usage")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    text: str
    finish_reason: _provenance_pb2.FinishReason
    provenance: _provenance_pb2.Provenance
    usage: _provenance_pb2.Usage
    def __init__(self, text: _Optional[str] = ..., finish_reason: _Optional[_Union[_provenance_pb2.FinishReason, str]] = ..., provenance: _Optional[_Union[_provenance_pb2.Provenance, _Mapping]] = ..., usage: _Optional[_Union[_provenance_pb2.Usage, _Mapping]] = ...) -> None: ...

class GenerationChunk(_message.Message):
    __slots__ = ("text", "tokens")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    text: str
    tokens: int
    def __init__(self, text: _Optional[str] = ..., tokens: _Optional[int] = ...) -> None: ...

class AnswerLongResponse(_message.Message):
    __slots__ = ("chunk", "final")
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    FINAL_FIELD_NUMBER: _ClassVar[int]
    chunk: GenerationChunk
    final: GenerationFinal
    def __init__(self, chunk: _Optional[_Union[GenerationChunk, _Mapping]] = ..., final: _Optional[_Union[GenerationFinal, _Mapping]] = ...) -> None: ...

class TemplateFields(_message.Message):
    __slots__ = ("values",)
    class ValuesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.ScalarMap[str, str]
    def __init__(self, values: _Optional[_Mapping[str, str]] = ...) -> None: ...

class GenerateRequest(_message.Message):
    __slots__ = ("adapter", "fields", "prompt", "message", "sampling")
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    adapter: str
    fields: TemplateFields
    prompt: str
    message: str
    sampling: _provenance_pb2.Sampling
    def __init__(self, adapter: _Optional[str] = ..., fields: _Optional[_Union[TemplateFields, _Mapping]] = ..., prompt: _Optional[str] = ..., message: _Optional[str] = ..., sampling: _Optional[_Union[_provenance_pb2.Sampling, _Mapping]] = ...) -> None: ...

class GenerateResponse(_message.Message):
    __slots__ = ("chunk", "final")
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    FINAL_FIELD_NUMBER: _ClassVar[int]
    chunk: GenerationChunk
    final: GenerationFinal
    def __init__(self, chunk: _Optional[_Union[GenerationChunk, _Mapping]] = ..., final: _Optional[_Union[GenerationFinal, _Mapping]] = ...) -> None: ...
