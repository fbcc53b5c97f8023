"""What may be pushed: plain files, safetensors weights, no pickles, no links."""

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from loradeck_registry.errors import InvalidError, NotFoundError
from loradeck_registry.files import check_file, describe, folder_files


def _zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("data.pkl", pickle.dumps([1]))
    return buffer.getvalue()


@pytest.mark.parametrize(
    "name", ["model.bin", "model.pt", "MODEL.PTH", "state.pkl", "last.ckpt", "rows.npy", "a/b.pickle"]
)
def test_pickle_is_refused_by_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / "content"
    path.write_text("harmless")
    check_file("notes.txt", path)
    with pytest.raises(InvalidError) as caught:
        check_file(name, path)
    assert caught.value.reason == "PICKLE"


@pytest.mark.parametrize("content", [_zip(), *(pickle.dumps({"a": 1}, protocol=p) for p in (2, 3, 4, 5))])
def test_pickle_is_refused_by_content(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "weights.model"
    path.write_bytes(content)
    with pytest.raises(InvalidError) as caught:
        check_file("weights.model", path)
    assert caught.value.reason == "PICKLE"


def test_pickle_named_safetensors_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(_zip())
    with pytest.raises(InvalidError) as caught:
        check_file("model.safetensors", path)
    assert caught.value.reason == "NOT_SAFETENSORS"


def test_empty_tensor_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "adapter_model.safetensors"
    save_file({"a": np.ones((2, 2), np.float32)}, path)
    check_file("adapter_model.safetensors", path)
    save_file({"a": np.ones((2, 2), np.float32), "b": np.ones((0, 8), np.float32)}, path)
    with pytest.raises(InvalidError, match="tensor b is empty") as caught:
        check_file("adapter_model.safetensors", path)
    assert caught.value.reason == "EMPTY_TENSOR"


def test_link_is_refused_wherever_it_is(tmp_path: Path) -> None:
    secret = tmp_path / "secret.json"
    secret.write_text("{}")
    folder = tmp_path / "adapter"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "x.json").symlink_to(secret)
    with pytest.raises(InvalidError) as caught:
        folder_files(folder)
    assert caught.value.reason == "SYMLINK"
    with pytest.raises(InvalidError) as caught:
        describe({"x.json": folder / "inner" / "x.json"})
    assert caught.value.reason == "SYMLINK"


def test_linked_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "x.json").write_text("{}")
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "inner").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InvalidError) as caught:
        folder_files(tmp_path / "adapter")
    assert caught.value.reason == "SYMLINK"


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x", ".x", "a//b", "a\\b", "ä", "", "a\n"])
def test_path_that_leaves_the_revision_is_refused(tmp_path: Path, path: str) -> None:
    (tmp_path / "x").write_text("x")
    with pytest.raises(InvalidError) as caught:
        check_file(path, tmp_path / "x")
    assert caught.value.reason == "BAD_PATH"


def test_hidden_files_stay_at_home(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "config").write_text("x")
    (tmp_path / "a.json").write_text("{}")
    assert set(folder_files(tmp_path)) == {"a.json"}


def test_absent_and_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        folder_files(tmp_path / "absent")
    with pytest.raises(InvalidError, match="no files"):
        folder_files(tmp_path)
