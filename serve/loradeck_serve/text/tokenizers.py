"""Tokenizers of the base and of each set of added tokens, and everything that is done with them off the event loop."""

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from loradeck_serve.text.detokenizer import Detokenizer
from loradeck_tasks.task import Task

T = TypeVar("T")

KEPT = 16
"""Tokenizers kept in memory: one per different set of added tokens; the least recently used goes first."""
SHORT_CHARACTERS = 4096
"""A text up to here is rendered in less than a millisecond."""


@dataclass(frozen=True)
class Rendered:
    """A prompt, and what it takes to read its answer: the tokens that end it, and the tokenizer."""

    token_ids: list[int]
    stop_token_ids: tuple[int, ...]
    tokenizer: Any

    def detokenizer(self, stops: Sequence[str]) -> Detokenizer:
        """For one answer, which ends before the first of `stops`."""
        return Detokenizer(self.tokenizer, stops)


class _Guarded:
    """A tokenizer and the lock that keeps two threads from rendering with it at once."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.lock = threading.Lock()


class Tokenizers:
    """Renders and encodes in a small thread pool, with the same functions that training uses.

    A short text is rendered at once while the server is `idle` otherwise: nobody is held up by it then, and to wake a
    thread that sleeps, and to be woken by it, takes longer than the rendering.
    """

    def __init__(self, base: Path, threads: int = 2, idle: Callable[[], bool] = lambda: False) -> None:
        self._base = base
        self._idle = idle
        self._visits = 0
        """Texts in the threads, or on their way."""
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="tokenize")
        self._kept: OrderedDict[object, _Guarded] = OrderedDict()
        self._lock = threading.Lock()
        self._building = threading.Lock()

    async def warm_up(self, task: Task) -> None:
        """Load the base's tokenizer and use it once. Raises PreconditionError if there is none that can be used."""
        await self._run(task, 0, lambda tokenizer: tokenizer.encode("text"))

    async def render(self, task: Task, values: Mapping[str, str]) -> Rendered:
        """The task's prompt with `values` in its template."""
        from loradeck_tasks.rendering import render_prompt

        length = sum(map(len, values.values()))
        return await self._rendered(task, length, lambda tokenizer: list(render_prompt(task, values, tokenizer)))

    async def encode(self, task: Task, text: str, special: bool) -> Rendered:
        """A text as it is; `special` adds what the tokenizer puts around a text by itself."""
        return await self._rendered(
            task,
            len(text),
            # Not verbose: of a text that is too long the caller is told, not the log.
            lambda tokenizer: [int(i) for i in tokenizer.encode(text, add_special_tokens=special, verbose=False)],
        )

    async def render_labelled(
        self, task: Task, values: Mapping[str, str], labels: Sequence[str]
    ) -> tuple[list[int], list[tuple[int, ...]]]:
        """Token ids of the prompt, and of what stands for each label after it: its label token, or its text as training
        writes it.

        Where one label's text is the beginning of another's, all of them end with the end of the turn, as they do in
        training: otherwise the shorter one would be scored for saying less.
        """
        from loradeck_tasks.rendering import end_of_turn, label_candidates, render_prompt

        def work(tokenizer: Any) -> tuple[list[int], list[tuple[int, ...]]]:
            found = [tuple(ids) for ids in label_candidates(task, tokenizer, labels)]
            if any(a != b and b[: len(a)] == a for a in found for b in found):
                found = [(*ids, end_of_turn(task, tokenizer)) for ids in found]
            return list(render_prompt(task, values, tokenizer)), found

        return await self._run(task, sum(map(len, (*values.values(), *labels))), work)

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _rendered(self, task: Task, length: int, prompt: Callable[[Any], list[int]]) -> Rendered:
        from loradeck_tasks.rendering import stop_token_ids

        # All in one visit of a thread: each costs a turn of the event loop, which under load is milliseconds.
        return await self._run(
            task,
            length,
            lambda tokenizer: Rendered(prompt(tokenizer), tuple(stop_token_ids(task, tokenizer)), tokenizer),
        )

    async def _run(self, task: Task, length: int, work: Callable[[Any], T]) -> T:
        here = length <= SHORT_CHARACTERS and not self._visits and self._idle()
        # A visit that was given up may still go on in its thread.
        if here and (guarded := self._find(_key(task))) is not None and guarded.lock.acquire(blocking=False):
            try:
                return work(guarded.tokenizer)
            finally:
                guarded.lock.release()

        def run() -> T:
            guarded = self._guarded(task)
            with guarded.lock:
                return work(guarded.tokenizer)

        self._visits += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, run)
        finally:
            self._visits -= 1

    def _find(self, key: object) -> _Guarded | None:
        with self._lock:
            guarded = self._kept.get(key)
            if guarded is not None:
                self._kept.move_to_end(key)
            return guarded

    def _guarded(self, task: Task) -> _Guarded:
        from loradeck_tasks.rendering import tokenizer_for

        key = _key(task)
        if (found := self._find(key)) is not None:
            return found
        # One at a time: the first import of transformers does not bear two threads.
        with self._building:
            with self._lock:
                if key in self._kept:
                    return self._kept[key]
            guarded = _Guarded(tokenizer_for(task, self._base))
            with self._lock:
                self._kept[key] = guarded
                while len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
            return guarded


def _key(task: Task) -> object:
    """What tokenizers differ by. The digests too: they are what `tokenizer_for` compares with the base's own."""
    return (task.added_tokens, task.tokenizer_digest, task.chat_template_digest)
