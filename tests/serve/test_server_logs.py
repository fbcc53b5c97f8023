"""What a server logs: every failed call with its request id, and nothing that a caller or the model has said."""

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

import loradeck.inference.v1 as inference
from loradeck_serve.logs import JsonFormatter
from tests.serve.conftest import Start
from tests.serve.deck import Deck

SECRET = "zebra-crossing-4711"
IDS = (("x-request-id", "mine-1"),)


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """All that this process's loggers write, down to debug, as the server writes it."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(JsonFormatter())
    root, own = logging.getLogger(), logging.getLogger("loradeck_serve")
    before = root.level, own.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    own.setLevel(logging.DEBUG)
    yield written
    root.removeHandler(handler)
    root.setLevel(before[0])
    own.setLevel(before[1])


def entries(written: io.StringIO) -> list[dict[str, Any]]:
    """The lines as JSON."""
    return [json.loads(line) for line in written.getvalue().splitlines()]


async def test_logs_name_requests_and_hold_no_text_of_anybody(
    start: Start, deck: Deck, lines: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = await start()
    spoken: list[str] = []
    secret = f"The {SECRET}."
    requests = [
        running.inference.Classify(inference.ClassifyRequest(adapter="clf", text=secret), metadata=IDS),
        # Refused, each at another place that has the text in hand.
        running.inference.Classify(inference.ClassifyRequest(adapter="clf", text=secret, labels=[SECRET])),
        running.inference.Classify(inference.ClassifyRequest(text=secret)),
        running.inference.AnswerShort(
            inference.AnswerShortRequest(adapter="short", question=SECRET, context=SECRET * 400)
        ),
        running.inference.AnswerShort(inference.AnswerShortRequest(adapter="clf", question=SECRET, context=SECRET)),
    ]
    for call in requests:
        try:
            await call
        except grpc.RpcError:
            spoken.append("refused")
    request = inference.AnswerLongRequest(adapter="long", question=SECRET, context=secret)
    answer = [message async for message in running.inference.AnswerLong(request)][-1].final.text

    # A bug in the middle of a request: its trace is logged, with what it was about left out.
    async def broken(*_: object, **__: object) -> Any:
        raise RuntimeError("a bug")

    monkeypatch.setattr(running.server._tokenizers, "render_labelled", broken)
    with pytest.raises(grpc.RpcError):
        await running.inference.Classify(
            inference.ClassifyRequest(adapter="clf", text=secret), metadata=(("x-request-id", "mine-2"),)
        )
    await asyncio.sleep(0.1)
    assert len(spoken) == 4
    text = lines.getvalue()
    assert SECRET not in text
    assert answer
    assert json.dumps(answer, ensure_ascii=False)[1:-1] not in text
    calls = [entry for entry in entries(lines) if entry["message"] == "call"]
    assert len(calls) == 7
    assert all(entry["request_id"] for entry in calls)
    assert "mine-1" in {entry["request_id"] for entry in calls}
    bug = next(entry for entry in entries(lines) if entry["message"] == "internal error")
    assert (bug["request_id"], "RuntimeError: a bug" in bug["trace"]) == ("mine-2", True)
