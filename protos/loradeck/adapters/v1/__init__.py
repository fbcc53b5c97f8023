"""Messages and service of `loradeck.adapters.v1`, re-exported under one name."""

from loradeck.adapters.v1.adapter_service_pb2 import *  # noqa: F403
from loradeck.adapters.v1.adapter_service_pb2_grpc import *  # noqa: F403
