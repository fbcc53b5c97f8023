"""Kills pushes, alias moves and collections with SIGKILL and looks at what is left. Run as a program: it must not have
used the object store itself before it forks. Prints one JSON object."""

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from loradeck_registry import layout
from loradeck_registry.collection.retention import Retention
from loradeck_registry.registry import Registry
from loradeck_registry.stores.store import Store
from tests.registry.support import push, push_base, push_full

OPERATIONS = ("put_if_absent", "put_file", "size", "keys", "items", "get", "delete")


def main(folder: Path, random_rounds: int) -> dict[str, int]:
    """Kill before and after every store operation of two pushes (an adapter with its alias, a full checkpoint that is
    stored as a difference to its base) and a collection, then at random times within them."""
    os.environ["LORADECK_CACHE"] = str(folder / "cache")
    counted = folder / "count"
    url = _registry(folder, 0)
    begin = time.monotonic()
    _in_child(lambda: _publish(url, folder, 1))
    duration = time.monotonic() - begin
    _in_child(lambda: counted.write_text(str(_counting(lambda: _publish(url, folder, 2)))))
    operations = int(counted.read_text())
    # A kill after one operation is a kill before the next: of one more than there are none is missing.
    killed = sum(_round(folder, number, operation=number) for number in range(1, operations + 2))
    generator = random.Random(0)
    killed += sum(_round(folder, 1000 + n, kill_after=generator.uniform(0, duration)) for n in range(random_rounds))
    return {"operations": operations, "rounds": operations + 1 + random_rounds, "killed": killed}


def _registry(folder: Path, number: int) -> Path:
    """The registry of a round: a new one every 20 rounds, since a check reads all that the rounds before it left."""
    url = folder / f"registry-{number // 20}"
    if not url.exists():
        _in_child(lambda: push_base(Registry.init(url), folder / f"base-{url.name}"), must_succeed=True)
        _in_child(lambda: _publish(url, folder, 10**6 + number), must_succeed=True)
    return url


def _round(folder: Path, number: int, *, operation: int = 0, kill_after: float | None = None) -> bool:
    """Kill one writer, before an operation or after a time, and look at what it left. True if it was killed."""
    url = _registry(folder, number)
    if operation:
        killed = _in_child(lambda: _killing(operation, lambda: _publish(url, folder, number + 2)))
    else:
        killed = _in_child(lambda: _publish(url, folder, number), kill_after=kill_after)
    _in_child(lambda: _check(url, folder), must_succeed=True)
    return killed


def _publish(url: Path, folder: Path, seed: int) -> None:
    registry = Registry.init(url)
    push(registry, folder / f"files-{os.getpid()}", seed=seed, alias="prod")
    push_full(registry, folder / f"full-{os.getpid()}", seed + 1)
    orphan = f"{seed:064x}"
    registry._store.put_if_absent(layout.blob(orphan), b"left by a killed push")
    registry.collect(delete=True, grace=timedelta(0), wait=0, retention=Retention(keep_last=4))


def _check(url: Path, folder: Path) -> None:
    """Whatever died before: verify is clean, what readers see is whole, and the next push works."""
    registry = Registry.open(url)
    report = registry.verify()
    assert report.clean, report
    before = registry.resolve("clf@latest").number
    numbers = [revision.number for revision in registry.revisions("clf")]
    assert numbers[-4:] == list(range(max(before - 3, 1), before + 1))
    registry.local(registry.resolve("clf@prod"))
    revision = push(registry, folder / "check", seed=random.randrange(10**9), alias="prod")
    assert revision.number == before + 1
    assert registry.resolve("clf@prod").number == before + 1
    full = push_full(registry, folder / "check-full", random.randrange(1, 10**9))
    assert sum(registry.stored_files(full).values()) < full.manifest.size


def _counting(action: Callable[[], None]) -> int:
    count = 0

    def step(call: Callable[[], object]) -> object:
        nonlocal count
        count += 1
        return call()

    _wrap(step)
    action()
    return count


def _killing(operation: int, action: Callable[[], None]) -> None:
    """Die before operation `operation`, or at the end if there are fewer."""
    count = 0

    def step(call: Callable[[], object]) -> object:
        nonlocal count
        count += 1
        if count == operation:
            os.kill(os.getpid(), signal.SIGKILL)
        return call()

    _wrap(step)
    action()
    os.kill(os.getpid(), signal.SIGKILL)


def _wrap(step: Callable[[Callable[[], object]], object]) -> None:
    for name in OPERATIONS:
        original = getattr(Store, name)

        def wrapped(*arguments: object, _original: Callable[..., object] = original, **settings: object) -> object:
            return step(lambda: _original(*arguments, **settings))

        setattr(Store, name, wrapped)


def _in_child(action: Callable[[], object], *, kill_after: float | None = None, must_succeed: bool = False) -> bool:
    """Run in a forked child; True if it was killed."""
    child = os.fork()
    if child == 0:
        try:
            action()
            os._exit(0)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    killed = os.WIFSIGNALED(status)
    if (not killed and os.WEXITSTATUS(status)) or (must_succeed and killed):
        raise SystemExit(f"a child failed with status {status}")
    return killed


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]))))
