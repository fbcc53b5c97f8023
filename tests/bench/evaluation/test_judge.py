"""A judge over a real HTTP server: scores by category, replies that do not parse, both orders, cache, refusals."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from loradeck_bench.evaluation.judge.pool import LOST
from loradeck_bench.evaluation.judge.rubric import category_name, parse_score, parse_verdict, read_rubric
from loradeck_cli.evaluate.group import command
from loradeck_registry.errors import InvalidError, LoradeckError, NotFoundError, PreconditionError, UnavailableError
from tests.bench.evaluation.judge_server import JudgeServer, judge_server

BELLE = Path(__file__).parents[4] / "shared" / "data" / "belle_eval"
ROWS = [
    {
        "prompt": f"What is {i} + {i}?",
        "reference": str(2 * i),
        "answer": str(2 * i if i % 2 else 0),
        "category": category,
    }
    for i, category in enumerate(["Math", "math", "Closed\xa0QA", "closed qa", "closed qa", "code"])
]
# Right: rows 0 (0 is 0), 1, 3, 5.


@pytest.fixture
def server() -> Iterator[JudgeServer]:
    with judge_server() as running:
        yield running


def grade(messages: list[dict[str, str]]) -> str:
    text = messages[1]["content"]
    right = re.search(r"Reference answer:\n(.*)\n\nAnswer:\n\1$", text)
    return f"It is {'right' if right else 'wrong'}.\nScore: {1 if right else 0.25}"


def result_file(folder: Path, name: str = "answers", rows: list[dict[str, str]] = ROWS) -> Path:
    data, out = folder / f"{name}.jsonl", folder / f"{name}.json"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = [option for field in ("prompt", "category") for option in ("--column", f"{field}={field}")]
    done = CliRunner().invoke(command, ["score", "--data", str(data), *columns, "--json", str(out)])
    assert done.exit_code == 0, done.output
    return out


def judged(server: JudgeServer, path: Path, *arguments: str) -> Result:
    return CliRunner().invoke(
        command, ["judge", str(path), "--endpoint", server.url, "--model", "m", "--json", "-", *arguments]
    )


def figures(server: JudgeServer, path: Path, *arguments: str) -> dict[str, Any]:
    done = judged(server, path, *arguments)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def test_scores_are_averaged_by_category_first(server: JudgeServer, tmp_path: Path) -> None:
    server.reply = grade
    found = figures(server, result_file(tmp_path))
    means = {name: row["mean"] for name, row in found["by_category"].items()}
    assert means == pytest.approx({"closed qa": 0.5, "code": 1.0, "math": 1.0})
    assert found["judge_macro"] == pytest.approx(2.5 / 3)
    assert found["judge_mean"] == pytest.approx(4.5 / 6)
    low, high = found["intervals"]["judge_macro"]
    assert low < found["judge_macro"] <= high
    assert "judge m at http://127.0.0.1" in found["methods"]["judge_macro"]
    assert "temperature 0" in found["methods"]["judge_macro"]
    assert found["data_digest"].startswith("sha256:")
    assert {request["temperature"] for request in server.requests} == {0}


def test_categories_can_be_merged(server: JudgeServer, tmp_path: Path) -> None:
    server.reply = grade
    found = figures(server, result_file(tmp_path), "--merge", "other=Math,CODE")
    assert {name: row["items"] for name, row in found["by_category"].items()} == {"closed qa": 3, "other": 3}


def test_reply_without_a_score_is_counted_and_never_a_zero(server: JudgeServer, tmp_path: Path) -> None:
    server.reply = lambda messages: "No score from me." if "3 + 3" in messages[1]["content"] else "Score: 0.5"
    found = figures(server, result_file(tmp_path))
    assert (found["not_parsed"], found["answered"]) == (1, 5)
    assert found["judge_mean"] == pytest.approx(0.5)
    assert found["by_category"]["closed qa"] == {
        "items": 3, "scored": 2, "not_parsed": 1, "failed": 0, "not_asked": 0, "mean": 0.5,
    }  # fmt: skip
    assert next(item for item in found["items"] if item["status"] == "not_parsed")["reply"] == "No score from me."


def test_no_score_at_all_is_one_clear_line(server: JudgeServer, tmp_path: Path) -> None:
    server.reply = lambda messages: "Score: 11"
    done = judged(server, result_file(tmp_path))
    assert isinstance(done.exception, InvalidError)
    assert "6 replies without one, the first: 'Score: 11'" in done.exception.message


def test_rubric_prompts_are_taken_by_category(server: JudgeServer, tmp_path: Path) -> None:
    rubric = tmp_path / "rubric.jsonl"
    prompts = [
        {"class": "closed QA", "prompt": '参考标准答案，输出"得分:"'},
        {"class": "math", "prompt": "Check the sum."},
    ]
    rubric.write_text("".join(json.dumps(row) + "\n" for row in prompts))
    server.reply = lambda messages: "得分：0.75分"
    found = figures(server, result_file(tmp_path), "--rubric", str(rubric))
    assert found["judge_mean"] == pytest.approx(0.75)
    systems = [request["messages"][0]["content"] for request in server.requests]
    assert (sum("参考" in text for text in systems), systems.count("Check the sum.")) == (3, 2)
    chinese = next(r["messages"][1]["content"] for r in server.requests if "参考" in r["messages"][0]["content"])
    assert chinese.startswith("问题:\nWhat is")
    assert "rubric.jsonl (sha256 " in found["methods"]["judge_mean"]


def test_kept_replies_are_not_asked_again(server: JudgeServer, tmp_path: Path) -> None:
    server.reply = grade
    path, cache = result_file(tmp_path), str(tmp_path / "judge" / "cache.sqlite")
    first = figures(server, path, "--cache", cache)
    asked = len(server.requests)
    second = figures(server, path, "--cache", cache)
    assert (asked, len(server.requests)) == (6, 6)
    assert (first["requests"]["from_cache"], second["requests"]["from_cache"]) == (0, 6)
    assert second["judge_macro"] == first["judge_macro"]
    figures(server, path, "--cache", cache, "--temperature", "1")  # another setting is another question
    assert len(server.requests) == 12


def test_rate_limit_is_waited_for(server: JudgeServer, tmp_path: Path) -> None:
    server.reply, server.statuses = grade, [200, 429, 503, 429]
    found = figures(server, result_file(tmp_path), "--concurrency", "2")
    assert found["answered"] == 6
    assert found["requests"]["retried"] == 3
    assert len(server.requests) == 9


def test_judge_that_keeps_refusing_leaves_what_was_scored(server: JudgeServer, tmp_path: Path) -> None:
    rows = [{**ROWS[1], "prompt": f"What is 1 + 1, row {i}?"} for i in range(30)]
    path = result_file(tmp_path, rows=rows)

    def reply(messages: list[dict[str, str]]) -> str:
        if "row 9" in messages[1]["content"]:
            server.always = 429
        return "Score: 1"

    server.reply = reply
    out = tmp_path / "judged.json"
    done = judged(server, path, "--retries", "0", "--concurrency", "1", "--json", str(out))
    assert done.exit_code == 1
    assert f"the judge failed {LOST} times in a row" in done.output
    found = json.loads(out.read_text())
    assert (found["answered"], found["failed"]) == (10, LOST)
    assert {item["reason"] for item in found["items"] if item["status"] == "failed"} == {"JUDGE_RATE_LIMITED"}
    assert found["by_category"]["math"]["not_asked"] == 30 - 10 - LOST


@pytest.mark.parametrize(
    ("status", "error", "message"),
    [
        (401, PreconditionError, "refuses the key"),
        (404, NotFoundError, "has no model 'm'"),
        (400, InvalidError, "refuses the request: HTTP 400"),
        (500, UnavailableError, "no judge answers"),
    ],
)
def test_refusal_is_one_clear_line(
    server: JudgeServer, tmp_path: Path, status: int, error: type[LoradeckError], message: str
) -> None:
    server.always = status
    done = judged(server, result_file(tmp_path), "--retries", "0")
    assert isinstance(done.exception, error)
    assert message in done.exception.message
    assert len(server.requests) == 1


def test_judge_that_is_down_or_something_else_is_one_clear_line(server: JudgeServer, tmp_path: Path) -> None:
    path = result_file(tmp_path)
    server.body = {"hello": "world"}
    done = judged(server, path)
    assert isinstance(done.exception, UnavailableError)
    assert "does not answer as an OpenAI-compatible endpoint" in done.exception.message
    server.url = "http://127.0.0.1:9/v1"
    done = judged(server, path, "--retries", "0")
    assert isinstance(done.exception, UnavailableError)
    assert "no judge answers at http://127.0.0.1:9/v1" in done.exception.message


def test_key_comes_from_the_environment_and_goes_nowhere_else(
    server: JudgeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_JUDGE", "s3cret-key")
    cache = tmp_path / "cache.sqlite"
    done = judged(server, result_file(tmp_path), "--api-key-env", "MY_JUDGE", "--cache", str(cache))
    assert set(server.keys) == {"Bearer s3cret-key"}
    assert "s3cret" not in done.output
    assert b"s3cret" not in cache.read_bytes()


def test_pairs_are_asked_in_both_orders(server: JudgeServer, tmp_path: Path) -> None:
    first = result_file(tmp_path, "first")
    second = result_file(tmp_path, "second", [{**row, "answer": row["reference"]} for row in ROWS])

    def choose(messages: list[dict[str, str]]) -> str:
        text = messages[1]["content"]
        if "5 + 5" in text:
            return "Both. [[A]] or [[B]]"
        if "3 + 3" in text:
            return "Always the first one: [[A]]"
        gold = re.search(r"Reference answer:\n(\d+)", text)
        a, b = re.search(r"Answer A:\n(\d+)", text), re.search(r"Answer B:\n(\d+)", text)
        assert gold
        assert a
        assert b
        right = [answer[1] == gold[1] for answer in (a, b)]
        return "[[C]]" if right[0] == right[1] else "[[A]]" if right[0] else "[[B]]"

    server.reply = choose
    found = figures(server, first, "--against", str(second))
    assert len(server.requests) == 12
    # Rows 2 and 4 are won by the second model; 0 and 1 are equal; 3 is answered by place; 5 names both.
    assert found["wins"] == {"first": 0, "tie": 3, "second": 2}
    assert (found["inconsistent"], found["not_parsed"]) == (1, 1)
    assert found["win_rate"] == pytest.approx((2 + 1.5) / 5)
    assert found["p"] == pytest.approx(0.5)


def test_judged_results_are_compared_like_any_other(server: JudgeServer, tmp_path: Path) -> None:
    server.reply = grade
    paths = []
    for name, rows in (("bad", ROWS), ("good", [{**row, "answer": row["reference"]} for row in ROWS])):
        out = tmp_path / f"{name}-judged.json"
        out.write_text(json.dumps(figures(server, result_file(tmp_path, name, rows))))
        paths.append(str(out))
    done = CliRunner().invoke(command, ["compare", *paths, "--json", "-"])
    rows_by_metric = {row["metric"]: row for row in json.loads(done.stdout)["comparisons"]}
    assert rows_by_metric["judge_macro"]["difference"] == pytest.approx(1 - 2.5 / 3)
    assert rows_by_metric["judge_mean"]["difference"] == pytest.approx(1.5 / 6)


def test_result_without_questions_cannot_be_judged(server: JudgeServer, tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    item = {"row": 0, "gold": "a", "answer": "b", "status": "ok"}
    path.write_text(json.dumps({"items": [item], "methods": {}}))
    done = judged(server, path)
    assert isinstance(done.exception, InvalidError)
    assert "does not say what was asked" in done.exception.message


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ("Score: 0.7", 0.7),
        ("**Score:** 1", 1.0),
        ("score = 3/4", 0.75),
        ("First I thought Score: 0.2. No.\nScore: 0.9", 0.9),
        ("得分:0.8", 0.8),
        ("得分： 1分", 1.0),
        ("0.5", 0.5),
        ("Score: 7", None),
        ("Score: 1/0", None),
        ("Score: high", None),
        ("It has 0.5 of it", None),
        ("", None),
    ],
)
def test_scores_are_read_strictly(reply: str, score: float | None) -> None:
    assert parse_score(reply) == score


def test_verdict_must_be_one() -> None:
    assert parse_verdict("so [[B]]") == "B"
    assert parse_verdict("[[A]] ... [[A]]") == "A"
    assert parse_verdict("[[A]] [[B]]") is None
    assert parse_verdict("A") is None


@pytest.mark.skipif(not BELLE.is_dir(), reason="needs BELLE's evaluation set, which the project does not ship")
def test_belle_set_meets_its_rubric(server: JudgeServer, tmp_path: Path) -> None:
    rubric = read_rubric(BELLE / "eval_prompt.jsonl")
    rows = [json.loads(line) for line in (BELLE / "eval_set.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 1000
    assert {category_name(row["class"]) for row in rows} <= set(rubric.prompts)
    server.reply = lambda messages: "得分:0.5" if "标准答案:" in messages[1]["content"] else "得分:1"
    data, out = tmp_path / "set.jsonl", tmp_path / "answers.json"
    data.write_text("".join(json.dumps({**row, "answer": "答"}) + "\n" for row in rows[:200]))
    columns = ("prompt=question", "reference=std_answer", "category=class")
    scored = CliRunner().invoke(
        command,
        [
            "score",
            "--data",
            str(data),
            *(a for c in columns for a in ("--column", c)),
            "--metric",
            "chrf",
            "--json",
            str(out),
        ],
    )
    assert scored.exit_code == 0, scored.output
    assert json.loads(out.read_text())["without_reference"] == sum(not row["std_answer"] for row in rows[:200])
    found = figures(
        server, out, "--rubric", str(BELLE / "eval_prompt.jsonl"), "--merge", "other=math,code", "--concurrency", "16"
    )
    assert found["answered"] == 200
    assert found["by_category"]["brainstorming"]["mean"] == 1.0  # no standard answers there
    assert found["by_category"]["other"]["mean"] == 0.5
