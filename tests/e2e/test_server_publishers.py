"""What a publisher could write who means harm: refused with a reason, by a real server that goes on as before."""

import urllib.request
from collections.abc import Mapping
from typing import Any

import pytest

from loradeck_client import Client, InvalidError, LoradeckError, PreconditionError, RetryPolicy, Sampling
from loradeck_registry.publish import push_folder
from loradeck_registry.registry import Revision
from tests.e2e.conftest import Served
from tests.serve.deck import RANK
from tests.support.tiny import make_tiny_adapter

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

CONTEXT = "The bank opened a branch and the city built a network."
GREEDY = Sampling(temperature=0, max_tokens=12)
ONCE = RetryPolicy(attempts=1)
HUGE = 10**30
VOCABULARY, ROWS = 320, 384
"""Of the deck's base: tokens of its own, and rows with the reserved ones."""


def prompt(**changes: Any) -> dict[str, Any]:
    """A prompt of a probe, as JSON."""
    good = {"token_ids": [5, 6, 7], "candidates": [5, 6], "adapter_logprobs": [-1.0, -2.0], "base_logprobs": [-3, -4]}
    return good | changes


def probe(*prompts: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    """A probe as JSON."""
    return {"dtype": "float32", "prompts": list(prompts), "distance": 1.0} | changes


BAD_PROBES: dict[str, Any] = {
    "nobody's token": probe(prompt(token_ids=[VOCABULARY])),
    "no row": probe(prompt(token_ids=[ROWS])),
    "no such number": probe(prompt(token_ids=[HUGE])),
    "64 bits": probe(prompt(token_ids=[2**63])),
    "negative": probe(prompt(token_ids=[-1])),
    "empty": probe(prompt(token_ids=[])),
    "over the context": probe(prompt(token_ids=[5] * 5000)),
    "huge": probe(prompt(token_ids=[5] * 1_000_000)),
    "candidate without a row": probe(prompt(candidates=[5, ROWS])),
    "negative candidate": probe(prompt(candidates=[5, -1])),
    "huge candidate": probe(prompt(candidates=[5, HUGE])),
    "no candidate": probe(prompt(candidates=[], adapter_logprobs=[], base_logprobs=[])),
    "many candidates": probe(prompt(candidates=[5] * 129, adapter_logprobs=[-1] * 129, base_logprobs=[-1] * 129)),
    "fewer values than candidates": probe(prompt(adapter_logprobs=[-1.0])),
    "more values than candidates": probe(prompt(base_logprobs=[-1.0] * 3)),
    "negative continuation": probe(prompt(greedy=[-1])),
    "huge continuation": probe(prompt(greedy=[5] * 100_000)),
    "no prompt": probe(),
    "many prompts": probe(*[prompt()] * 5000),
    "something else": {"prompts": "all"},
    "values that are no numbers": probe(prompt(base_logprobs=["nan", "inf"])),
}
BAD_TASKS: dict[str, tuple[str, dict[str, Any], str]] = {
    "top_k of no width": ("short_qa", {"sampling": {"top_k": HUGE}}, "BAD_TASK"),
    "tokens without end": ("short_qa", {"max_tokens": HUGE}, "BAD_TASK"),
    "negative tokens": ("short_qa", {"max_tokens": -1}, "BAD_TASK"),
    "stops without end": ("short_qa", {"stop": ["x" * 40] * 100_000}, "BAD_TASK"),
    "a stop without end": ("short_qa", {"stop": ["x" * 1_000_000]}, "BAD_TASK"),
    "a template without end": ("short_qa", {"template": "{question}" + "x" * 10_000_000}, "BAD_TASK"),
    "a system prompt without end": ("short_qa", {"system": "x" * 10_000_000}, "BAD_TASK"),
    "a prompt over the context": ("short_qa", {"system": "bank " * 2000}, "PROMPT_TOO_LONG"),
    "an absurd temperature": ("short_qa", {"sampling": {"temperature": 1e300}}, "BAD_TASK"),
    "labels without end": (
        "classification",
        {"labels": [{"name": f"{number} " + "z" * 120} for number in range(128)]},
        "LABELS_TOO_LONG",
    ),
    "a label token without a row": (
        "classification",
        {
            "labels": [{"name": name, "token": f"<{name}>"} for name in "ab"],
            "added_tokens": [{"content": f"<{name}>", "id": HUGE + n} for n, name in enumerate("ab")],
        },
        "BAD_TASK",
    ),
    "a label token on the base's row": (
        "classification",
        {
            "labels": [{"name": name, "token": f"<{name}>"} for name in "ab"],
            "added_tokens": [{"content": f"<{name}>", "id": 5 + n} for n, name in enumerate("ab")],
        },
        "ADDED_TOKENS",
    ),
}


def publish(server: Served, name: str, kind: Any, task: Mapping[str, Any], probe: Mapping[str, Any] | None) -> Revision:
    """A good adapter with whatever contract: the registry keeps what publishers write."""
    deck = server.deck
    folder = deck.folder / "made" / name
    make_tiny_adapter(deck.base.folder, folder, rank=RANK, seed=900)
    whole = {**deck.task(kind, label_tokens=False), "added_tokens": [], **task}
    # `push` refuses tokens that the files do not bring; a publisher need not use it.
    revision = push_folder(deck.registry, name, folder, deck.base, task=whole | {"added_tokens": []})
    manifest = revision.manifest.model_copy(update={"task": whole, "probe": probe})
    return deck.registry.push(name, manifest, {f.path: folder / f.path for f in manifest.files})


def ask(client: Client, kind: str, name: str) -> None:
    """A request of this kind to the latest revision."""
    if kind == "classification":
        client.classify(CONTEXT, adapter=f"{name}@latest")
    else:
        client.answer_short("What?", context=CONTEXT, adapter=f"{name}@latest")


def test_no_contract_that_a_publisher_writes_ends_the_engine(server: Served) -> None:
    family = {process.pid for process in server.family()}
    wrong: dict[str, str] = {}
    with Client(server.inference, timeout=60, retry=ONCE) as client:

        def golden() -> str:
            return client.answer_long("What?", context=CONTEXT, adapter="long@1", sampling=GREEDY).result().text

        before = golden()
        cases = [(what, "short_qa", {}, content, "BAD_PROBE") for what, content in BAD_PROBES.items()]
        cases += [(what, kind, task, None, reason) for what, (kind, task, reason) in BAD_TASKS.items()]
        for number, (what, kind, task, content, reason) in enumerate(cases):
            name = f"hostile-{number}"
            publish(server, name, kind, task, content)
            try:
                ask(client, kind, name)
                wrong[what] = "answered"
            except (PreconditionError, InvalidError) as error:
                if error.reason != reason or "\n" in error.message:
                    wrong[what] = f"{error.reason}: {error.message}"
            except LoradeckError as error:
                wrong[what] = f"{type(error).__name__} {error.reason}: {error.message}"
            assert golden() == before, what
        # The control: with a contract that makes sense it is served.
        publish(server, "hostile-not", "short_qa", {"sampling": {"top_k": 2**31 - 1, "temperature": 2}}, None)
        ask(client, "short_qa", "hostile-not")
    assert not wrong, "\n".join(f"{what}: {said[:200]}" for what, said in wrong.items())
    assert {process.pid for process in server.family()} == family, "processes of the engine came or went"
    with urllib.request.urlopen(f"http://{server.metrics}/metrics", timeout=10) as reply:
        page = reply.read().decode()
    assert "loradeck_engine_restarts_total 0.0" in page
    assert "internal error" not in server.log.read_text()
