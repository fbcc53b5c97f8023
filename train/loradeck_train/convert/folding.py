"""What a norm has learned, moved into the linear layers behind it: an adapter has no place for norms.

A norm scales its inputs by a vector and hands them to linear layers alone, so that W' diag(g') x = W'' diag(g) x with
W'' = W' diag(g' / g): exactly the same function over the norm of the base.
"""

from typing import Any

import torch
from torch import Tensor, nn

_TOLERANCE = 1e-3


def gains(plain: Any, full: Any, prompt: list[int]) -> tuple[dict[str, Tensor], set[str]]:
    """By linear module (the head among them): what its weight's columns have to be multiplied with, [inputs], float32;
    and the names of the norms' weights that this takes care of.

    Who reads which norm is seen in a forward pass of the base over `prompt`; what a norm has learned, by giving both
    norms the same numbers. A norm whose change is more than a scale (a bias), or that feeds anything but linear
    layers, is left alone.
    """
    readers = _readers(plain, prompt)
    before, after = dict(plain.named_modules()), dict(full.named_modules())
    found: dict[str, Tensor] = {}
    folded: set[str] = set()
    for norm, linears in readers.items():
        gain = _gain(before[norm], after[norm])
        if gain is None:
            continue
        folded.add(f"{norm}.weight")
        found |= dict.fromkeys(linears, gain)
    return found, folded


def _readers(plain: Any, prompt: list[int]) -> dict[str, list[str]]:
    """By norm with a vector of weights: the linear modules whose input is its output."""
    outputs: dict[int, str] = {}
    held: list[Tensor] = []
    found: dict[str, list[str]] = {}
    hooks = []

    def made(name: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                held.append(output)  # Alive, so that no other tensor takes its place in memory.
                outputs[output.data_ptr()] = name

        return hook

    def read(name: str) -> Any:
        def hook(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            if inputs and isinstance(inputs[0], Tensor) and (norm := outputs.get(inputs[0].data_ptr())) is not None:
                found.setdefault(norm, []).append(name)

        return hook

    for name, module in plain.named_modules():
        weight = getattr(module, "weight", None)
        if isinstance(module, nn.Linear):
            hooks.append(module.register_forward_pre_hook(read(name)))
        elif isinstance(weight, Tensor) and weight.ndim == 1:
            hooks.append(module.register_forward_hook(made(name)))
    try:
        with torch.no_grad():
            plain(input_ids=torch.tensor([prompt]), use_cache=False)
    finally:
        for handle in hooks:
            handle.remove()
    return found


def _gain(before: Any, after: Any) -> Tensor | None:
    """The second norm's output by the first one's, [inputs], or None where that is no constant."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(8, len(before.weight), generator=generator)
    with torch.no_grad():
        first, second = before(x).float(), after(x).float()
    ratio = second / first
    mean = ratio.mean(dim=0)
    steady = torch.isfinite(ratio).all() and ((ratio - mean).abs() <= _TOLERANCE * (1 + mean.abs())).all()
    return mean if bool(steady) else None
