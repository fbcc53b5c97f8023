"""docs/security.md: its transcript is what callers get, its examples are what servers take."""

import re
from pathlib import Path

import yaml

from loradeck_serve.access.callers import Callers
from loradeck_serve.config import ServerConfig
from tests.serve.access.transcript import transcript
from tests.serve.deck import Deck

DOCUMENT = Path(__file__).parents[3] / "docs" / "security.md"


async def test_documented_refusals_are_what_callers_get(deck: Deck, tmp_path: Path) -> None:
    lines = await transcript(deck, tmp_path)
    shown = DOCUMENT.read_text(encoding="utf-8")
    for line in lines:
        assert line in shown, f"docs/security.md shows another line than: {line}"


def test_documented_settings_are_valid() -> None:
    examples = [yaml.safe_load(t) for t in re.findall(r"```yaml\n(.*?)```", DOCUMENT.read_text("utf-8"), re.DOTALL)]
    assert len(examples) == 2
    for example in examples:
        (Callers if "callers" in example else ServerConfig).model_validate(example)
