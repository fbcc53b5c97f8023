"""Signatures: what is signed is used, and nothing else where they are required."""

import json
import logging
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from loradeck_registry import layout
from loradeck_registry.errors import DamagedError, InvalidError, NotFoundError, PreconditionError
from loradeck_registry.registry import Registry, Revision
from loradeck_registry.signing import Trust
from tests.registry.support import content, flip, overwrite, push

pytest.importorskip("model_signing", reason="needs the sign extra")


@pytest.fixture
def registry(folder_registry: Registry) -> Registry:
    """One kind of store will do here."""
    return folder_registry


def make_key(folder: Path, name: str, password: bytes | None = None) -> tuple[Path, Path]:
    """Private and public PEM files of a new key."""
    key = ec.generate_private_key(ec.SECP256R1())
    protection: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password is not None:
        protection = serialization.BestAvailableEncryption(password)
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection))
    public.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return private, public


@pytest.fixture
def key(tmp_path: Path) -> tuple[Path, Path]:
    """A key pair."""
    return make_key(tmp_path, "ours")


@pytest.fixture
def revision(registry: Registry, tmp_path: Path) -> Revision:
    """One pushed revision, not signed."""
    return push(registry, tmp_path / "a")


def _strict(registry: Registry, public: Path, cache: Path) -> Registry:
    return Registry.open(registry.url, cache=cache, trust=Trust("require", (public,)))


def test_signed_revision_is_used(
    registry: Registry, revision: Revision, key: tuple[Path, Path], tmp_path: Path
) -> None:
    registry.sign(revision, key[0], who="ada")
    strict = _strict(registry, key[1], tmp_path / "c")
    assert strict.resolve("clf").digest == revision.digest
    assert (strict.local(revision) / "adapter_model.safetensors").is_file()
    strict.pull(revision, tmp_path / "out")
    assert (tmp_path / "out" / "manifest.json").is_file()


def test_missing_signature_is_refused(
    registry: Registry, revision: Revision, key: tuple[Path, Path], tmp_path: Path
) -> None:
    strict = _strict(registry, key[1], tmp_path / "c")
    for action in (strict.local, lambda r: strict.pull(r, tmp_path / "out")):
        with pytest.raises(PreconditionError) as caught:
            action(revision)
        assert caught.value.reason == "SIGNATURE_MISSING"
    assert not (tmp_path / "out").exists()
    registry.sign(revision, key[0])
    assert strict.local(revision).is_dir()


def test_another_key_is_refused_unless_trusted_too(
    registry: Registry, revision: Revision, key: tuple[Path, Path], tmp_path: Path
) -> None:
    private, public = make_key(tmp_path, "theirs")
    registry.sign(revision, private)
    with pytest.raises(PreconditionError) as caught:
        _strict(registry, key[1], tmp_path / "c").local(revision)
    assert caught.value.reason == "SIGNATURE_INVALID"
    both = Registry.open(registry.url, cache=tmp_path / "d", trust=Trust("require", (key[1], public)))
    assert both.local(revision).is_dir()


def test_signature_of_another_revision_is_refused(
    registry: Registry, revision: Revision, key: tuple[Path, Path], tmp_path: Path
) -> None:
    other = push(registry, tmp_path / "b", seed=1)
    signature = registry.sign(other, key[0])
    registry.attach(revision, "signature", signature.content)
    with pytest.raises(PreconditionError) as caught:
        _strict(registry, key[1], tmp_path / "c").local(revision)
    assert caught.value.reason == "SIGNATURE_INVALID"


def test_changed_file_and_changed_signature_are_refused(
    registry: Registry, revision: Revision, key: tuple[Path, Path], tmp_path: Path
) -> None:
    registry.sign(revision, key[0])
    strict = _strict(registry, key[1], tmp_path / "c")
    signature = layout.numbered(layout.attachments(revision.digest, "signature"), 1)
    record = json.loads(content(registry, signature))
    envelope = record["content"]["bundle"]["dsseEnvelope"]
    good = envelope["payload"]
    envelope["payload"] = good[:-8] + ("A" if good[-8] != "A" else "B") + good[-7:]
    overwrite(registry, signature, json.dumps(record).encode())
    with pytest.raises(PreconditionError) as caught:
        strict.local(revision)
    assert caught.value.reason == "SIGNATURE_INVALID"
    flip(registry, layout.blob(revision.manifest.files[-1].sha256))
    with pytest.raises(DamagedError):
        _strict(registry, key[1], tmp_path / "d").local(revision)


def test_warn_goes_on_and_says_so(
    registry: Registry, revision: Revision, key: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    warning = Registry.open(registry.url, trust=Trust("warn", (key[1],)))
    with caplog.at_level(logging.WARNING):
        assert warning.local(revision).is_dir()
    assert "not signed" in caplog.text


def test_policy_comes_from_the_environment(
    registry: Registry, revision: Revision, key: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORADECK_SIGNATURES", "require")
    with pytest.raises(PreconditionError, match="LORADECK_PUBLIC_KEYS"):
        Registry.open(registry.url)
    monkeypatch.setenv("LORADECK_PUBLIC_KEYS", str(key[1]))
    with pytest.raises(PreconditionError, match="not signed"):
        Registry.open(registry.url).local(revision)
    monkeypatch.setenv("LORADECK_SIGNATURES", "sometimes")
    with pytest.raises(InvalidError):
        Registry.open(registry.url)


def test_bad_keys_are_named(registry: Registry, revision: Revision, key: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match=r"ours\.pub"):
        registry.sign(revision, key[1])
    with pytest.raises(NotFoundError):
        registry.sign(revision, tmp_path / "absent")
    with pytest.raises(NotFoundError):
        Trust("require", (tmp_path / "absent",))
    private, public = make_key(tmp_path, "locked", b"open sesame")
    with pytest.raises(InvalidError):
        registry.sign(revision, private, password="wrong")
    registry.sign(revision, private, password="open sesame")
    assert _strict(registry, public, tmp_path / "c").local(revision).is_dir()
