"""A server without a registry: what operators are told of a server that holds no adapters."""

import asyncio
import json

from click.testing import CliRunner

from loradeck_cli.adapters.group import command
from tests.serve.conftest import Start


async def test_operators_are_told_in_a_sentence_that_there_are_no_adapters(start: Start) -> None:
    running = await start(registry=None, slots=0, host_adapters=0)
    address = str(running.server.addresses.admin)

    async def shown(*arguments: str) -> str:
        done = await asyncio.to_thread(lambda: CliRunner().invoke(command, [*arguments, "--server", address]))
        assert done.exit_code == 0, done.output
        return done.stdout

    assert (await shown("list")).startswith("no adapters")
    assert (await shown("capacity")).startswith("this server serves its base alone")
    assert json.loads(await shown("list", "--json", "-")) == {"adapters": []}
    assert json.loads(await shown("capacity", "--json", "-"))["max_rank"] == 0


async def test_an_empty_list_of_a_server_with_a_registry_says_so(start: Start) -> None:
    running = await start()
    address = str(running.server.addresses.admin)
    done = await asyncio.to_thread(lambda: CliRunner().invoke(command, ["capacity", "--server", address]))
    assert "one adapter" in done.stdout
    done = await asyncio.to_thread(lambda: CliRunner().invoke(command, ["list", "--server", address]))
    assert done.stdout.startswith("no adapters")
