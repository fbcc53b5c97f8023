"""A small study of the project's own data, its plan, and outcomes as if its steps had been done."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from loradeck_bench.study.files import load_study
from loradeck_bench.study.outcomes import Outcome, Outcomes
from loradeck_bench.study.place import Place
from loradeck_bench.study.plan import Judge, Plan
from loradeck_train.recipe.files import load_recipe

Tree = dict[str, Any]


def resolve(text: str, sets: Sequence[str]) -> Mapping[str, Any]:
    """As the command resolves recipes."""
    return load_recipe(text, sets=sets).model_dump(mode="json", exclude_none=True)


@pytest.fixture
def tree() -> Tree:
    """A study with a LoRA, a full checkpoint, an adapter on it, and evaluations of each."""
    own = {"train": "pocket:classification", "test": "pocket:classification"}
    served = {"kind": "served", "task": "classification", "data": "texts", "limit": 18}
    return {
        "title": "a small study",
        "about": "nine classes",
        "published": "econ-it",
        "bases": {"main": {"source": "pocket:base"}},
        "data": {"texts": {"what": "nine classes", "sources": [own]}},
        "runs": {
            "lora": {"recipe": "pocket/clf-lora", "data": "texts", "seconds": 30},
            "full": {"recipe": "pocket/clf-full", "data": "texts", "seconds": 50},
            "on-full": {"recipe": "pocket/clf-lora", "base": "run:full", "data": "texts"},
        },
        "servers": {"main": {"base": "main"}, "full": {"base": "run:full"}},
        "evaluations": {
            "lora": {**served, "server": "main", "of": "lora", "seconds": 10},
            "base": {**served, "server": "main"},
            "full": {**served, "server": "full", "of": "full"},
            "tests": {"kind": "compare", "of": ["lora", "full"]},
            "judged": {"kind": "judge", "of": "lora"},
        },
        "tables": [
            {
                "id": "table-7",
                "title": "LoRA by class",
                "corner": "class",
                "columns": [
                    {"name": "f1-score", "key": "f1", "show": "number", "digits": 2},
                    {"name": "support", "key": "support"},
                ],
                "rows": [
                    {"name": "AI", "of": "evaluations/lora/report/AI"},
                    {"name": "EdTech", "of": "evaluations/full/report/EdTech", "differs": "of the full checkpoint"},
                ],
            }
        ],
        "figures": [
            {
                "id": "figure-2",
                "title": "accuracy",
                "kind": "bars",
                "groups": [{"name": "accuracy", "key": "accuracy", "published": "accuracy/f1-score"}],
                "series": [{"name": "LoRA", "of": "evaluations/lora", "published": "table-7"}],
            }
        ],
        "scales": {"pocket": {}, "full": {"bases": {"main": {"source": "hub:Qwen/Qwen2-7B"}}}},
    }


@pytest.fixture
def write(tmp_path: Path) -> Callable[[Tree], Path]:
    """Write a study as a file."""

    def written(content: Tree) -> Path:
        path = tmp_path / "small.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return path

    return written


@pytest.fixture
def planned(tmp_path: Path, write: Callable[[Tree], Path]) -> Callable[..., Plan]:
    """The plan of a study."""

    def made(content: Tree, scale: Any = "pocket", judge: Judge | None = None) -> Plan:
        path = write(content)
        return Plan(load_study(path, scale), path, Place(tmp_path / "work", path.stem, scale), resolve, judge)

    return made


def put(plan: Plan, step: str, result: Mapping[str, Any], seconds: float = 5.0, wall: float = 6.0) -> None:
    """Keep an outcome of a step."""
    digest = plan.steps[step].digest
    Outcomes(plan.place.outcomes).put(step, Outcome(digest, result, seconds, wall, "2026-01-01T00:00:00"))


REPORT = {
    "accuracy": 0.5,
    "intervals": {"accuracy": [0.3, 0.7]},
    "methods": {"accuracy": "counted"},
    "report": [{"name": "AI", "precision": 0.4, "f1": 0.456, "support": 2, "intervals": {"f1": [0.2, 0.9]}}],
}
"""A result as `eval run` writes it for a classification."""
