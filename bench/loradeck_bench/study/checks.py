"""What a study needs before it starts, and the command that brings what is missing."""

import json
import socket
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

from loradeck_bench.children import Child, ChildFailedError
from loradeck_bench.extra import ENGINE, JUDGE, METRICS, PAGES, TRAINING, require
from loradeck_bench.report.units import size
from loradeck_bench.study.format.work import Judged, Served
from loradeck_bench.study.outcomes import Outcome, Outcomes
from loradeck_bench.study.plan import Plan, Planned
from loradeck_bench.study.state import State
from loradeck_registry.errors import PreconditionError


@dataclass(frozen=True)
class Missing:
    """Something that is not there."""

    what: str
    get: str


def missing_parts(plan: Plan, state: State, tell: Callable[[str], None] = lambda line: None) -> list[Missing]:
    """Everything that keeps steps that are left from being done: packages, data, and at scale `full` also weights and
    memory (which asks `loradeck train plan` for every run; `tell` gets what is looked at)."""
    found: list[Missing] = []
    engine, judge = [ENGINE] if plan.study.servers else [], [JUDGE] if plan.judge else []
    for needs in (METRICS, PAGES, TRAINING, *engine, *judge):
        try:
            require(needs)
        except PreconditionError as error:
            found.append(Missing(*_split(error.message)))
    blocked = Counter(one.step.blocked for one in state.steps.values() if one.state == "blocked" and one.step.blocked)
    for why, count in blocked.items():
        what, _, get = why.rpartition(": ")
        found.append(Missing(f"{what}; {count} steps need it" if count > 1 else what, get))
    asked = [one for one in plan.study.evaluations.values() if isinstance(one, Served) and one.embedding]
    if asked and plan.embedding_model is None and plan.place.scale == "full":
        get = "hf download sentence-transformers/all-MiniLM-L6-v2 --local-dir MODEL, then --embedding-model MODEL"
        found.append(Missing("a model for BERTScore and semantic similarity", get))
    judged = {f"evaluations/{name}" for name, one in plan.study.evaluations.items() if isinstance(one, Judged)}
    asks = any(one.step.id in judged for one in state.left())
    if plan.judge is not None and asks and not _answers(plan.judge.endpoint):
        found.append(Missing(f"a judge at {plan.judge.endpoint}: nothing answers there", "start it, or --judge URL"))
    if plan.place.scale == "full":
        found += _missing_weights(plan, state)
        found += _too_small(plan, state, tell)
    return list(dict.fromkeys(found))


def plan_of(plan: Plan, step: Planned, outcomes: Outcomes) -> dict[str, Any]:
    """What `loradeck train plan` says of a run on this machine, asked once. Raises ChildFailedError."""
    known = outcomes.get(f"plans/{step.name}", step.digest)
    if known is not None:
        return dict(known.result)
    run = plan.study.runs[step.name]
    base = plan.study.base_of(run.base)
    parent = plan.study.parent(step.name)
    while parent is not None:
        base = plan.study.base_of(plan.study.runs[parent].base)
        parent = plan.study.parent(parent)
    with TemporaryDirectory() as folder:
        out = Path(folder) / "plan.json"
        arguments = ["train", "plan", plan.recipe(run), "--base", plan.study.bases[base].source, "--json", str(out)]
        for setting in plan.settings(run, without_data=step.blocked is not None):
            arguments += ["--set", setting]
        arguments += ["--batch-sizes", "1"]
        with Child.loradeck(f"plan {step.name}", arguments, Path(folder) / "log", environment={}) as child:
            while child.poll() is None:
                time.sleep(0.1)
            child.check()
        result: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    outcomes.put(f"plans/{step.name}", Outcome(step.digest, result, 0.0, 0.0, ""))
    return result


def _answers(endpoint: str) -> bool:
    """Whether something accepts connections where an endpoint should be."""
    parts = urlsplit(endpoint)
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        with socket.create_connection((parts.hostname or "", port), timeout=5):
            return True
    except (OSError, ValueError):
        return False


def _missing_weights(plan: Plan, state: State) -> list[Missing]:
    found = []
    for one in state.steps.values():
        if not one.step.id.startswith("bases/") or one.state == "done":
            continue
        source = plan.study.bases[one.step.name].source
        kind, _, rest = source.partition(":")
        if kind == "hub" and not _cached(*rest.partition("@")[::2]):
            found.append(Missing(f"weights of {rest}", f"hf download {rest.replace('@', ' --revision ')}"))
        if kind == "dir" and not Path(rest).expanduser().is_dir():
            found.append(Missing(f"the base folder {rest}", f"put the model there, or say --base {one.step.name}=REF"))
    return found


def _cached(name: str, revision: str) -> bool:
    """Whether the hub's local cache has a model's weights."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = snapshot_download(name, revision=revision or None, local_files_only=True)
    except (LocalEntryNotFoundError, OSError, ValueError):
        return False
    return any(Path(folder).glob("*.safetensors"))


def _too_small(plan: Plan, state: State, tell: Callable[[str], None]) -> list[Missing]:
    outcomes = Outcomes(plan.place.outcomes)
    found = []
    for one in state.steps.values():
        if not one.step.id.startswith("runs/") or one.state == "done":
            continue
        tell(f"planning {one.step.name}")
        try:
            figures = plan_of(plan, one.step, outcomes)
        except ChildFailedError as error:
            found.append(Missing(f"a plan of {one.step.name}", error.message.splitlines()[-1]))
            continue
        if not figures["fits"]:
            needed, there = figures["memory"]["peak"], figures["device_memory_bytes"]
            found.append(
                Missing(
                    f"memory for {one.step.name}: {size(needed)} at its peak, {figures['device']} has {size(there)}",
                    "a GPU with so much memory: loradeck train plan "
                    f"{plan.study.runs[one.step.name].recipe} --gpu NAME says which",
                )
            )
    return found


def _split(message: str) -> tuple[str, str]:
    what, _, get = message.partition(": ")
    return what, get


def as_rows(missing: list[Missing]) -> list[dict[str, str]]:
    """For programs."""
    return [asdict(one) for one in missing]
