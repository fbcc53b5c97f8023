"""The command line against doors that ask for TLS and keys, and `loradeck keys` from the first key to the last."""

import asyncio
import json
import stat
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from loradeck_cli.main import loradeck
from loradeck_client import DeniedError, UnauthenticatedError
from loradeck_registry.errors import InvalidError, NotFoundError
from tests.serve.access.certificates import Authority
from tests.serve.access.people import People
from tests.serve.conftest import Start


async def run(*arguments: object, **environment: str) -> Result:
    """One command, beside the event loop in which the server runs."""
    words = [str(argument) for argument in arguments]
    return await asyncio.to_thread(lambda: CliRunner().invoke(loradeck, words, env=environment))


async def test_commands_reach_doors_with_tls_and_keys(start: Start, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, private = authority.server()
    people = People(tmp_path, web={"adapters": ["clf"]}, ops={"adapters": ["*"], "rpcs": ["admin"]})
    files = {}
    for name in ("web", "ops"):
        files[name] = tmp_path / f"{name}.key"
        made = await run("keys", "add", name, "--file", people.keys, "--out", files[name])
        assert made.exit_code == 0, made.output
        assert stat.S_IMODE(files[name].stat().st_mode) == 0o600
    running = await start(access=people.settings, tls={"certificate": certificate, "key": private})
    where = running.server.addresses
    ask = ("query", "classify", "x", "--adapter", "clf", "--server", where.inference, "--tls-ca", authority.file)
    found = await run(*ask, "--api-key-file", files["web"])
    assert found.exit_code == 0, found.output
    # The environment does as well, and the option is nearer than it.
    assert (await run(*ask, LORADECK_API_KEY_FILE=str(files["web"]))).exit_code == 0
    assert (await run(*ask, LORADECK_API_KEY=files["web"].read_text())).exit_code == 0
    assert (await run(*ask, "--api-key-file", files["web"], LORADECK_API_KEY="nonsense")).exit_code == 0
    assert isinstance((await run(*ask)).exception, UnauthenticatedError)
    assert isinstance((await run(*ask, "--api-key-file", files["ops"])).exception, DeniedError)
    listing = ("adapters", "list", "--server", where.admin, "--tls-ca", authority.file, "--json", "-")
    listed = await run(*listing, "--api-key-file", files["ops"])
    assert [a["name"] for a in json.loads(listed.stdout)["adapters"]] == ["clf"]
    assert isinstance((await run(*listing, "--api-key-file", files["web"])).exception, DeniedError)
    healthy = await run("health", "--server", where.inference, "--tls-ca", authority.file)
    assert (healthy.exit_code, healthy.stdout.split()[0]) == (0, "SERVING")
    assert (await run("health", "--server", where.inference)).exit_code == 1
    assert isinstance((await run(*ask, "--api-key-file", tmp_path / "absent")).exception, NotFoundError)


async def test_keys_are_made_shown_rotated_and_revoked(tmp_path: Path) -> None:
    file = ("--file", tmp_path / "keys.json")
    made = json.loads((await run("keys", "add", "web", "--expires", "30d", *file, "--json", "-")).stdout)
    assert made["key"].startswith(f"ldk_{made['id']}_")
    assert made["key"].split("_", 2)[2] not in (tmp_path / "keys.json").read_text()
    assert stat.S_IMODE((tmp_path / "keys.json").stat().st_mode) == 0o600
    turned = json.loads((await run("keys", "rotate", made["id"], "--overlap", "1h", *file, "--json", "-")).stdout)
    assert turned["caller"] == "web"
    assert (await run("keys", "revoke", turned["id"], *file)).exit_code == 0

    async def states() -> dict[str, Any]:
        shown = json.loads((await run("keys", "list", *file, "--json", "-")).stdout)["keys"]
        assert not any("hash" in key or "salt" in key for key in shown)
        return {key["id"]: key["state"] for key in shown}

    assert await states() == {made["id"]: "valid", turned["id"]: "revoked"}
    for arguments, error in (
        (("revoke", "nobody00"), NotFoundError),
        (("rotate", turned["id"]), InvalidError),
        (("add", "b ad"), InvalidError),
    ):
        failed = await run("keys", *arguments, *file)
        assert isinstance(failed.exception, error)
    assert (await run("keys", "add", "web", "--expires", "3w", *file)).exit_code == 2
    assert (await run("keys", "add", "web", "--expires", "0d", *file)).exit_code == 2
    assert len(await states()) == 2
    for command in ("revoke", "rotate"):
        missing = await run("keys", command, made["id"], "--file", tmp_path / "no-folder" / "absent.json")
        assert isinstance(missing.exception, NotFoundError)
        assert "absent.json" in missing.exception.message
    assert not (tmp_path / "no-folder").exists()


async def test_writers_at_once_lose_no_key(tmp_path: Path) -> None:
    file = ("--file", tmp_path / "keys.json")
    made = await asyncio.gather(*(asyncio.to_thread(_add, f"caller-{n}", tmp_path / "keys.json") for n in range(12)))
    shown = json.loads((await run("keys", "list", *file, "--json", "-")).stdout)["keys"]
    assert {key["id"] for key in shown} == set(made)


def _add(caller: str, path: Path) -> str:
    from loradeck_serve.access.keys import KeyFile, utc_now

    file = KeyFile(path)
    with file.changing():
        keys, record, _ = file.read().add(caller, utc_now())
        file.write(keys)
    return record.id


@pytest.mark.parametrize("content", ["", "[]", '{"keys": [{}]}', '{"keys": 1}', '{"kyes": []}'])
async def test_a_file_of_keys_that_makes_no_sense_is_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "keys.json").write_text(content)
    failed = await run("keys", "list", "--file", tmp_path / "keys.json")
    assert isinstance(failed.exception, InvalidError)
    assert "\n" not in failed.exception.message
