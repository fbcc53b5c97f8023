"""The Python client: sync and asyncio, typed results and errors. Needs neither torch nor vLLM.

from loradeck_client import Client

with Client("127.0.0.1:8500") as client:
    print(client.classify("The bank opened a branch.", adapter="clf-econ").label)
    for chunk in client.answer_long("Why?", context="...", adapter="qa-long"):
        print(chunk.text, end="")
"""

from loradeck_client.access import Access
from loradeck_client.admin import AdminClient, AsyncAdminClient
from loradeck_client.aio import AsyncClient, AsyncTextStream
from loradeck_client.errors import (
    ConflictError,
    DeadlineError,
    DeniedError,
    ExhaustedError,
    InvalidError,
    LoradeckError,
    NotFoundError,
    PreconditionError,
    UnauthenticatedError,
    UnavailableError,
    UnimplementedError,
)
from loradeck_client.results import (
    Adapter,
    AliasFlip,
    Answer,
    Capacity,
    Chunk,
    Classification,
    LabelProbability,
    Provenance,
    Sampling,
    Usage,
)
from loradeck_client.retry import RetryPolicy
from loradeck_client.sync import Client, TextStream

__all__ = [
    "Access",
    "Adapter",
    "AdminClient",
    "AliasFlip",
    "Answer",
    "AsyncAdminClient",
    "AsyncClient",
    "AsyncTextStream",
    "Capacity",
    "Chunk",
    "Classification",
    "Client",
    "ConflictError",
    "DeadlineError",
    "DeniedError",
    "ExhaustedError",
    "InvalidError",
    "LabelProbability",
    "LoradeckError",
    "NotFoundError",
    "PreconditionError",
    "Provenance",
    "RetryPolicy",
    "Sampling",
    "TextStream",
    "UnauthenticatedError",
    "UnavailableError",
    "UnimplementedError",
    "Usage",
]
