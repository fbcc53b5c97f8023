"""The registry: reachable, readable, writable, its clock, the base, the pinned adapters, the keys of signatures."""

import os
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import loradeck_pocket
from loradeck_cli.doctoring.check import Check, Result, examine
from loradeck_registry import layout
from loradeck_registry.collection import leases
from loradeck_registry.reference import BaseReference
from loradeck_registry.registry import Registry
from loradeck_registry.signing import Trust
from loradeck_registry.stores.addresses import open_store

if TYPE_CHECKING:
    from loradeck_serve.config import ServerConfig

SLOW_SECONDS = 1.0
SKEW_SECONDS = 30.0
"""Leases and change markers carry times: clocks that differ by more than they allow for let gc take what is in use."""
LEASE_SECONDS = 60.0
RACERS = 8


def registry(url: str, write: bool, config: "ServerConfig | None") -> Iterator[Check]:
    """Checks of the registry at `url`. `write` also takes short leases and gives them back."""
    opened: list[Registry] = []

    def look() -> Result:
        begin = time.monotonic()
        opened.append(Registry.open(url))
        seconds = time.monotonic() - begin
        found = f"{opened[0].url}, opened in {seconds * 1000:.0f} ms"
        if seconds > SLOW_SECONDS:
            return "warning", found, "every load waits for it: use a store nearer to the server"
        return "ok", found

    yield from examine("registry", [("reachable", look), ("signatures", signatures)])
    if not opened:
        return
    found = opened[0]
    yield from examine("registry", [("names", partial(names, found))])
    if write:
        yield from examine("registry", [("writable", partial(writable, url)), ("racing", partial(racing, url))])
    if config is not None:
        yield from examine("registry", [("base", partial(base, config.base, found))])
        pins = [(f"pin {pin}", partial(pinned, pin, found, config.max_rank)) for pin in config.pins]
        yield from examine("registry", pins)


def names(found: Registry) -> Result:
    """That it can be listed."""
    count = len(found.names())
    if not count:
        return "warning", "no revisions yet", "publish one: loradeck train run … --publish NAME, or registry push"
    return "ok", f"{count} name{'s' if count > 1 else ''}"


def writable(url: str) -> Result:
    """Take a lease and give it back: creating, reading, deleting, and the store's clock."""
    store = open_store(url)
    begin = datetime.now(UTC)
    with leases.take(store, f"doctor-{uuid.uuid4().hex}", [], ttl=LEASE_SECONDS) as lease:
        times = [changed for key, _, changed in store.items(layout.LEASES) if lease.holder in key]
    if not times:
        return "failed", "a lease that was written does not show in the listing", "use a store that lists at once"
    skew = (times[0] - begin).total_seconds()
    if any(lease.holder in key for key, _ in store.keys(layout.LEASES)):
        return "warning", "objects are made but not deleted", "leases then stay until gc removes them: allow deleting"
    if abs(skew) > SKEW_SECONDS:
        return "failed", f"its clock is {skew:+.0f} s from this machine's", "set both by NTP: leases carry times"
    return "ok", f"created, listed, deleted; its clock is within {max(abs(skew), 1):.0f} s of this machine's"


def racing(url: str) -> Result:
    """Let writers race for one key: a store where two of them win loses revisions and alias moves without a word."""
    store = open_store(url)
    with leases.take(store, f"doctor-{uuid.uuid4().hex}", [], ttl=LEASE_SECONDS) as lease:
        # The lease's own record, so that whoever reads the leases meanwhile can read it.
        content = store.get(next(key for key, _ in store.keys(layout.LEASES) if lease.holder in key))
        key = layout.lease(lease.holder, "race")
        try:
            with ThreadPoolExecutor(RACERS) as threads:
                wins = sum(threads.map(lambda _: store.put_if_absent(key, content), range(RACERS)))
        finally:
            store.delete(key)
    if wins != 1:
        return (
            "failed",
            f"{wins} of {RACERS} writers of one key won",
            "the store does not keep `If-None-Match: *` under concurrent writers: use another store, or a version that "
            "does; do not publish into this one",
        )
    return "ok", f"of {RACERS} writers of one key one won"


def signatures() -> Result:
    """What LORADECK_SIGNATURES asks for, and whether the keys can be read."""
    trust = Trust.from_environment()
    if trust.policy == "off":
        return "ok", "not asked for (LORADECK_SIGNATURES)"
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    for path in trust.public_keys:
        try:
            load_pem_public_key(path.read_bytes())
        except ValueError:
            return "failed", f"{path} is no public key in PEM", "make one: openssl ec -in key.pem -pubout"
    return "ok", f"{trust.policy}, {len(trust.public_keys)} trusted keys"


def base(text: str, found: Registry | None) -> Result:
    """That the base is there; a base of the hub is not fetched."""
    reference = BaseReference.parse(text)
    if reference.pocket:
        return folder_base(loradeck_pocket.BASE)
    if reference.folder is not None:
        return folder_base(reference.folder.expanduser().absolute())
    if reference.hub is not None:
        if os.environ.get("HF_HUB_OFFLINE"):
            return hub_base(reference.hub, reference.hub_revision)
        return "ok", f"{text} is fetched from the hub at the start, unless it is in the local cache"
    if found is None or reference.registry is None:
        return "failed", f"{text} is a name in a registry, and none is given", "set `registry`, or use hub:… or dir:…"
    revision = found.resolve(reference.registry)
    if revision.manifest.kind == "adapter":
        return "failed", f"{revision} is an adapter", "serve its base, and ask for it by name"
    return "ok", f"{revision}, {revision.manifest.kind}, {revision.manifest.size / 1e9:.2f} GB"


def folder_base(folder: Path) -> Result:
    """A model folder: configuration, safetensors, tokenizer."""
    if not folder.is_dir():
        return "failed", f"there is no folder {folder}", "name a model folder with dir:PATH"
    weights = sorted(folder.glob("*.safetensors"))
    missing = [name for name in ("config.json", "tokenizer_config.json") if not (folder / name).is_file()]
    missing += [] if weights else ["*.safetensors"]
    if missing:
        return "failed", f"{folder} lacks {', '.join(missing)}", "name a model folder with dir:PATH"
    return "ok", f"{folder}, {sum(file.stat().st_size for file in weights) / 1e9:.2f} GB of weights"


def hub_base(name: str, revision: str | None) -> Result:
    """A base that must be in the hub's local cache already."""
    from loradeck_registry.bases.resolve import hub_snapshot

    return "ok", f"in the local cache: {hub_snapshot(name, revision).name}"


def pinned(reference: str, found: Registry, max_rank: int) -> Result:
    """That a pinned adapter exists and fits."""
    revision = found.resolve(reference)
    lora = revision.manifest.lora
    if revision.manifest.kind != "adapter" or lora is None:
        return "failed", f"{revision} is a {revision.manifest.kind}", "pin adapters only"
    if lora.rank > max_rank:
        return "failed", f"{revision} has rank {lora.rank}, the server takes {max_rank}", f"set max_rank: {lora.rank}"
    return "ok", f"{revision}, rank {lora.rank}, {revision.digest[:19]}"
