"""Where results are written is looked at before the work, and left as it was."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from loradeck_bench.output import ensure_writable
from loradeck_registry.errors import PreconditionError


def test_a_new_result_leaves_no_file_and_an_old_one_stays(tmp_path: Path) -> None:
    old, new = tmp_path / "old.json", tmp_path / "deeper" / "new.json"
    old.write_text("{}")
    ensure_writable(str(old), str(new), None, "-")
    assert old.read_text() == "{}"
    assert new.parent.is_dir()
    assert not new.exists()


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PreconditionError, match="cannot write"):
        ensure_writable(str(tmp_path))


def test_processes_of_one_launch_may_look_at_the_same_time(tmp_path: Path) -> None:
    target = str(tmp_path / "figures.json")
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(ensure_writable, [target] * 4000))
    assert not Path(target).exists()
