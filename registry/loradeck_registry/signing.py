"""Signatures over revisions with OpenSSF model signing: who may be trusted, signing with a key, verifying."""

import json
import logging
import os
import tempfile
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from loradeck_registry.errors import InvalidError, NotFoundError, PreconditionError

Policy = Literal["require", "warn", "off"]
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trust:
    """What is asked of revisions before their files are used.

    `require` refuses what has no signature by one of `public_keys` (PEM files of EC keys), `warn` logs it.
    """

    policy: Policy = "off"
    public_keys: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        if self.policy not in ("require", "warn", "off"):
            raise InvalidError(f"bad signature policy {self.policy!r}: require, warn or off", field="signatures")
        if self.policy != "off" and not self.public_keys:
            raise PreconditionError(
                f"signatures are to be verified (policy {self.policy}), but no public key is given: set "
                "LORADECK_PUBLIC_KEYS to PEM files",
                reason="NO_PUBLIC_KEY",
            )
        for key in self.public_keys:
            if not key.is_file():
                raise NotFoundError(f"no public key file {key}", reason="NO_PUBLIC_KEY")

    @classmethod
    def from_environment(cls) -> "Trust":
        """LORADECK_SIGNATURES (require, warn, off) and LORADECK_PUBLIC_KEYS (files, separated as in PATH)."""
        policy = os.environ.get("LORADECK_SIGNATURES") or "off"
        keys = [Path(text) for text in os.environ.get("LORADECK_PUBLIC_KEYS", "").split(os.pathsep) if text]
        return cls(cast(Policy, policy), tuple(keys) if policy != "off" else ())

    def check(self, what: str, folder: Path, signatures: Iterable[Mapping[str, Any]], scratch: Path) -> None:
        """Verify that the files in `folder` are signed. Raises PreconditionError (SIGNATURE_MISSING, SIGNATURE_INVALID)
        where the policy is `require`. `scratch` is an empty folder for use."""
        if self.policy == "off":
            return
        failure = self._failure(what, folder, list(signatures), scratch)
        if failure is None:
            return
        if self.policy == "require":
            raise failure
        _log.warning("%s", failure.message)

    def _failure(
        self, what: str, folder: Path, signatures: list[Mapping[str, Any]], scratch: Path
    ) -> PreconditionError | None:
        if not signatures:
            return PreconditionError(
                f"{what} is not signed, and signatures are required: sign it with `loradeck registry sign`",
                reason="SIGNATURE_MISSING",
            )
        path = scratch / "model.sig"
        for signature in signatures:
            path.write_text(json.dumps(signature["bundle"]))
            if any(_verifies(folder, path, key) for key in self.public_keys):
                return None
        return PreconditionError(
            f"no signature of {what} is valid under the trusted keys: another key signed it, or files have changed",
            reason="SIGNATURE_INVALID",
        )


def check_key(key: Path, password: str | None = None) -> None:
    """Sign a file of a few bytes, so that a key that cannot sign is refused before anything is published.

    Raises as `sign_folder`.
    """
    with tempfile.TemporaryDirectory() as place:
        folder, scratch = Path(place, "files"), Path(place, "signature")
        folder.mkdir()
        scratch.mkdir()
        (folder / "file").write_text("signed to try the key")
        sign_folder(folder, key, scratch, password)


def sign_folder(folder: Path, key: Path, scratch: Path, password: str | None = None) -> dict[str, Any]:
    """The content of a signature over all files in `folder`, made with the EC private key in the PEM file `key`.

    Raises PreconditionError (SIGN_PACKAGE_MISSING), InvalidError for what is not such a key or a wrong password.
    """
    if not key.is_file():
        raise NotFoundError(f"no key file {key}", field="key")
    signing, _ = _model_signing()
    path = scratch / "model.sig"
    try:
        # The library annotates a string here and passes it on to what takes bytes.
        secret = password.encode() if password is not None else None
        config = signing.Config().use_elliptic_key_signer(private_key=key, password=secret)
    except (ValueError, TypeError) as error:
        raise InvalidError(
            f"{key.name} is not an EC private key (P-256, P-384 or P-521, PEM), or its password is wrong", field="key"
        ) from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config.sign(folder, path)
    return {"bundle": json.loads(path.read_bytes()), "method": "ec-key"}


def _verifies(folder: Path, signature: Path, key: Path) -> bool:
    _, verifying = _model_signing()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            verifying.Config().use_elliptic_key_verifier(public_key=key).verify(folder, signature)
    except Exception as error:
        # The library raises many kinds for what is not valid; whatever it is, this is no proof.
        _log.debug("signature does not verify: %s", error)
        return False
    return True


def _model_signing() -> tuple[Any, Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from model_signing import signing, verifying
    except ImportError as error:
        raise PreconditionError(
            "signatures need the package model-signing: pip install 'loradeck[sign]'", reason="SIGN_PACKAGE_MISSING"
        ) from error
    return signing, verifying
