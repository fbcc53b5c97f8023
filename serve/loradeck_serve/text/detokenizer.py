"""Token ids to text as they come: never half a character, and never a part of a stop string."""

import logging
from collections.abc import Sequence
from typing import Any

from tokenizers.decoders import DecodeStream

from loradeck_tasks.parsing import cut_at_stop, held_back

_log = logging.getLogger(__name__)


class StopStrings:
    """Holds text back for as long as it may still turn out to be the beginning of a stop string."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(s for s in stops if s)
        self._held = ""
        self.stopped = False
        """Whether a stop string was found; text after it is dropped."""

    def push(self, text: str) -> str:
        """Add text; return what is certain to belong to the answer."""
        if self.stopped:
            return ""
        if not self._stops:
            return text
        certain, self.stopped = cut_at_stop(self._held + text, self._stops)
        keep = 0 if self.stopped else held_back(certain, self._stops)
        cut = len(certain) - keep
        self._held = certain[cut:]
        return certain[:cut]

    def end(self) -> str:
        """Nothing more comes: what was held back belongs to the answer after all."""
        held, self._held = self._held, ""
        return held


class Detokenizer:
    """Text of one generation. Special tokens are left out; bytes that never become a whole character are dropped."""

    def __init__(self, tokenizer: Any, stops: Sequence[str] = ()) -> None:
        self._tokenizer = getattr(tokenizer, "backend_tokenizer", tokenizer)
        self._stream = DecodeStream(skip_special_tokens=True)
        self._stops = StopStrings(stops)
        self.tokens = 0
        """Tokens taken, up to the one that completed a stop string."""

    @property
    def stopped(self) -> bool:
        """Whether a stop string was found."""
        return self._stops.stopped

    def push(self, token_ids: Sequence[int]) -> str:
        """Text that these tokens make certain; may be empty."""
        parts = []
        for token in token_ids:
            if self._stops.stopped:
                break
            self.tokens += 1
            parts.append(self._stops.push(self._step(token)))
        return "".join(parts)

    def end(self) -> str:
        """The rest, once the last token has come."""
        return self._stops.end()

    def _step(self, token: int) -> str:
        try:
            return self._stream.step(self._tokenizer, token) or ""
        except Exception as error:
            # The stream refuses output that does not extend what it gave before, which invalid UTF-8 can cause
            # (huggingface/tokenizers, "Invalid prefix encountered"): go on from this token.
            _log.debug("decode stream restarted", extra={"error": str(error)})
            self._stream = DecodeStream(skip_special_tokens=True)
            return self._stream.step(self._tokenizer, token) or ""
