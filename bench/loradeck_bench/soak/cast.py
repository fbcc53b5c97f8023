"""Who plays in a soak: good adapters with the answers they must give, and adapters that no server may serve."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from loradeck_bench.asking import Asker, connect
from loradeck_bench.load.plan import Subject
from loradeck_bench.load.record import RequestRecord
from loradeck_bench.serving.flips import choose_prompts
from loradeck_bench.serving.prompts import make_prompts, prompt_subjects
from loradeck_bench.serving.stage import Stage
from loradeck_bench.soak.plan import SoakPlan
from loradeck_registry.files import describe
from loradeck_registry.registry import Revision
from loradeck_registry.servability.adapter import MODEL
from loradeck_tasks.defaults import default_task

ALIAS = "prod"


@dataclass(frozen=True)
class Cast:
    """`turned`: revisions of the adapters that are moved between different answers, by name. `bad`: the reason with
    which each of these references must be refused."""

    names: tuple[str, ...]
    turned: Mapping[str, Sequence[Revision]]
    bad: Mapping[str, str]
    initial: Mapping[str, Revision]
    """What each name means at first."""

    @property
    def flooded(self) -> str:
        """The adapter of the caller that floods."""
        return self.names[-1]

    @property
    def steady(self) -> tuple[str, ...]:
        """What the steady caller asks: the base, and aliases of all the others."""
        return ("", *(f"{name}@{ALIAS}" for name in self.names[:-1]))


@dataclass(frozen=True)
class Script:
    """Prompts, and what each digest (empty: the base) must answer to them, alone and at length."""

    prompts: Sequence[str]
    short: Mapping[tuple[str, int], str]
    long: Mapping[tuple[str, int], str]
    """The same beginning, further; only of what is asked at length."""


def publish(place: Stage, plan: SoakPlan) -> Cast:
    """Publish everything."""
    task = default_task("generate")
    names = tuple(f"soak-{number:02d}" for number in range(plan.adapters))
    initial = {name: place.publish(name, task, number, alias=ALIAS) for number, name in enumerate(names)}
    turned = {
        name: [
            initial[name],
            *(place.publish(name, task, 1000 * turn + number) for turn in range(1, plan.revisions)),
        ]
        for number, name in enumerate(names[plan.copied : plan.copied + plan.turned])
    }
    poisoned = _publish_poisoned(place)
    bad = {str(poisoned): "NOT_FINITE", "soak-unknown": "NAME_NOT_FOUND", f"{names[0]}@99999": "REVISION_NOT_FOUND"}
    return Cast(names, turned, bad, initial)


async def rehearse(address: str, place: Stage, cast: Cast, plan: SoakPlan) -> Script:
    """What everybody answers to a lone request, on the server at `address`."""
    candidates = [prompt.text for prompt in make_prompts(place.base.folder, 8 * plan.prompts, plan.prompt_tokens)]
    revisions = {str(r): r for r in (*cast.initial.values(), *(r for rs in cast.turned.values() for r in rs))}
    references = ["", *revisions]
    async with connect(address) as client:
        subjects = prompt_subjects(references, candidates, plan.tokens)
        prompts, short = await choose_prompts(Asker(client, subjects), subjects, plan.prompts)
        lengthy = prompt_subjects(["", str(cast.initial[cast.names[-2]])], prompts, plan.long_tokens)
        long = await _answers(Asker(client, lengthy), lengthy, len(prompts))
    return Script(prompts, short, long)


async def _answers(ask: Asker, subjects: Mapping[str, Subject], rows: int) -> dict[tuple[str, int], str]:
    found = {}
    for reference in subjects:
        for row in range(rows):
            record = RequestRecord(row, reference, "generate", row, 0.0)
            await ask(record, lambda: 0.0)
            found[record.digest, row] = record.text
    return found


def _publish_poisoned(place: Stage) -> Revision:
    """An adapter with a weight that is not a number, as somebody pushes it who does not check."""
    import numpy as np
    from safetensors.numpy import load_file, save_file

    good = place.publish("soak-poisoned", default_task("generate"), 999)
    folder = place.registry.local(good)
    with tempfile.TemporaryDirectory(prefix="loradeck-poisoned-") as made:
        weights = Path(made) / MODEL
        tensors = load_file(folder / MODEL)
        first = next(iter(tensors))
        tensors[first] = tensors[first].copy()
        tensors[first].flat[0] = np.nan
        save_file(tensors, weights, metadata={"format": "pt"})
        files = {file.path: weights if file.path == MODEL else folder / file.path for file in good.manifest.files}
        manifest = good.manifest.model_copy(update={"files": describe(files)})
        return place.registry.push(good.name, manifest, files)
