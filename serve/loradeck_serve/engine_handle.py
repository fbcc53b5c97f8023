"""The engine that serves now: one object that stays while engines come and go."""

from loradeck_registry.errors import UnavailableError
from loradeck_serve.engine.base import Engine, EngineInfo


class EngineHandle:
    """Gives the running engine, or says that there is none at the moment."""

    def __init__(self) -> None:
        self._engine: Engine | None = None
        self._info: EngineInfo | None = None

    def put(self, engine: Engine) -> None:
        """This engine serves from now on."""
        self._engine = engine
        self._info = engine.info

    def take(self) -> Engine | None:
        """No engine serves from now on; returns the one that did."""
        engine, self._engine = self._engine, None
        return engine

    def get(self) -> Engine:
        """The running engine. Raises UnavailableError (ENGINE_STARTING, ENGINE_RESTARTING)."""
        if self._engine is None:
            raise self._none()
        return self._engine

    @property
    def info(self) -> EngineInfo:
        """Facts of the engine, also while it restarts."""
        if self._info is None:
            raise self._none()
        return self._info

    def _none(self) -> UnavailableError:
        doing, reason = ("starting", "ENGINE_STARTING") if self._info is None else ("restarting", "ENGINE_RESTARTING")
        return UnavailableError(f"the engine is {doing}: try again shortly", reason=reason, retry_after=5)
