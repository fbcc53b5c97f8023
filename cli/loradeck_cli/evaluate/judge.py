"""`loradeck eval judge`: a language model scores the answers of an evaluation, or chooses between two."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from loradeck_cli.evaluate.options import check_result_options, finish, result_options
from loradeck_cli.number import Number

if TYPE_CHECKING:
    from loradeck_bench.evaluation.judge.endpoint import JudgeSettings

Work = Callable[[Any, Callable[[int], None]], Awaitable[dict[str, Any]]]


@click.command()
@click.argument("result", type=click.Path(path_type=Path), metavar="RESULT.json")
@click.option("--against", type=click.Path(path_type=Path), metavar="OTHER.json", help="Choose between two results.")
@click.option("--endpoint", required=True, metavar="URL", help="OpenAI-compatible, up to and with /v1.")
@click.option("--model", required=True, help="Model to ask there.")
@click.option("--api-key-env", default="OPENAI_API_KEY", show_default=True, help="Environment variable with the key.")
@click.option("--rubric", type=click.Path(path_type=Path), help="JSONL of `class`, `prompt` [default: one prompt].")
@click.option("--merge", multiple=True, metavar="NAME=A,B", help="Count categories A and B as NAME.")
@click.option("--temperature", type=Number(0, 2), default=0.0, show_default=True)
@click.option("--max-tokens", type=click.IntRange(min=1), default=512, show_default=True, help="Limit of a reply.")
@click.option("--concurrency", type=click.IntRange(1, 256), default=8, show_default=True, help="Requests at a time.")
@click.option("--per-minute", type=Number(min=0.1), help="Most requests in a minute.")
@click.option("--retries", type=click.IntRange(min=0), default=5, show_default=True, help="After 429, 5xx, lost lines.")
@click.option("--timeout", type=Number(min=0.1), default=120.0, show_default=True, help="Seconds per try.")
@click.option("--cache", type=click.Path(path_type=Path), help="File of replies to use again and to add to.")
@result_options
def judge(
    result: Path,
    against: Path | None,
    endpoint: str,
    model: str,
    api_key_env: str,
    rubric: Path | None,
    merge: tuple[str, ...],
    temperature: float,
    max_tokens: int,
    concurrency: int,
    per_minute: float | None,
    retries: int,
    timeout: float,
    cache: Path | None,
    **options: Any,
) -> None:
    """Let a language model judge the answers in RESULT.json: scores by category; with --against, which is better."""
    from rich.console import Console

    check_result_options(options)
    from loradeck_bench.extra import JUDGE, require

    require(JUDGE)
    from loradeck_bench.evaluation.judge.endpoint import JudgeSettings
    from loradeck_bench.evaluation.judge.pairs import judge_pairs
    from loradeck_bench.evaluation.judge.rubric import Rubric, read_merged, read_rubric
    from loradeck_bench.evaluation.judge.scores import judge_scores
    from loradeck_bench.evaluation.paired.results import read_result
    from loradeck_bench.tables import metrics_table

    if against is not None and (rubric is not None or options["attach"] or options["html_path"]):
        raise click.UsageError("--rubric, --attach and --html belong to scores, not to --against")
    settings = JudgeSettings(endpoint, model, temperature, max_tokens, timeout, retries, per_minute)
    first, merged = read_result(result), read_merged(merge)
    if against is not None:
        second = read_result(against)
        outcome = _asked(
            settings, api_key_env, cache, len(first["items"]),
            lambda who, progress: judge_pairs(
                first, second, who, merged=merged, concurrency=concurrency, progress=progress
            ),
        )  # fmt: skip
        title = f"{against.stem} against {result.stem}"
    else:
        prompts = read_rubric(rubric) if rubric else Rubric({})
        outcome = _asked(
            settings, api_key_env, cache, len(first["items"]),
            lambda who, progress: judge_scores(
                first, prompts, who, merged=merged, concurrency=concurrency, progress=progress
            ),
        )  # fmt: skip
        title = f"{result.stem} judged by {model}"
    console = Console(stderr=options["json_path"] == "-")
    console.print(metrics_table(outcome, title))
    _show_counts(console, outcome)
    finish(outcome, title, options)


def _asked(settings: "JudgeSettings", key_name: str, cache: Path | None, total: int, work: Work) -> dict[str, Any]:
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress

    from loradeck_bench.evaluation.judge.cache import ReplyCache
    from loradeck_bench.evaluation.judge.endpoint import Judge

    async def ask(replies: ReplyCache | None, progress: Callable[[int], None]) -> dict[str, Any]:
        async with Judge(settings, os.environ.get(key_name, ""), replies) as who:
            return await work(who, progress)

    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with ExitStack() as stack:
        replies = stack.enter_context(closing(ReplyCache(cache))) if cache else None
        progress = stack.enter_context(Progress(*columns, console=Console(stderr=True), transient=True))
        bar = progress.add_task("judging", total=total)
        return asyncio.run(ask(replies, lambda done: progress.update(bar, completed=done)))


def _show_counts(console: Any, outcome: dict[str, Any]) -> None:
    for name, row in outcome["by_category"].items():
        if isinstance(row, dict):
            mean = "–" if row["mean"] is None else f"{row['mean']:.3f}"
            console.print(f"  {name}: {mean} over {row['scored']} of {row['items']}", highlight=False)
        else:
            console.print(f"  {name}: {row:.3f}", highlight=False)
    if "wins" in outcome:
        wins = outcome["wins"]
        console.print(
            f"second wins {wins['second']}, first wins {wins['first']}, ties {wins['tie']} "
            f"({outcome['inconsistent']} named different models in the two orders); sign test p = {outcome['p']:.4f}",
            highlight=False,
        )
    sent = outcome["requests"]
    console.print(
        f"{outcome['not_parsed']} replies not parsed, {outcome['failed']} failed; {sent['sent']} requests sent, "
        f"{sent['from_cache']} from the cache, {sent['retried']} retries",
        highlight=False,
    )
