"""What the demo does: trainings, sizes of the measurements, names of the steps."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import loradeck_pocket

POCKET = "pocket"
"""Name of the pocket base in the demo's registry."""

STEPS = (
    "Make a registry and add the base",
    "Train and publish three adapters and a full checkpoint",
    "Serve the base with its adapters",
    "Ask each task",
    "Evaluate base and LoRA",
    "Train a second revision of the classifier",
    "Move the alias while a load runs",
    "Load test",
    "Serve and evaluate the full checkpoint",
    "Write the report",
)


@dataclass(frozen=True)
class Training:
    """One run of `loradeck train run`."""

    recipe: str
    publish: str
    """`name` or `name@alias`."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Recipe keys that differ from the recipe."""


@dataclass(frozen=True)
class DemoPlan:
    """Everything that can differ between two demos."""

    base: str = f"dir:{loradeck_pocket.BASE}"
    """As `loradeck registry add-base` takes it."""
    base_name: str = POCKET
    output: Path = Path("build/demo")
    quick: bool = False
    """A smoke run: few training steps and small samples; its figures mean nothing and are labelled so."""
    rate: float = 6.0
    """Requests per second of the load test."""
    load_seconds: float = 30.0
    swap_rate: float = 10.0
    concurrency: int = 16
    """Requests under way while evaluating."""
    seed: int = 0

    @property
    def trainings_at_once(self) -> int:
        """Two small trainings side by side use two cores better than one after the other; a large base goes alone."""
        return 2 if self.base_name == POCKET else 1

    @property
    def sample(self) -> int | None:
        """Rows per evaluation; None is the whole test set."""
        return 36 if self.quick else None

    @property
    def adapters(self) -> dict[str, Training]:
        """The LoRA adapters of the first steps, by the name of the child process."""
        return {
            "train clf": self._training("pocket/clf-lora", "clf@prod"),
            "train qa-short": self._training("pocket/qa-short-lora", "qa-short@prod"),
            "train qa-long": self._training("pocket/qa-long-lora", "qa-long@prod"),
        }

    @property
    def full(self) -> Training:
        """The full checkpoint."""
        return self._training("pocket/clf-full", "clf-full@prod")

    @property
    def second(self) -> Training:
        """The second revision of the classifier: another seed, and one epoch only, to save time."""
        return self._training("pocket/clf-lora", "clf", {"seed": "1", "optimisation.epochs": "1"})

    def _training(self, recipe: str, publish: str, settings: Mapping[str, str] | None = None) -> Training:
        changes = dict(settings or {})
        if self.base_name != POCKET:
            # The recipes' rates are for the pocket base of 5 million parameters; these are usual for 1 to 8 billion.
            changes["optimisation.learning_rate"] = "2e-5" if recipe.endswith("-full") else "3e-4"
        if self.quick:
            changes |= {"optimisation.max_steps": "4", "optimisation.epochs": "null"}
        return Training(recipe, publish, changes)


TASKS = {"classification": "clf@prod", "short_qa": "qa-short@prod", "long_qa": "qa-long@prod"}
"""Task to the adapter that was trained for it."""
FULL = "clf-full"


def name_of_base(reference: str) -> str:
    """A registry name for a base given as `org/name`, `hub:org/name@revision` or `dir:folder`."""
    last = reference.partition("@")[0].rstrip("/").rpartition("/")[2].rpartition(":")[2]
    return re.sub(r"[^a-z0-9._-]+", "-", last.lower()).strip("-._")[:63] or "base"
