"""A judge behind an OpenAI-compatible endpoint: one question at a time, retried, paced, cached."""

import asyncio
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import openai

from loradeck_bench.evaluation.judge.cache import ReplyCache, cache_key
from loradeck_bench.evaluation.judge.rubric import Messages
from loradeck_bench.evaluation.measured import method
from loradeck_registry.errors import (
    ExhaustedError,
    InvalidError,
    LoradeckError,
    NotFoundError,
    PreconditionError,
    UnavailableError,
)


@dataclass(frozen=True)
class JudgeSettings:
    """Where the judge is and how it is asked."""

    url: str
    """Up to and with `/v1`."""
    model: str
    temperature: float = 0.0
    max_tokens: int = 512
    timeout: float = 120.0
    """Seconds for one try."""
    retries: int = 5
    """After a lost connection, a timeout, 408, 409, 429 or 5xx, with growing pauses or the server's `Retry-After`."""
    per_minute: float | None = None
    """Most requests sent in a minute; None: no limit of our own."""

    def describe(self) -> str:
        """Library, model and settings in one line."""
        return method(
            "openai",
            f"judge {self.model} at {self.url}",
            f"temperature {self.temperature:g}",
            f"{self.max_tokens} tokens",
        )


class Judge:
    """Asks the endpoint. `asked`, `from_cache` and `retried` count what happened."""

    def __init__(self, settings: JudgeSettings, key: str, cache: ReplyCache | None = None) -> None:
        self.settings = settings
        self.asked = self.from_cache = self.retried = 0
        self._cache = cache
        self._client = openai.AsyncOpenAI(
            base_url=settings.url, api_key=key or "none", timeout=settings.timeout, max_retries=settings.retries
        )
        self._next = 0.0

    async def ask(self, messages: Messages) -> str:
        """The judge's reply. Raises UnavailableError (JUDGE_DOWN), ExhaustedError (JUDGE_RATE_LIMITED),
        PreconditionError (JUDGE_REFUSED), NotFoundError or InvalidError when all tries failed."""
        request: dict[str, Any] = {
            "model": self.settings.model,
            "messages": messages,
            "temperature": self.settings.temperature,
            "max_tokens": self.settings.max_tokens,
        }
        key = cache_key({"url": self.settings.url, **request})
        kept = self._cache.get(key) if self._cache else None
        if kept is not None:
            self.from_cache += 1
            return kept
        await self._pace()
        self.asked += 1
        try:
            raw = await self._client.chat.completions.with_raw_response.create(**request)
            self.retried += raw.retries_taken
            text = str(raw.parse().choices[0].message.content or "")
        except openai.OpenAIError as error:
            raise self._explained(error) from None
        except (AttributeError, IndexError, TypeError, ValueError):
            raise UnavailableError(
                f"{self.settings.url} does not answer as an OpenAI-compatible endpoint", reason="JUDGE_REPLY"
            ) from None
        if self._cache:
            self._cache.put(key, text)
        return text

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.close()

    async def _pace(self) -> None:
        """Wait for the next of evenly spaced places, if the rate is limited."""
        if self.settings.per_minute is None:
            return
        now = time.monotonic()
        place = max(now, self._next)
        self._next = place + 60 / self.settings.per_minute
        await asyncio.sleep(place - now)

    def _explained(self, error: openai.OpenAIError) -> LoradeckError:
        where, model = self.settings.url, self.settings.model
        if isinstance(error, openai.RateLimitError):
            return ExhaustedError(
                f"the judge at {where} refuses more requests for now: lower --concurrency or set --per-minute",
                reason="JUDGE_RATE_LIMITED",
            )
        if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
            return PreconditionError(
                f"the judge at {where} refuses the key: set the variable that --api-key-env names",
                reason="JUDGE_REFUSED",
            )
        if isinstance(error, openai.NotFoundError):
            return NotFoundError(f"the judge at {where} has no model {model!r}, or the path is wrong", field="model")
        if isinstance(error, openai.APIStatusError) and error.status_code < 500:
            return InvalidError(f"the judge at {where} refuses the request: HTTP {error.status_code}", field="endpoint")
        return UnavailableError(
            f"no judge answers at {where}: is it up, and is the address right?", reason="JUDGE_DOWN"
        )
