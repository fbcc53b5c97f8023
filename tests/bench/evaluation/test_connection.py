"""Evaluations and load tests against doors that ask for TLS and a key, through the command line."""

import asyncio
import json
from pathlib import Path

from click.testing import CliRunner, Result

from loradeck_cli.main import loradeck
from loradeck_client import UnauthenticatedError
from tests.serve.access.certificates import Authority
from tests.serve.access.people import People
from tests.serve.conftest import Start, deck, made_deck, start  # noqa: F401
from tests.serve.deck import LABELS


async def run(*arguments: object) -> Result:
    """One command, beside the event loop in which the server runs."""
    words = [str(argument) for argument in arguments]
    return await asyncio.to_thread(CliRunner().invoke, loradeck, words)


async def test_evaluation_and_load_reach_a_door_with_tls_and_keys(start: Start, tmp_path: Path) -> None:  # noqa: F811
    authority = Authority(tmp_path)
    certificate, private = authority.server()
    people = People(tmp_path, web={"adapters": ["clf"]})
    key = tmp_path / "web.key"
    key.write_text(people.key("web"))
    running = await start(access=people.settings, tls={"certificate": certificate, "key": private})
    data, out = tmp_path / "rows.jsonl", tmp_path / "out.json"
    data.write_text("".join(json.dumps({"text": f"text {n}", "label": LABELS[n % 3]}) + "\n" for n in range(12)))
    where = ("--server", running.server.addresses.inference, "--tls-ca", authority.file)
    what = ("--adapter", "clf", "--task", "classification", "--data", data, "--json", out)
    shape = ("--rate", 20, "--duration", 1, "--processes", 2)
    for command in (("eval", "run"), ("bench", "load", *shape)):
        refused = await run(*command, *where, *what)
        assert isinstance(refused.exception, UnauthenticatedError), refused.output
        assert not out.exists() or not out.read_text()
        done = await run(*command, *where, "--api-key-file", key, *what)
        assert done.exit_code == 0, done.output
        found = json.loads(out.read_text())
        assert found["failed"] == 0
        assert found.get("answered", found.get("ok")) > 0
        out.unlink()
