"""Secrets are refused wherever something is recorded for ever, and are not repeated in the refusal."""

from pathlib import Path
from typing import Any

import pytest

from loradeck_registry.errors import InvalidError
from loradeck_registry.registry import Registry
from loradeck_registry.secrets import check_no_secret
from tests.registry.support import make_files, make_manifest, objects, push

SECRETS = [
    "hf_" + "a1B2" * 9,
    "AKIA" + "ABCD1234" * 2,
    "ghp_" + "a1B2" * 9,
    "sk-" + "a1B2" * 9,
    "AIza" + "a1B2c" * 7,
    "-----BEGIN EC PRIVATE KEY-----",
    "https://ada:secret@host/data.csv",
]


@pytest.mark.parametrize("secret", SECRETS)
def test_manifest_with_a_secret_is_refused(secret: str, registry: Registry, tmp_path: Path) -> None:
    files = make_files(tmp_path / "a")
    before = objects(registry)
    content: dict[str, Any] = {"recipe": {"data": [{"path": f"see {secret} here"}]}}
    with pytest.raises(InvalidError) as caught:
        registry.push("clf", make_manifest(files, provenance=content), files)
    assert caught.value.reason == "SECRET"
    assert caught.value.field == "manifest.provenance.recipe.data.0.path"
    assert secret not in caught.value.message
    assert objects(registry) == before


def test_notes_and_reasons_are_looked_at_too(registry: Registry, tmp_path: Path) -> None:
    revision = push(registry, tmp_path / "a")
    before = objects(registry)
    with pytest.raises(InvalidError, match="note"):
        registry.attach(revision, "note", {"text": SECRETS[0]})
    with pytest.raises(InvalidError, match="alias"):
        registry.move_alias("clf", "prod", "1", why=SECRETS[3])
    with pytest.raises(InvalidError, match="record"):
        push(registry, tmp_path / "a", seed=2, reason=SECRETS[6])
    after = [key for key in objects(registry) if not key.startswith("leases/")]
    assert after == before


@pytest.mark.parametrize(
    "text",
    ["sha256:" + "ab" * 32, "https://host/data.csv", "hub:org/hf_model", "a:b@c", "task-" + "x" * 60, "s3://bucket/a"],
)
def test_what_is_none_passes(text: str) -> None:
    check_no_secret({"a": [text]}, "manifest")
