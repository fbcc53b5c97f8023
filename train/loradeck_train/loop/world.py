"""The processes of a run: `accelerate launch` and `torchrun` say through the environment which one this is."""

import os
from dataclasses import dataclass
from typing import Self

from loradeck_registry.errors import UnimplementedError


@dataclass(frozen=True)
class World:
    """This process among those of the run."""

    rank: int
    size: int

    @classmethod
    def here(cls) -> Self:
        """As the launcher says; one process without a launcher."""
        return cls(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))

    @property
    def main(self) -> bool:
        """Whether this process writes, tells and publishes."""
        return self.rank == 0


def refuse_sharding() -> None:
    """Raise UnimplementedError where a launcher shards the model (FSDP, DeepSpeed): a process that publishes would hold
    a part of the weights."""
    for variable, what in (("ACCELERATE_USE_FSDP", "FSDP"), ("ACCELERATE_USE_DEEPSPEED", "DeepSpeed")):
        if os.environ.get(variable, "false").lower() in ("1", "true"):
            raise UnimplementedError(
                f"{what} is not implemented: launch with data parallelism (accelerate launch --multi_gpu), where every "
                "device holds the whole model; `train plan --gpu` says whether it fits"
            )
