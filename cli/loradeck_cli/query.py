"""`loradeck query`: ask a server."""

import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import click

from loradeck_cli.connection import connection
from loradeck_cli.number import Number
from loradeck_cli.output import emit
from loradeck_client import (
    Access,
    Answer,
    Classification,
    Client,
    InvalidError,
    NotFoundError,
    PreconditionError,
    Sampling,
    TextStream,
)

F = TypeVar("F", bound=Callable[..., Any])


@click.group()
def command() -> None:
    """Ask a server: classify, short, long, generate."""


def _shared(function: F) -> F:
    for decorate in reversed(
        (
            click.option("--adapter", default="", metavar="REF", help="name[@7|@prod|@sha256:...]; none: the base."),
            click.option(
                "--server",
                "--address",
                "server",
                default="127.0.0.1:8500",
                envvar="LORADECK_SERVER",
                show_default=True,
                metavar="HOST:PORT[,…]",
                help="Inference door; of several servers each adapter has its own, while that one answers.",
            ),
            click.option("--timeout", type=Number(0, min_open=True), default=60.0, show_default=True, help="Seconds."),
            click.option(
                "--json", "json_path", metavar="PATH", help="Write the reply as JSON to PATH, or - for stdout."
            ),
        )
    ):
        function = decorate(function)
    return connection(function)


def _sampled(function: F) -> F:
    for decorate in reversed(
        (
            click.option("--temperature", type=float, help="0 is greedy [default: the task's]."),
            click.option("--top-p", type=float),
            click.option("--top-k", type=int),
            click.option("--seed", type=int),
            click.option("--max-tokens", type=int),
            click.option("--stop", multiple=True, help="Stop string. Repeatable."),
        )
    ):
        function = decorate(function)
    return function


@command.command()
@click.argument("text", required=False)
@click.option("--file", type=click.Path(path_type=Path), help="Read the text from a file; - is standard input.")
@click.option("--label", "labels", multiple=True, help="Restrict to these labels; the base needs two or more.")
@_shared
def classify(
    text: str | None,
    file: Path | None,
    labels: tuple[str, ...],
    adapter: str,
    server: str,
    timeout: float,
    json_path: str | None,
) -> None:
    """Pick a label for TEXT and show every label's probability."""
    with Client(server, timeout=timeout, access=Access.from_environment()) as client:
        result = client.classify(_text(text, file, "TEXT"), adapter=adapter, labels=labels)
    emit(asdict(result), json_path, lambda: _probabilities(result))


@command.command()
@click.argument("question", required=False)
@click.option("--context", default="", help="The passage that holds the answer.")
@click.option("--file", type=click.Path(path_type=Path), help="Read the context from a file; - is standard input.")
@_shared
@_sampled
def short(question: str | None, context: str, file: Path | None, adapter: str, server: str, timeout: float,
          json_path: str | None, **sampling: Any) -> None:  # fmt: skip
    """Answer QUESTION in a few words from a context."""
    with Client(server, timeout=timeout, access=Access.from_environment()) as client:
        answer = client.answer_short(
            _question(question),
            context=_text(context or None, file, "--context", needed=False),
            adapter=adapter,
            sampling=_sampling(sampling),
        )
    emit(asdict(answer), json_path, lambda: _answer(answer))


@command.command(name="long")
@click.argument("question", required=False)
@click.option("--context", default="", help="The passage that holds the answer.")
@click.option("--file", type=click.Path(path_type=Path), help="Read the context from a file; - is standard input.")
@_shared
@_sampled
def long_answer(question: str | None, context: str, file: Path | None, adapter: str, server: str, timeout: float,
                json_path: str | None, **sampling: Any) -> None:  # fmt: skip
    """Answer QUESTION at length from a context, as it is written."""
    with Client(server, timeout=timeout, access=Access.from_environment()) as client:
        stream = client.answer_long(
            _question(question),
            context=_text(context or None, file, "--context", needed=False),
            adapter=adapter,
            sampling=_sampling(sampling),
        )
        _show(stream, json_path)


