"""Hot swap and refused adapters on the real engine."""

import json
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from loradeck_client import PreconditionError, Sampling
from loradeck_registry.files import describe
from loradeck_registry.manifest import Manifest
from tests.e2e.conftest import LORADECK, Served

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

CONTEXT = "The bank opened a branch and the city built a network."
GREEDY = Sampling(temperature=0, max_tokens=12)


def move(server: Served, name: str, alias: str, target: int) -> None:
    """Move an alias from another process, which only writes to the registry."""
    command = [*LORADECK, "registry", "alias", name, alias, str(target), "--registry", server.deck.url]
    subprocess.run(command, check=True, capture_output=True, timeout=60)


def test_move_by_another_process_flips_under_load_without_a_wrong_answer(server: Served) -> None:
    with server.client() as client:
        golden = {
            number: client.answer_long("What?", context=CONTEXT, adapter=f"long@{number}", sampling=GREEDY)
            .result()
            .text
            for number in (1, 2)
        }
        assert golden[1] != golden[2]
        answers: list[tuple[int, str]] = []
        failures: list[Exception] = []
        stop = threading.Event()

        def ask() -> None:
            while not stop.is_set():
                try:
                    final = client.answer_long("What?", context=CONTEXT, adapter="long@prod", sampling=GREEDY).result()
                    answers.append((final.provenance.revision, final.text))
                except Exception as error:
                    failures.append(error)
                    return

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            for target in (2, 1, 2, 1):
                move(server, "long", "prod", target)
                moved = time.monotonic()
                while client.answer_long("What?", context=CONTEXT, adapter="long@prod", sampling=GREEDY).result(
                ).provenance.revision != target:  # fmt: skip
                    assert time.monotonic() - moved < 60, "the move was not followed"
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    assert not failures
    assert {revision for revision, _ in answers} == {1, 2}
    wrong = [revision for revision, text in answers if text != golden[revision]]
    assert not wrong, f"{len(wrong)} of {len(answers)} answers are not those of the revision they name"


def test_move_by_command_on_the_server(server: Served) -> None:
    command = [*LORADECK, "adapters", "move", "clf", "canary", "2", "--server", server.admin, "--json", "-"]
    done = subprocess.run(command, check=True, capture_output=True, timeout=60)
    reply = json.loads(done.stdout)
    assert (reply["previous_revision"], reply["adapter"]["revision"]) == (0, 2)
    with server.client() as client:
        assert client.classify(CONTEXT, adapter="clf@canary").provenance.revision == 2


def spoil(server: Served, folder: Path, kind: str) -> str:
    """Publish a broken copy of `short` past the checks of publishing, as a careless or hostile writer could."""
    registry = server.deck.registry
    good = registry.resolve("short")
    registry.pull(good, folder)
    (folder / "manifest.json").unlink()
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    first = sorted(tensors)[0]
    if kind == "NOT_FINITE":
        tensors[first][0, 0] = np.nan
    elif kind == "SHAPE_MISMATCH":
        tensors[first] = tensors[first][:, :-2].copy()
    elif kind == "NAME_MISMATCH":
        tensors[first.replace("model.layers", "model.layerz")] = tensors.pop(first)
    elif kind == "MISSING_TENSOR":
        del tensors[first]
    elif kind == "LEFTOVER_TENSOR":
        tensors["base_model.model.extra.weight"] = np.ones((2, 2), np.float32)
    path.chmod(0o644)
    save_file(tensors, path)
    files = {name: folder / name for name in ("adapter_config.json", "adapter_model.safetensors")}
    manifest: dict[str, Any] = good.manifest.model_dump() | {"files": describe(files)}
    name = f"bad-{kind.lower().replace('_', '-')}"
    registry.push(name, Manifest.model_validate(manifest), files)
    return name


@pytest.mark.parametrize("kind", ["NOT_FINITE", "SHAPE_MISMATCH", "NAME_MISMATCH", "MISSING_TENSOR", "LEFTOVER_TENSOR"])
def test_broken_adapter_is_refused_and_neighbours_answer_as_before(server: Served, tmp_path: Path, kind: str) -> None:
    name = spoil(server, tmp_path / kind, kind)
    with server.client() as client:
        before = client.answer_short("What?", context=CONTEXT, adapter="short", sampling=GREEDY).text
        base = client.generate(prompt=CONTEXT, sampling=GREEDY).result().text
        with pytest.raises(PreconditionError) as raised:
            client.answer_short("What?", context=CONTEXT, adapter=name)
        assert raised.value.reason == kind
        assert client.answer_short("What?", context=CONTEXT, adapter="short", sampling=GREEDY).text == before
        assert client.generate(prompt=CONTEXT, sampling=GREEDY).result().text == base


def test_moving_an_alias_to_a_broken_revision_leaves_it_where_it_was(server: Served, tmp_path: Path) -> None:
    registry = server.deck.registry
    good = server.deck.publish("careful", "short_qa", 31, alias="prod", max_tokens=8)
    with server.client() as client, server.admin_client() as admin:
        assert client.answer_short("What?", context=CONTEXT, adapter="careful").provenance.revision == 1
        name = spoil(server, tmp_path / "spoiled", "NOT_FINITE")
        broken = registry.resolve(name)
        files = {f.path: registry.local(broken) / f.path for f in broken.manifest.files}
        registry.push("careful", broken.manifest, files)
        with pytest.raises(PreconditionError) as raised:
            admin.move_alias("careful", "prod", 2)
        assert raised.value.reason == "NOT_FINITE"
        assert registry.resolve("careful@prod").digest == good.digest
        assert client.answer_short("What?", context=CONTEXT, adapter="careful").provenance.revision == 1


def test_more_adapters_than_places_are_all_served(server: Served) -> None:
    names = [f"many-{index}" for index in range(12)]
    for index, name in enumerate(names):
        server.deck.publish(name, "short_qa", 50 + index, max_tokens=6)
    with server.client() as client, server.admin_client() as admin:
        first = {n: client.answer_short("What?", context=CONTEXT, adapter=n, sampling=GREEDY).text for n in names}
        again = {n: client.answer_short("What?", context=CONTEXT, adapter=n, sampling=GREEDY).text for n in names}
        capacity = admin.capacity()
    assert first == again
    assert len(set(first.values())) > 6
    assert capacity.host_adapters == 8
    assert capacity.host_adapters_used <= 8
