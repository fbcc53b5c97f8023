"""docs/security.md: its transcript is what callers get, its examples are what servers take."""

import re
from pathlib import Path

import yaml

from loradeck_serve.access.callers import Callers
from loradeck_serve.config import ServerConfig
from tests.serve.access.transcript import Guarded, transcript
from tests.serve.conftest import running
from tests.serve.deck import Deck

DOCUMENT = Path(__file__).parents[3] / "docs" / "security.md"


async def test_documented_refusals_are_what_callers_get(deck: Deck, tmp_path: Path) -> None:
    guarded = Guarded(tmp_path)
    async with running(deck, {"step_seconds": 0.02}, guarded.settings) as server:
        where = server.server.addresses
        lines = await transcript(str(where.inference), str(where.admin), guarded)
    check_documented(lines)


def check_documented(lines: list[str]) -> None:
    """docs/security.md shows these lines, in this order and with nothing between them."""
    block = DOCUMENT.read_text(encoding="utf-8").partition("tests.serve.access.transcript")[2].split("```")[1]
    assert block.strip().splitlines() == lines


def test_documented_settings_are_valid() -> None:
    examples = [yaml.safe_load(t) for t in re.findall(r"```yaml\n(.*?)```", DOCUMENT.read_text("utf-8"), re.DOTALL)]
    assert len(examples) == 2
    for example in examples:
        (Callers if "callers" in example else ServerConfig).model_validate(example)
