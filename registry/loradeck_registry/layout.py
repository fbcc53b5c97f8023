"""Object keys: where everything lives in a registry."""

from datetime import UTC, datetime

MARKER = "loradeck-registry.json"
"""Its presence makes a folder or bucket prefix a registry."""
BLOBS = "blobs/sha256"
DELTAS = "deltas/sha256"
MANIFESTS = "manifests/sha256"
REVISIONS = "revisions"
ALIASES = "aliases"
ATTACHMENTS = "attachments"
CHANGES = "changes"
LEASES = "leases"
QUARANTINE = "quarantine"
RETIRED = "retired"
PROTECTIONS = "protections"
SERVERS = "servers"
MOVES = "moves"


def blob(sha256: str) -> str:
    """Key of a file's bytes, by 64 hex digits."""
    return f"{BLOBS}/{sha256[:2]}/{sha256}"


def delta(sha256: str) -> str:
    """Key of the record of a file that is stored as a difference, by the file's 64 hex digits."""
    return f"{DELTAS}/{sha256[:2]}/{sha256}"


def manifest(digest: str) -> str:
    """Key of a manifest, by `sha256:...`."""
    hexdigits = digest.removeprefix("sha256:")
    return f"{MANIFESTS}/{hexdigits[:2]}/{hexdigits}"


def revisions(name: str) -> str:
    """Folder of a name's revision records."""
    return f"{REVISIONS}/{name}"


def aliases(name: str) -> str:
    """Folder that holds one folder per alias."""
    return f"{ALIASES}/{name}"


def alias_log(name: str, alias: str) -> str:
    """Folder of an alias's log."""
    return f"{ALIASES}/{name}/{alias}"


def attachments(digest: str, kind: str) -> str:
    """Folder of what was added to a revision later, one kind of it."""
    return f"{ATTACHMENTS}/{digest.removeprefix('sha256:')}/{kind}"


def numbered(folder: str, number: int) -> str:
    """Key of entry `number` (from 1) of a numbered log; keys sort as the numbers do."""
    return f"{folder}/{number:08d}.json"


def number_of(key: str) -> int | None:
    """The number of a numbered log's key, None if the key is not one."""
    stem = key[-13:-5]
    is_one = key.endswith(".json") and len(stem) == 8 and stem.isdecimal() and key[-14:-13] in ("", "/")
    return int(stem) if is_one else None


def minute(time: datetime) -> str:
    """Folder name of a minute, in UTC: `20250131T2359`."""
    return time.astimezone(UTC).strftime("%Y%m%dT%H%M")


def change(time: datetime, identifier: str) -> str:
    """Key of a change marker."""
    return f"{CHANGES}/{minute(time)}/{identifier}.json"


def lease(holder: str, identifier: str) -> str:
    """Key of a lease."""
    return f"{LEASES}/{holder}/{identifier}.json"


def quarantine(run: str, phase: str) -> str:
    """Key of a collection's record: `intent`, what it means to delete; `deleting`, while it does."""
    return f"{QUARANTINE}/{run}/{phase}.json"


def retired(name: str, number: int) -> str:
    """Key of the note that stays when a revision was removed on purpose."""
    return numbered(f"{RETIRED}/{name}", number)


def revision(name: str, number: int) -> str:
    """Key of a revision's record."""
    return numbered(revisions(name), number)


def protections(name: str, alias: str) -> str:
    """Folder of the log of an alias's rules."""
    return f"{PROTECTIONS}/{name}/{alias}"


def server(identifier: str, beat: int) -> str:
    """Key of a live server's record; a renewal is a further one with a larger `beat`."""
    return f"{SERVERS}/{identifier}.{beat:020d}.json"


def move(identifier: str, record: str) -> str:
    """Key of one record of what servers say to each other about a move of an alias."""
    return f"{MOVES}/{identifier}.{record}.json"
