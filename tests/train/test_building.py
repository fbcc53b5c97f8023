"""Building data sets: asked of a real HTTP server, resumed, limited, counted, set aside."""

import json
import os
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from loradeck_registry.errors import InvalidError, PreconditionError, UnavailableError
from loradeck_train.building.build import build_answers, build_classification
from loradeck_train.building.endpoint import EndpointSettings
from loradeck_train.building.sources import Thread, dump_threads, plain, threads

CLASSES = ("bank", "school", "solar")
SKEPTICS = (
    Path(os.environ.get("LORADECK_SHARED", "../shared")) / "data" / "stackexchange_skeptics" / "skeptics_qa.jsonl"
)


class Server(ThreadingHTTPServer):
    """An OpenAI-compatible endpoint that answers by rules, and remembers what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.keys: list[str | None] = []
        self.failures: list[int] = []
        """Statuses to answer with first, one per request."""
        self.under_way = 0
        self.most_under_way = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        server = self.server
        with server.lock:
            server.times.append(time.monotonic())
            server.keys.append(self.headers.get("authorization"))
            server.under_way += 1
            server.most_under_way = max(server.most_under_way, server.under_way)
            status = server.failures.pop(0) if server.failures else 200
            if status == 200:
                server.asked.append(body)
        time.sleep(0.02)
        with server.lock:
            server.under_way -= 1
        content = json.dumps(_completion(body) if status == 200 else {"error": "no"}).encode()
        self.send_response(status)
        if status == 429:
            self.send_header("retry-after", "0.01")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        pass


def _completion(body: dict[str, Any]) -> dict[str, Any]:
    user = body["messages"][1]["content"]
    reason = "stop"
    if "unspeakable" in user:
        text = "I'm sorry, but I can't help with that."
    elif "filtered" in user:
        text, reason = "", "content_filter"
    elif "Theme: " in user:
        said, theme = user.removeprefix("Text: ").split("\nTheme: ")
        text = "1" if theme in said else "0"
        if ("muddled" in said and body["seed"] < 1) or "hopeless" in said:
            text = "Perhaps."
    else:
        text = "Short answer: It is so." if "main point" in body["messages"][0]["content"] else "It is so, and long."
    return {
        "choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": reason}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 3},
    }


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as found:
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield found
        found.shutdown()
        thread.join()


def _settings(server: Server, **changes: Any) -> EndpointSettings:
    return EndpointSettings(**{"url": server.url, "model": "test", "retries": 3, **changes})


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_text_gets_its_one_class_and_others_are_set_aside(server: Server, tmp_path: Path) -> None:
    texts = [
        "a bank",
        "a school",
        "nothing",
        "a bank and a school",
        "a muddled bank",
        "unspeakable",
        "hopeless",
        "filtered",
    ]
    report = build_classification(texts, CLASSES, _settings(server), tmp_path)
    assert _rows(tmp_path / "train.jsonl") == [
        {"text": "a bank", "label": "bank"},
        {"text": "a school", "label": "school"},
        {"text": "a muddled bank", "label": "bank"},
    ]
    aside = {row["text"]: row["reason"] for row in _rows(tmp_path / "set-aside.jsonl")}
    assert aside == {
        "nothing": "no_class", "a bank and a school": "several_classes", "unspeakable": "refused",
        "hopeless": "malformed", "filtered": "refused",
    }  # fmt: skip
    several = next(row for row in _rows(tmp_path / "set-aside.jsonl") if row["reason"] == "several_classes")
    assert several["positive"] == ["bank", "school"]
    assert report.usage["malformed"] == 3 + 9
    assert report.labels == {"bank": 2, "school": 1}
    assert json.loads((tmp_path / "report.json").read_text()) == report.as_json()


def test_nothing_is_asked_twice_and_a_cut_off_run_goes_on(server: Server, tmp_path: Path) -> None:
    texts = [f"a bank {i}" for i in range(6)]
    build_classification(texts[:4], CLASSES, _settings(server), tmp_path)
    assert len(server.asked) == 12
    # A kill in the middle of a line.
    with (tmp_path / "replies.jsonl").open("ab") as file:
        file.write(b'{"key": "cut')
    report = build_classification(texts, CLASSES, _settings(server), tmp_path)
    assert len(server.asked) == 18
    assert (report.usage["requests"], report.usage["cached"], report.rows) == (6, 12, 6)
    assert build_classification(texts, CLASSES, _settings(server), tmp_path).usage["requests"] == 0
    assert build_classification(texts, CLASSES, _settings(server, model="other"), tmp_path).usage["requests"] == 18


def test_costs_are_counted_and_the_key_is_sent(server: Server, tmp_path: Path) -> None:
    settings = _settings(server, price_in=2.0, price_out=10.0, key="secret")
    usage = build_classification(["a bank"], CLASSES, settings, tmp_path).usage
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (300, 9)
    assert usage["cost"] == pytest.approx((300 * 2 + 9 * 10) / 1e6)
    assert set(server.keys) == {"Bearer secret"}
    assert "secret" not in "".join(path.read_text() for path in tmp_path.iterdir())


def test_busy_server_is_asked_again_and_a_dead_one_is_named(server: Server, tmp_path: Path) -> None:
    server.failures = [429, 503]
    report = build_classification(["a bank"], CLASSES, _settings(server), tmp_path)
    assert (report.rows, report.usage["retried"]) == (1, 2)
    server.failures = [401]
    with pytest.raises(PreconditionError, match="401") as caught:
        build_classification(["new text"], CLASSES, _settings(server), tmp_path)
    assert caught.value.reason == "ENDPOINT_REFUSED"
    with pytest.raises(UnavailableError, match="run the same command again"):
        build_classification(
            ["a bank"], CLASSES, EndpointSettings("http://127.0.0.1:9/v1", "test", retries=0), tmp_path / "dead"
        )


def test_requests_are_bounded_in_number_and_in_rate(server: Server, tmp_path: Path) -> None:
    texts = [f"a bank {i}" for i in range(8)]
    build_classification(texts, CLASSES, _settings(server, concurrency=4), tmp_path / "a")
    assert server.most_under_way <= 4
    assert server.most_under_way > 1
    server.times.clear()
    build_classification(texts[:3], CLASSES, _settings(server, per_minute=600), tmp_path / "b")
    assert len(server.times) == 9
    assert server.times[-1] - server.times[0] >= 0.5 * 8 * 0.1


def test_answers_keep_the_order_of_the_questions(server: Server, tmp_path: Path) -> None:
    found = [Thread(f"Why {i}?", f"Because {i}.") for i in range(20)]
    report = build_answers(found, _settings(server), tmp_path)
    rows = _rows(tmp_path / "train.jsonl")
    assert report.rows == 20
    assert [row["question"] for row in rows] == [thread.question for thread in found]
    assert rows[3] == {
        "context": "Because 3.",
        "question": "Why 3?",
        "short_answer": "It is so.",
        "long_answer": "It is so, and long.",
    }  # fmt: skip


def test_classes_must_differ(tmp_path: Path) -> None:
    with pytest.raises(InvalidError):
        build_classification(["a"], ("x", "x"), EndpointSettings("http://127.0.0.1:9/v1", "test"), tmp_path)


def test_dump_gives_the_accepted_answer_or_the_best(tmp_path: Path) -> None:
    path = tmp_path / "Posts.xml"
    path.write_text(
        '<?xml version="1.0"?><posts>'
        '<row Id="1" PostTypeId="1" Title="A &amp;amp; B?" AcceptedAnswerId="4"/>'
        '<row Id="2" PostTypeId="1" Title="C?"/>'
        '<row Id="3" PostTypeId="2" ParentId="1" Score="9" Body="&lt;p&gt;high&lt;/p&gt;"/>'
        '<row Id="4" PostTypeId="2" ParentId="1" Score="1" Body="&lt;p&gt;accepted&lt;/p&gt;&lt;p&gt;two&lt;/p&gt;"/>'
        '<row Id="5" PostTypeId="2" ParentId="2" Score="1" Body="low"/>'
        '<row Id="6" PostTypeId="2" ParentId="2" Score="5" Body="best"/>'
        '<row Id="7" PostTypeId="1" Title="none?"/></posts>'
    )
    assert list(dump_threads(path)) == [Thread("A & B?", "accepted\ntwo"), Thread("C?", "best")]
    path.write_text("<posts><row")
    with pytest.raises(InvalidError, match="no XML"):
        list(dump_threads(path))


def test_text_is_freed_of_tags_and_references() -> None:
    assert plain("<p>a&nbsp;&amp;  b<br>c</p><pre>d</pre>") == "a & b\nc\nd"


@pytest.mark.skipif(not SKEPTICS.is_file(), reason="the StackExchange sample is not here (LORADECK_SHARED)")
def test_stackexchange_sample_becomes_rows(server: Server, tmp_path: Path) -> None:
    found = list(threads(str(SKEPTICS), "question", "answer", 20))
    assert len(found) == 20
    assert not any("&nbsp;" in thread.answer or "&amp;" in thread.answer for thread in found)
    assert build_answers(found, _settings(server), tmp_path).rows == 20


def test_command_writes_rows_and_report(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from loradeck_cli.train.data import command

    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    source = tmp_path / "texts.jsonl"
    source.write_text('{"body": "a bank"}\n{"body": "nothing"}\n')
    arguments = ["classify", str(source), "--text-column", "body", "--output", str(tmp_path / "out")]
    arguments += ["--endpoint", server.url, "--model", "test", "--json", str(tmp_path / "report.json")]
    for name in CLASSES:
        arguments += ["--class", name]
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert "1 rows in" in result.output
    assert json.loads((tmp_path / "report.json").read_text())["set_aside"] == {"no_class": 1}
