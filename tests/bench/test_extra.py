"""A missing extra is named, with what to install."""

import pytest

from loradeck_bench import extra
from loradeck_registry.errors import PreconditionError


def test_missing_module_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extra, "find_spec", lambda name: None if name == "sacrebleu" else object())
    with pytest.raises(PreconditionError, match=r"this needs sacrebleu: install the extra bench.*pip install"):
        extra.require(extra.METRICS, extra.PAGES)


def test_installed_modules_are_fine() -> None:
    extra.require(extra.METRICS, extra.PAGES)
