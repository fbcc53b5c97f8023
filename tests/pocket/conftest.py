"""Fixtures of the pocket tests."""

from pathlib import Path

import pytest

from tests.pocket.scripts import BASE


@pytest.fixture(scope="session")
def base() -> Path:
    """Folder of the committed pocket base."""
    return BASE
