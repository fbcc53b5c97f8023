"""The processes of a run: `accelerate launch` and `torchrun` say through the environment which one this is."""

import os
from dataclasses import dataclass
from typing import Any, Literal, Self

from loradeck_registry.errors import PreconditionError

Sharding = Literal["fsdp", "deepspeed"]
_ASKED: tuple[tuple[str, Sharding], ...] = (("ACCELERATE_USE_FSDP", "fsdp"), ("ACCELERATE_USE_DEEPSPEED", "deepspeed"))
_TAKEN = "LORADECK_SHARDING"


@dataclass(frozen=True)
class World:
    """This process among those of the run, and who spreads the weights over them, if anybody does."""

    rank: int
    size: int
    local_rank: int = 0
    sharding: Sharding | None = None

    @classmethod
    def here(cls) -> Self:
        """As the launcher says; one process without a launcher."""
        rank, size, local = (int(os.environ.get(k, d)) for k, d in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0)))
        taken = os.environ.get(_TAKEN)
        return cls(rank, size, local, taken if size > 1 else None)  # type: ignore[arg-type]

    @property
    def main(self) -> bool:
        """Whether this process writes, tells and publishes."""
        return self.rank == 0

    def any(self, number: int) -> int:
        """The largest `number` of all processes, on each of them. Every process must call it."""
        if self.size == 1:
            return number
        import torch
        import torch.distributed as dist

        found = torch.tensor([number])
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return int(found)

    def collect(self, value: Any) -> list[Any]:
        """The `value` of every process in the order of ranks, on each of them. Every process must call it."""
        if self.size == 1:
            return [value]
        import torch.distributed as dist

        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found


def join() -> World:
    """Meet the other processes, once, before anything is loaded.

    What accelerate's launcher asks of accelerate (FSDP) is taken over here: the same code then shards on GPUs and, for
    trying it out, on CPUs. Raises PreconditionError: BAD_LAUNCH where sharding is asked of a single process,
    DEEPSPEED_UNUSABLE without CUDA or the package.
    """
    import torch
    import torch.distributed as dist

    asked: list[Sharding] = [
        how for variable, how in _ASKED if os.environ.get(variable, "false").lower() in ("1", "true")
    ]
    world = World.here()
    if asked and world.size == 1:
        raise PreconditionError(
            f"{asked[0]} spreads a model over processes, and there is one: launch with --num_processes 2 or more",
            reason="BAD_LAUNCH",
        )
    cuda = torch.cuda.is_available()
    if asked == ["deepspeed"]:
        _check_deepspeed(cuda)
    if asked == ["fsdp"]:
        del os.environ["ACCELERATE_USE_FSDP"]
    if asked:
        os.environ[_TAKEN] = asked[0]
    if world.size > 1 and not dist.is_initialized():
        if cuda:
            torch.cuda.set_device(world.local_rank)
        # Flags and random states travel as tensors of the CPU, whatever the model is on.
        dist.init_process_group("cuda:nccl,cpu:gloo" if cuda else "gloo")
    return World.here()


def _check_deepspeed(cuda: bool) -> None:
    from importlib.util import find_spec

    needs = {"a CUDA device": cuda, "the package deepspeed": find_spec("deepspeed") is not None}
    lacking = [what for what, there in needs.items() if not there]
    if lacking:
        raise PreconditionError(
            f"DeepSpeed needs {' and '.join(lacking)}: launch with FSDP (accelerate launch --use_fsdp), or with a copy "
            "of the model per device (--multi_gpu)",
            reason="DEEPSPEED_UNUSABLE",
        )
