"""Messages and service of `loradeck.inference.v1`, re-exported under one name."""

from loradeck.inference.v1.inference_service_pb2 import *  # noqa: F403
from loradeck.inference.v1.inference_service_pb2_grpc import *  # noqa: F403
from loradeck.inference.v1.provenance_pb2 import *  # noqa: F403
