"""Fetches data sets from where they are public: files by HTTP, sets of the hub through `datasets`."""

import json
import logging
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from loradeck_bench.extra import DATA, require
from loradeck_bench.study.data.catalog import DataFile, DataSet
from loradeck_bench.study.data.place import Placed, chosen, put
from loradeck_registry.errors import InvalidError, LoradeckError, PreconditionError, UnavailableError

_SECONDS = 30.0
"""Longest silence of a server."""
Say = Callable[[str], None]


def fetch(
    study: str, into: Path, *, only: tuple[str, ...] = (), mirror: str | None = None, other: bool = False, say: Say
) -> tuple[list[Placed], dict[str, LoradeckError]]:
    """Fetch the study's public sets (or those named `only`), each into a folder below `into`.

    `mirror` takes the place of every URL's scheme and host; the hub's is HF_ENDPOINT, as `datasets` has it. Without
    `only`, sets that no run needs are left out. Returns what came, and what did not with its error. Raises
    PreconditionError where a set that is named is not public.
    """
    wanted = chosen(study, only)
    for name in only:
        if not wanted[name].public:
            raise PreconditionError(f"{name} cannot be fetched: {wanted[name].get}", reason="NOT_PUBLIC")
    placed: list[Placed] = []
    failed: dict[str, LoradeckError] = {}
    for name, data in wanted.items():
        if not data.public or (data.optional and not only):
            continue
        say(f"{name}: {', '.join(dict.fromkeys(file.address or '' for file in data.files.values() if file.address))}")
        try:
            placed.append(put(into, name, data, _origin(data), _getter(mirror), other=other))
        except (UnavailableError, InvalidError) as error:
            failed[name] = error
    return placed, failed


def _origin(data: DataSet) -> str:
    return ", ".join(dict.fromkeys(file.address for file in data.files.values() if file.address))


def _getter(mirror: str | None) -> Callable[[str, DataFile, Path], bool]:
    def get(name: str, file: DataFile, target: Path) -> bool:
        if file.url is not None:
            _download(_mirrored(file.url, mirror), target)
        elif file.hub is not None:
            _write(target, _selected(_of_hub(file.hub, file.first), file))
        return file.address is not None

    return get


def _mirrored(url: str, mirror: str | None) -> str:
    return url if mirror is None else f"{mirror.rstrip('/')}{urlsplit(url).path}"


def _download(url: str, target: Path) -> None:
    """Raises UnavailableError in one line."""
    require(DATA)
    import httpx

    try:
        with (
            httpx.Client(
                transport=httpx.HTTPTransport(retries=2), timeout=_SECONDS, follow_redirects=True, trust_env=True
            ) as client,
            client.stream("GET", url) as reply,
            target.open("wb") as out,
        ):
            reply.raise_for_status()
            for chunk in reply.iter_bytes():
                out.write(chunk)
    except httpx.HTTPStatusError as error:
        raise _unavailable(url, f"{error.response.status_code} {error.response.reason_phrase}") from None
    except httpx.HTTPError as error:
        raise _unavailable(url, str(error) or type(error).__name__) from None


def _of_hub(hub: str, first: int | None) -> Iterator[dict[str, Any]]:
    try:
        import datasets
    except ImportError:
        raise PreconditionError(
            "this set comes through `datasets`: pip install 'loradeck[train]'", reason="MISSING_PACKAGE"
        ) from None
    # Every retry would be a line; the last one's reason is in the error.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        loaded = datasets.load_dataset(hub, split="train", streaming=first is not None)
        yield from (dict(row) for row in islice(loaded, first))
    except Exception as error:
        # `datasets` raises a dozen unrelated types: no network, no such set, a file that is gone.
        raise _unavailable(f"https://huggingface.co/datasets/{hub}", " ".join(str(error).split())[:100]) from error


def _selected(rows: Iterable[dict[str, Any]], file: DataFile) -> Iterator[dict[str, Any]]:
    for number, row in enumerate(rows):
        if file.every is None or (number % file.every.of == 0) == (file.every.part == "first"):
            yield row


def _write(target: Path, rows: Iterable[dict[str, Any]]) -> None:
    with target.open("w", encoding="utf-8") as out:
        for row in rows:
            out.write(json.dumps(row, ensure_ascii=False) + "\n")


def _unavailable(address: str, why: str) -> UnavailableError:
    return UnavailableError(
        f"cannot fetch {address}: {why}; get it elsewhere and bring it with --from DIR", reason="NOT_FETCHED"
    )
