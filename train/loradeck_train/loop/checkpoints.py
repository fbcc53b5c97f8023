"""The output folder of a run: what it belongs to, its checkpoints, and whether it may be continued."""

import hashlib
import json
import shutil
from pathlib import Path

from loradeck_registry.errors import PreconditionError
from loradeck_train.loop.fed_trainer import CHECKPOINTS
from loradeck_train.loop.sealing import complete_checkpoints
from loradeck_train.loop.validation import BEST
from loradeck_train.loop.world import World
from loradeck_train.prepare import Prepared

RUN = "run.json"


def open_output(output: Path, prepared: Prepared, resume: bool) -> Path | None:
    """Make the output folder ready and return the checkpoint to continue from, if any.

    Raises PreconditionError: not writable (NOT_WRITABLE), checkpoints that would be lost (CHECKPOINTS_EXIST), or with
    `resume` checkpoints of another recipe, base, data or launch (RESUME_MISMATCH).
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        (output / f".{RUN}").write_text("")
        (output / f".{RUN}").unlink()
    except OSError as error:
        raise PreconditionError(
            f"cannot write to the output folder {output}: {error.strerror}; choose another with --output",
            reason="NOT_WRITABLE",
            field="output",
        ) from error
    newest = newest_checkpoint(output)
    identity = _identity(prepared)
    if newest is not None and not resume:
        raise PreconditionError(
            f"{output} holds checkpoints of an unfinished run: continue it with --resume, or choose another --output",
            reason="CHECKPOINTS_EXIST",
            field="output",
        )
    if newest is not None:
        kept = json.loads((output / RUN).read_text()) if (output / RUN).is_file() else {}
        differing = [key for key in dict.fromkeys([*identity, *kept]) if kept.get(key) != identity.get(key)]
        if differing:
            raise PreconditionError(
                f"the checkpoints in {output} are of another {' and '.join(differing)}: choose another --output, or go "
                "back to what the run was started with",
                reason="RESUME_MISMATCH",
                field="output",
            )
        return newest
    remove_checkpoints(output)
    (output / RUN).write_text(json.dumps(identity, indent=2) + "\n")
    return None


def newest_checkpoint(output: Path) -> Path | None:
    """The newest whole checkpoint; one cut short by a kill is passed over."""
    found = complete_checkpoints(output / CHECKPOINTS)
    return found[-1] if found else None


def remove_checkpoints(output: Path) -> None:
    """Remove what only an unfinished run needs."""
    for name in (CHECKPOINTS, BEST):
        shutil.rmtree(output / name, ignore_errors=True)


def _identity(prepared: Prepared) -> dict[str, str]:
    # How often to save and where to publish do not change what is computed.
    recipe = prepared.recipe.model_dump_json(exclude={"checkpoints", "publish", "base", "data"})
    world = World.here()
    # Who sees which rows, and what a checkpoint's files hold, depends on the number of processes and on sharding.
    launch = {"launch": f"{world.size} processes, {world.sharding or 'whole models'}"} if world.size > 1 else {}
    return {
        "recipe": hashlib.sha256(recipe.encode()).hexdigest(),
        "base": prepared.base.identity.digest,
        "data": prepared.data.digest,
        **launch,
    }
