"""Settings of one server: typed models, and how they are read."""

from loradeck_serve.config.address import Address
from loradeck_serve.config.doors import AccessFiles, Connections, DoorName, Tls
from loradeck_serve.config.limits import Fairness, Limits
from loradeck_serve.config.loading import ENVIRONMENT_PREFIX, load_config
from loradeck_serve.config.server import RANKS, BaseTasks, ServerConfig
from loradeck_serve.config.tracing import Tracing

__all__ = [
    "ENVIRONMENT_PREFIX",
    "RANKS",
    "AccessFiles",
    "Address",
    "BaseTasks",
    "Connections",
    "DoorName",
    "Fairness",
    "Limits",
    "ServerConfig",
    "Tls",
    "Tracing",
    "load_config",
]
