"""A client of an OpenAI-compatible chat endpoint: bounded, rate-limited, patient, and every reply kept by content."""

import asyncio
import hashlib
import json
import random
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from loradeck_registry.errors import PreconditionError, UnavailableError
from loradeck_train.building.prompts import Messages, Question

Answer = TypeVar("Answer")
_LONGEST_WAIT = 60.0
_REFUSALS = (
    "i'm sorry, but i can", "i am sorry, but i can", "i can't help with", "i cannot help with", "i can't assist",
    "i cannot assist", "i'm unable to", "as an ai",
)  # fmt: skip


@dataclass(frozen=True)
class EndpointSettings:
    """Where and how to ask. `per_minute` bounds requests that are sent, `concurrency` those under way; prices are per
    million tokens, in any currency. `attempts` counts malformed replies, `retries` what the server could not do."""

    url: str
    model: str
    key: str | None = None
    concurrency: int = 8
    per_minute: float | None = None
    attempts: int = 3
    retries: int = 6
    timeout: float = 120.0
    temperature: float = 0.0
    price_in: float = 0.0
    price_out: float = 0.0


@dataclass
class Usage:
    """What asking has cost. `cached` replies cost nothing again."""

    requests: int = 0
    cached: int = 0
    retried: int = 0
    malformed: int = 0
    refusals: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = field(default=0.0)

    def as_json(self) -> dict[str, Any]:
        """Figures for programs."""
        return asdict(self) | {"cost": round(self.cost, 6)}


class RefusedError(Exception):
    """The model would not answer."""


class MalformedError(Exception):
    """No reply had the form that was asked for."""


class Endpoint:
    """Asks questions. Replies go into `cache`, a JSONL file by content of the request, so that a run that was cut off
    asks nothing twice; a line cut short by a kill is passed over. Use as an async context manager."""

    def __init__(self, settings: EndpointSettings, cache: Path) -> None:
        self.usage = Usage()
        self._settings = settings
        self._cache = cache
        self._known: dict[str, dict[str, Any]] = {}
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._next_start = 0.0

    async def __aenter__(self) -> Self:
        import httpx

        self._read_cache()
        self._file = self._cache.open("ab")
        headers = {"Authorization": f"Bearer {self._settings.key}"} if self._settings.key else {}
        self._http = httpx.AsyncClient(timeout=self._settings.timeout, headers=headers)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()
        self._file.close()

    async def ask(self, question: Question[Answer]) -> Answer:
        """The answer. Raises RefusedError, MalformedError (no attempt was well-formed), UnavailableError (the endpoint
        cannot be reached or stays busy) or PreconditionError (ENDPOINT_REFUSED: a wrong key, model or request)."""
        for attempt in range(self._settings.attempts):
            reply = await self._reply(question.messages, question.max_tokens, attempt)
            text = reply["text"] or ""
            if reply["refused"] or text.strip().lower().startswith(_REFUSALS):
                self.usage.refusals += 1
                raise RefusedError(text[:200])
            answer = question.parse(text)
            if answer is not None:
                return answer
            self.usage.malformed += 1
        raise MalformedError(text[:200])

    async def _reply(self, messages: Messages, max_tokens: int, attempt: int) -> dict[str, Any]:
        settings = self._settings
        body = {
            "model": settings.model, "messages": messages, "max_tokens": max_tokens, "seed": attempt,
            # The same words again at temperature 0 would only give the same reply.
            "temperature": settings.temperature if attempt == 0 else max(settings.temperature, 0.7),
        }  # fmt: skip
        key = hashlib.sha256(json.dumps([settings.url, body], sort_keys=True).encode()).hexdigest()
        if key in self._known:
            self.usage.cached += 1
            return self._known[key]
        async with self._slots:
            found = await self._send(body)
        choice = found["choices"][0]
        reply = {
            "text": choice["message"].get("content"),
            "refused": bool(choice["message"].get("refusal")) or choice.get("finish_reason") == "content_filter",
        }
        self._count(found.get("usage") or {})
        self._known[key] = reply
        self._file.write(json.dumps({"key": key, **reply}).encode() + b"\n")
        self._file.flush()
        return reply

    async def _send(self, body: dict[str, Any]) -> dict[str, Any]:
        import httpx

        problem = ""
        for attempt in range(self._settings.retries + 1):
            await self._wait_for_turn()
            wait = min(_LONGEST_WAIT, 0.5 * 2**attempt) * random.uniform(0.5, 1.0)
            try:
                response = await self._http.post(f"{self._settings.url.rstrip('/')}/chat/completions", json=body)
            except httpx.TransportError as error:
                problem = f"{type(error).__name__}: {error}"
            else:
                self.usage.requests += 1
                if response.status_code == 200:
                    found = _checked(response)
                    if found is not None:
                        return found
                    problem = "a reply that is no chat completion"
                elif response.status_code in (408, 409, 429) or response.status_code >= 500:
                    problem = f"status {response.status_code}"
                    wait = _retry_after(response.headers.get("retry-after")) or wait
                else:
                    line = " ".join(response.text.split())[:160]
                    raise PreconditionError(
                        f"{self._settings.url} refuses requests with status {response.status_code}: {line}",
                        reason="ENDPOINT_REFUSED",
                    )
            if attempt < self._settings.retries:
                self.usage.retried += 1
                await asyncio.sleep(wait)
        raise UnavailableError(
            f"{self._settings.url} does not answer ({problem}) after {self._settings.retries + 1} tries; what was "
            "answered so far is kept: run the same command again",
            reason="ENDPOINT_UNAVAILABLE",
        )

    async def _wait_for_turn(self) -> None:
        if self._settings.per_minute is None:
            return
        now = time.monotonic()
        start = max(now, self._next_start)
        self._next_start = start + 60.0 / self._settings.per_minute
        await asyncio.sleep(start - now)

    def _count(self, usage: dict[str, Any]) -> None:
        before, after = int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
        self.usage.prompt_tokens += before
        self.usage.completion_tokens += after
        self.usage.cost += (before * self._settings.price_in + after * self._settings.price_out) / 1e6

    def _read_cache(self) -> None:
        self._cache.parent.mkdir(parents=True, exist_ok=True)
        if not self._cache.is_file():
            return
        content = self._cache.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            self._cache.write_bytes(whole)
        for line in whole.splitlines():
            entry = json.loads(line)
            self._known[entry.pop("key")] = entry


def _checked(response: Any) -> dict[str, Any] | None:
    try:
        found = response.json()
        found["choices"][0]["message"]
    except (ValueError, KeyError, IndexError, TypeError):
        return None
    return dict(found)


def _retry_after(text: str | None) -> float | None:
    try:
        return min(_LONGEST_WAIT, max(0.0, float(text or "")))
    except ValueError:
        return None
