"""Weights spread over the processes of a run: sharded before training, gathered for checkpoints and publishing.

Under FSDP torch's `fully_shard` does the work, on GPUs and on CPUs (gloo) alike. A layer's weights are whole only
while it computes; embedding, head and norm, which the loss uses outside their modules, from the forward to the backward
pass. Under DeepSpeed its engine does the work, and here is only what gathers from it.
"""

import os
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from loradeck_registry.errors import PreconditionError
from loradeck_train.loop.world import World

_KEPT = ("0", "false", "no_reshard", "shard_grad_op", "no_shard")
"""Words that accelerate has for layers that stay whole between forward and backward pass."""


def shard(model: nn.Module, causal: Any) -> None:
    """Spread the weights of `model` over all processes; its parameters become their part of them.

    `FSDP_OFFLOAD_PARAMS` and `FSDP_RESHARD_AFTER_FORWARD`, which accelerate's launcher sets, are honoured. The model
    may be on the CPU: every process brings its own parts to its GPU, a layer at a time.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import CPUOffloadPolicy, OffloadPolicy, fully_shard

    mesh = init_device_mesh("cuda" if torch.cuda.is_available() else "cpu", (World.here().size,))
    offloaded = os.environ.get("FSDP_OFFLOAD_PARAMS", "false").lower() in ("1", "true")
    offload = CPUOffloadPolicy() if offloaded else OffloadPolicy()
    kept = os.environ.get("FSDP_RESHARD_AFTER_FORWARD", "true").lower() in _KEPT
    layers = set(causal._no_split_modules or ())
    for module in model.modules():
        if type(module).__name__ in layers:
            fully_shard(module, mesh=mesh, reshard_after_forward=not kept, offload_policy=offload)
    fully_shard(model, mesh=mesh, reshard_after_forward=False, offload_policy=offload)


def settle(model: nn.Module) -> None:
    """Let go of whole weights that a forward pass without a backward pass has left."""
    if hasattr(model, "reshard"):
        model.reshard()


def part(tensor: Tensor) -> Tensor:
    """What this process holds of a parameter: all of it where nothing is sharded."""
    found: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else getattr(tensor, "ds_tensor", tensor)
    return found


def whole(tensor: Tensor) -> Tensor:
    """A parameter's whole value on the CPU. Every process must ask for the same one."""
    with _together(tensor):
        value = tensor.detach()
        return (value.full_tensor() if hasattr(value, "full_tensor") else value).to("cpu", copy=True)


def _together(parameter: Tensor) -> Any:
    """Where DeepSpeed (ZeRO 3) holds a parameter in parts: a context in which it is whole, and written back from the
    first process."""
    if not hasattr(parameter, "ds_id"):
        return nullcontext()
    from deepspeed.zero import GatheredParameters

    return GatheredParameters([parameter], modifier_rank=0)


def gathered(model: nn.Module) -> dict[str, Tensor]:
    """The trained parameters by name, whole, on the CPU; only the first process keeps them.

    Every process must call it. Raises PreconditionError (EMPTY_TENSORS) where one came back without values.
    """
    settle(model)
    found: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            value = whole(parameter)
            if not value.numel():
                raise PreconditionError(f"`{name}` was gathered without values", reason="EMPTY_TENSORS")
            if World.here().main:
                found[name] = value.contiguous()
    return found


def scatter(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Put whole values into the parameters of that name, sharded or not. Every process must call it alike."""
    settle(model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in values:
                with _together(parameter):
                    parameter.copy_(like(parameter, values[name]))


def like(parameter: Tensor, value: Tensor) -> Tensor:
    """`value` laid out as `parameter` is, if they have one shape."""
    mesh = getattr(parameter, "device_mesh", None)
    if mesh is None or value.shape != parameter.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    found: Tensor = distribute_tensor(value.to(mesh.device_type), mesh, parameter.placements)
    return found.to(parameter.device)


def whole_state(optimizer: Any) -> dict[str, Any]:
    """An optimizer's state with whole tensors on the CPU. Every process must call it."""
    state = optimizer.state_dict()
    held = {
        index: {key: whole(value) if isinstance(value, Tensor) else value for key, value in entries.items()}
        for index, entries in state["state"].items()
    }
    return {**state, "state": held}


def load_whole_state(optimizer: Any, state: Mapping[str, Any]) -> None:
    """Undo `whole_state`. Every process must call it with the same state."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    parts = {
        index: {
            key: like(parameters[index], value) if isinstance(value, Tensor) else value
            for key, value in entries.items()
        }
        for index, entries in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": parts})