@command.command()
@click.argument("message", required=False)
@click.option("--file", type=click.Path(path_type=Path), help="Read the message from a file; - is standard input.")
@click.option("--raw", is_flag=True, help="Take the text as the whole prompt, without any template.")
@click.option("--field", "fields", multiple=True, metavar="NAME=TEXT", help="Value of the task's template. Repeatable.")
@_shared
@_sampled
def generate(message: str | None, file: Path | None, raw: bool, fields: tuple[str, ...], adapter: str, server: str,
             timeout: float, json_path: str | None, **sampling: Any) -> None:  # fmt: skip
    """Generate freely: from the template's --field values, a message to the base, or a --raw prompt."""
    request: dict[str, Any] = {}
    if fields:
        if message is not None or file is not None or raw:
            raise InvalidError("give either --field values, or a message", field="fields")
        pairs = [field.partition("=") for field in fields]
        if bad := [name for name, separator, _ in pairs if not separator or not name]:
            raise InvalidError(f"--field takes NAME=TEXT, not {bad[0]!r}", field="fields")
        request["fields"] = {name: value for name, _, value in pairs}
    else:
        request["prompt" if raw else "message"] = _text(message, file, "MESSAGE")
    with Client(server, timeout=timeout, access=Access.from_environment()) as client:
        _show(client.generate(adapter=adapter, sampling=_sampling(sampling), **request), json_path)


def _text(given: str | None, file: Path | None, what: str, needed: bool = True) -> str:
    if given is not None and file is not None:
        raise click.UsageError(f"give either {what} or --file")
    if given is not None:
        if any("\ud800" <= character <= "\udfff" for character in given):
            raise InvalidError(f"{what} is not UTF-8: check the terminal's encoding, or use --file", field="text")
        return given
    if file is not None and str(file) != "-":
        try:
            return file.read_text(encoding="utf-8")
        except OSError as error:
            raise NotFoundError(f"cannot read {file}: {error.strerror}", field="file") from None
        except UnicodeDecodeError:
            raise PreconditionError(f"{file} is not UTF-8 text: convert it first", field="file") from None
    if file is not None or (needed and not sys.stdin.isatty()):
        return sys.stdin.read()
    if needed:
        raise click.UsageError(f"{what} is missing: give it as an argument, with --file, or on standard input")
    return ""


def _question(question: str | None) -> str:
    if question is None:
        raise click.UsageError("QUESTION is missing")
    return question


def _sampling(values: dict[str, Any]) -> Sampling:
    return Sampling(**values)


def _show(stream: TextStream, json_path: str | None) -> None:
    with stream:
        for chunk in stream:
            if json_path != "-":
                click.echo(chunk.text, nl=False)
                sys.stdout.flush()
        answer = stream.result()
    emit(asdict(answer), json_path, lambda: _end(answer))


def _probabilities(result: Classification) -> None:
    width = max(len(item.label) for item in result.probabilities)
    for item in result.probabilities:
        click.echo(f"{item.label:<{width}}  {item.probability:7.4f}")
    _who(result)


def _answer(answer: Answer) -> None:
    click.echo(answer.text)
    _who(answer)


def _end(answer: Answer) -> None:
    click.echo()
    _who(answer)


def _who(result: Answer | Classification) -> None:
    """Who answered, on standard error, so that a pipe gets the answer alone."""
    by, usage = result.provenance, result.usage
    revision = f"@{by.revision}" if by.revision else ""
    parts = [f"{by.adapter}{revision}", by.digest[:19], by.residency]
    tokens = f"{usage.prompt_tokens} prompt tokens, {usage.output_tokens} output tokens"
    click.echo(f"[{' '.join(part for part in parts if part)}; {tokens}]", err=True)
