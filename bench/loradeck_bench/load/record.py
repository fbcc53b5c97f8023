"""One request of a load test: what was meant, what happened, who answered. One line of JSONL each."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any, TextIO

OK = "ok"
"""Status of a request that was answered."""
UNFINISHED = "unfinished"
"""Status of a request that was under way when the run was broken off."""


@dataclass
class RequestRecord:
    """Times are seconds from the start of the run. None where it never came to that."""

    index: int
    """Position in the schedule, from 0."""
    adapter: str
    """Reference that was asked for; empty for the base."""
    task: str
    row: int
    """Row of the data set that was sent."""
    intended: float
    """When the schedule meant it to be sent. A closed loop means: when its worker was free."""
    max_tokens: int | None = None
    """Limit of the answer where the request has one of its own, as in a trace."""
    sent: float | None = None
    """When the call was made."""
    first: float | None = None
    """When the first non-empty output came; None for replies that are not streamed."""
    end: float | None = None
    """When the final message or the error came."""
    chunks: list[tuple[float, int]] = field(default_factory=list)
    """Time and tokens of every streamed chunk."""
    status: str = UNFINISHED
    """`ok`, the kind of error, or `unfinished` where the run was broken off."""
    reason: str = ""
    """Stable reason code of an error."""
    text: str = ""
    """Answer or label."""
    probability: float | None = None
    """Of the label that was answered; None for other tasks."""
    prompt_tokens: int = 0
    cached_prompt_tokens: int = 0
    output_tokens: int = 0
    """Tokens generated, as counted by the server."""
    answered_by: str = ""
    """Name of the adapter or base that answered."""
    revision: int = 0
    digest: str = ""
    residency: str = ""
    """`hot`, `warm`, `cold`, `remote`; empty for the base."""
    queue_seconds: float = 0.0
    load_seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether it was answered."""
        return self.status == OK

    @property
    def cut_off(self) -> bool:
        """Whether the run was broken off before it ended: neither answered nor failed."""
        return self.status == UNFINISHED

    @property
    def latency(self) -> float | None:
        """Seconds from the intended send to the end, so that waiting caused by a slow server or client counts."""
        return None if self.end is None else self.end - self.intended

    @property
    def delay(self) -> float | None:
        """Seconds from the intended to the actual send: the client's own part."""
        return None if self.sent is None else self.sent - self.intended

    @property
    def ttft(self) -> float | None:
        """Time to first token: seconds from the intended send to the first non-empty output."""
        return None if self.first is None else self.first - self.intended

    @property
    def tpot(self) -> float | None:
        """Time per output token after the first: (end - first) / (tokens - 1); None below two tokens."""
        if self.first is None or self.end is None or self.output_tokens < 2:
            return None
        return (self.end - self.first) / (self.output_tokens - 1)

    @property
    def last(self) -> float | None:
        """When the last output came; None for replies that are not streamed."""
        return self.chunks[-1][0] if self.chunks else None

    @property
    def token_gaps(self) -> list[float]:
        """Inter-token latency: seconds between one token and the next. The tokens of a chunk share the time since the
        chunk before; those of the first chunk have no such time."""
        gaps: list[float] = []
        before = None
        for moment, tokens in self.chunks:
            if tokens < 1:
                continue
            if before is not None:
                gaps += [(moment - before) / tokens] * tokens
            before = moment
        return gaps

    def to_json(self) -> dict[str, Any]:
        """All fields, and the derived times in seconds."""
        derived = {
            "last": self.last, "latency": self.latency, "delay": self.delay, "ttft": self.ttft, "tpot": self.tpot,
        }  # fmt: skip
        return asdict(self) | derived


def write_record(record: RequestRecord, out: TextIO, **more: Any) -> None:
    """Append one line and flush it, so that a broken run keeps what it measured; `more` says which part of a longer
    test the request belongs to."""
    out.write(json.dumps(more | record.to_json(), ensure_ascii=False) + "\n")
    out.flush()
