"""From the server's configuration to a started engine."""

import re

from loradeck_registry.bases.resolve import ResolvedBase
from loradeck_registry.reference import BaseReference, check_name
from loradeck_serve.config import ServerConfig
from loradeck_serve.cores import keep_off, use_all_cores
from loradeck_serve.engine.base import Engine
from loradeck_serve.engine.settings import EngineSettings
from loradeck_serve.served_base import ServedBase
from loradeck_tasks.stored import stored_task

_OWN = ("model", "slots", "host_adapters", "max_rank", "vocabulary", "base_added_token_ids", "engine")


def served_base(config: ServerConfig, resolved: ResolvedBase) -> ServedBase:
    """What is served, and under which name. Raises InvalidError if the name cannot be one."""
    revision = resolved.revision
    name = config.name or (revision.name if revision is not None else _name_from(config.base))
    manifest = resolved.manifest
    task = stored_task(manifest.task, str(revision)) if manifest is not None and manifest.task is not None else None
    return ServedBase(
        name=check_name(name, "base name"),
        folder=resolved.folder,
        identity=resolved.identity,
        revision=revision.number if revision is not None else 0,
        digest=revision.digest if revision is not None else "",
        task=task,
    )


def engine_settings(config: ServerConfig, base: ServedBase) -> EngineSettings:
    """Settings of the engine. Keys of `engine` that are its own settings are taken as such, all others go to vLLM."""
    own = {key: value for key, value in config.engine.items() if key in EngineSettings.model_fields and key not in _OWN}
    passed = {key: value for key, value in config.engine.items() if key not in own}
    slots = config.slots if config.registry is not None else 0
    vocabulary = base.identity.vocabulary
    added = tuple(t.id for t in base.task.added_tokens if t.id >= vocabulary) if base.task is not None else ()
    values = {
        "max_batch_requests": config.limits.concurrent,
        **own,
        "model": base.folder,
        "slots": slots,
        "host_adapters": config.host_adapters if slots else None,
        "max_rank": config.max_rank,
        "vocabulary": vocabulary,
        "base_added_token_ids": added,
        "engine": passed,
    }
    return EngineSettings.parse(values)


async def start_engine(settings: EngineSettings, cores: frozenset[int]) -> Engine:
    """Start vLLM on `cores`, all that this server may use. Imported here: configuration errors cost no seconds."""
    from loradeck_serve.engine.vllm_engine import VllmEngine

    # For a restart: this process keeps off the cores of the engine that died.
    use_all_cores(cores)
    engine = await VllmEngine.start(settings)
    keep_off(engine.processes, cores)
    return engine


def _name_from(reference: str) -> str:
    parsed = BaseReference.parse(reference)
    text = parsed.hub.rpartition("/")[2] if parsed.hub else parsed.folder.absolute().name if parsed.folder else "pocket"
    cleaned = re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("._-")
    return re.sub(r"\.\.+", ".", cleaned)[:63] or "base"
