"""Mutated registry objects for the registry's reader: it says what is wrong in one line, or reads on."""

import hashlib
import json
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil

from loradeck_bench.fuzz.mutation import mutated
from loradeck_bench.fuzz.sending import Account
from loradeck_bench.fuzz.telling import inner_text
from loradeck_registry import layout
from loradeck_registry.errors import Kind, LoradeckError
from loradeck_registry.registry import Registry
from loradeck_tasks.stored import stored_probe, stored_task

HANG_SECONDS = 10.0
_WARM = 0.2
_LOOKS = 60
_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1e308, 10**30, "", "x", "../..", "sha256:", "sha256:" + "0" * 64, "\x00", [], {}, [[]],
    {"a": {}}, "2026-99-99T00:00:00Z", float("nan"),
)  # fmt: skip


def fuzz_registry(
    registry: Path, scratch: Path, *, objects: int, seed: int, progress: Callable[[int], None] = lambda _: None
) -> Account:
    """Change one object of a copy of `registry` at a time, read it in every way, and put it back.

    Crashes are exceptions that are no LoradeckError, and errors of kind INTERNAL.
    """
    account, chance = Account(), random.Random(seed)
    folder = scratch / "registry"
    shutil.copytree(registry, folder)
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    small = [path for path in found if path.relative_to(folder).parts[0] != "blobs"]
    process, every = psutil.Process(), max(1, objects // _LOOKS)
    for number in range(objects):
        # Files of adapters are only bytes with a digest; what is parsed is everything else.
        path = chance.choice(small if chance.random() < 0.95 else found)
        with _changed(path, folder, chance) as what:
            for name, read in _reads(folder, scratch / "cache", chance):
                _try(f"{name} with {what}", read, account)
        account.requests += 1
        if number % every == 0:
            progress(number)
            if number >= objects * _WARM:
                account.looks.append(process.memory_info().rss)
    return account


@contextmanager
def _changed(path: Path, folder: Path, chance: random.Random) -> Iterator[str]:
    """The object changed; sometimes gone, sometimes a manifest that its revision's record agrees with."""
    before, mode = path.read_bytes(), path.stat().st_mode
    others: dict[Path, bytes] = {}
    os.chmod(path, 0o644)
    content = _content(before, chance)
    what = str(path.relative_to(folder))
    made: Path | None = None
    try:
        if chance.random() < 0.03:
            path.unlink()
        elif what.startswith(layout.MANIFESTS) and chance.random() < 0.7:
            # As whoever may write revisions could do: content that is what its digest says.
            digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
            made = folder / layout.manifest(digest)
            made.parent.mkdir(parents=True, exist_ok=True)
            made.write_bytes(content)
            old = f"sha256:{path.name}"
            for record in (folder / layout.REVISIONS).rglob("*.json"):
                text = record.read_bytes()
                if old.encode() in text:
                    others[record] = text
                    os.chmod(record, 0o644)
                    record.write_bytes(text.replace(old.encode(), digest.encode()))
        else:
            path.write_bytes(content)
        yield f"{what}: {content[:120]!r}"
    finally:
        if made is not None and made != path:
            made.unlink(missing_ok=True)
        for record, text in others.items():
            record.write_bytes(text)
        path.write_bytes(before)
        os.chmod(path, mode)


def _content(before: bytes, chance: random.Random) -> bytes:
    kind = chance.random()
    if kind < 0.35:
        return mutated(before, chance)
    if kind < 0.4:
        return chance.choice(
            (b"", b"null", b"[]", b"{}", b"0", b'""', b"[" * 50_000, b'{"a":' * 5_000, b"\xff\xfe", b"NaN")
        )
    try:
        value = json.loads(before)
    except ValueError:
        return mutated(before, chance)
    for _ in range(chance.choice((1, 1, 2, 4))):
        value = _mutate(value, chance)
    return json.dumps(value).encode()


def _mutate(value: Any, chance: random.Random) -> Any:
    """One thing inside changed."""
    if isinstance(value, dict) and value and chance.random() < 0.85:
        key = chance.choice(list(value))
        kind = chance.random()
        if kind < 0.15:
            return {name: item for name, item in value.items() if name != key}
        if kind < 0.25:
            return {**value, chance.choice(("extra", "", "__class__", "digest", key + "x")): chance.choice(_VALUES)}
        return {**value, key: _mutate(value[key], chance)}
    if isinstance(value, list) and value and chance.random() < 0.85:
        where = chance.randrange(len(value))
        if chance.random() < 0.2:
            return value[:where] + value[where + 1 :] if chance.random() < 0.5 else [*value, value[where]]
        return [*value[:where], _mutate(value[where], chance), *value[where + 1 :]]
    if isinstance(value, str) and value and chance.random() < 0.4:
        return mutated(value.encode(), chance).decode(errors="replace")
    return chance.choice(_VALUES)


def _reads(folder: Path, cache: Path, chance: random.Random) -> Iterator[tuple[str, Callable[[], object]]]:
    """Every way in which a server or a command reads. Each is tried whatever came of the others."""
    opened: list[Registry] = []

    def begin() -> None:
        opened.append(Registry.open(folder, cache=cache))

    yield "open", begin
    if not opened:
        return
    registry = opened[0]
    names = ["clf", "short", "long", "free"]
    name = chance.choice(names)
    yield "names", registry.names
    yield "aliases", lambda: registry.aliases(name)
    yield "revisions", lambda: registry.revisions(name)
    yield "history", lambda: registry.history(name, "prod")
    yield "rules", lambda: registry.rules(name, "prod")
    yield "changes", lambda: registry.changes(datetime.now(UTC) - timedelta(minutes=10))
    yield "members", registry.members
    yield "moves", lambda: [registry.intent(move) for move in registry.open_moves()]
    if chance.random() < 0.05:
        yield "verify", registry.verify
        yield "collect", registry.collect
    for reference in (name, f"{name}@prod", f"{name}@1"):

        def resolve(reference: str = reference) -> None:
            revision = registry.resolve(reference)
            registry.record(revision)
            for kind in ("evaluation", "note", "signature"):
                registry.attachments(revision, kind)
            registry.tags(revision)
            registry.metrics(revision)
            if revision.manifest.task is not None:
                stored_task(revision.manifest.task, str(revision))
            if revision.manifest.probe is not None:
                stored_probe(revision.manifest.probe, str(revision))
            if chance.random() < 0.2:
                registry.local(revision)

        yield f"resolve {reference}", resolve


def _try(what: str, read: Callable[[], object], account: Account) -> None:
    begin = time.monotonic()
    try:
        read()
    except LoradeckError as error:
        account.codes[error.reason] += 1
        if error.kind is Kind.INTERNAL:
            account.crashes.append(f"{what}: {error.message}")
        if "\n" in error.message or inner_text(error.message, what + str(Path.cwd())) is not None:
            told = inner_text(error.message, what)
            if told is None or not told.startswith("/"):
                # Whoever reads a registry on this machine may see where it lies; a server hides it from its callers.
                account.leaked.append(f"{what}: {error.message}")
    except Exception as error:
        account.crashes.append(f"{what}: {type(error).__name__}: {str(error)[:300]}")
    else:
        account.codes["OK"] += 1
    seconds = time.monotonic() - begin
    if seconds > HANG_SECONDS:
        account.hangs.append(f"{what}: {seconds:.0f} s")
