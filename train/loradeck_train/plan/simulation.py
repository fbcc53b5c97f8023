"""A training step of a recipe on fake tensors: the code that will train, gone through without weights or memory."""

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from loradeck_tasks.task import Task
from loradeck_train.model.build import equip, frozen_dtype
from loradeck_train.model.loss import head_loss
from loradeck_train.plan.tracking import LiveBytes
from loradeck_train.recipe.settings import Recipe

_FEW, _MORE = 1, 2
"""Layers that are gone through; what a further layer adds is added for the others."""


@dataclass(frozen=True)
class Batch:
    """The largest batch: `rows` of `length` tokens, `learned` of all its tokens carry loss."""

    rows: int
    length: int
    learned: int


@dataclass(frozen=True)
class Step:
    """Bytes of one optimizer step above weights and optimizer state."""

    trained: int
    """Parameters."""
    frozen_bytes: int
    trained_bytes: int
    activations: int
    """Held when the decoder has answered."""
    logits: int
    """On top of them, at most, for head and loss."""
    peak: int
    """At most, gradients included."""


def simulate(recipe: Recipe, config: Mapping[str, Any], task: Task, batch: Batch, attention: str) -> Step:
    """One step of `recipe` on a base of this configuration (`config.json`)."""
    layers = int(config["num_hidden_layers"])
    if layers <= _MORE:
        return _simulate(recipe, config, task, batch, attention, layers)
    few, more = (_simulate(recipe, config, task, batch, attention, n) for n in (_FEW, _MORE))
    further = (layers - _MORE) / (_MORE - _FEW)
    return Step(
        *(round(getattr(more, name) + further * (getattr(more, name) - getattr(few, name))) for name in _FIELDS)
    )


_FIELDS = tuple(Step.__dataclass_fields__)


def _simulate(recipe: Recipe, config: Mapping[str, Any], task: Task, batch: Batch, attention: str, layers: int) -> Step:
    from torch._subclasses.fake_tensor import FakeTensorMode

    gc.collect()
    with quietly(), torch.device("meta"):
        causal = random_model(config, frozen_dtype(recipe), attention, layers)
        built = equip(simulable(recipe), causal, task, None, attention)
    with quietly(), FakeTensorMode(allow_non_fake_inputs=True):
        _to_fake(built.model)
        if recipe.gradient_checkpointing:
            causal.gradient_checkpointing_enable({"use_reentrant": False})
            causal.enable_input_require_grads()
        built.model.train()
        _without_data(built.model)
        parameters = list(built.model.parameters())
        buffers = list(built.model.buffers())
        trained = [p for p in parameters if p.requires_grad]
        live = LiveBytes([*parameters, *buffers])
        ids = torch.zeros(batch.rows, batch.length, dtype=torch.long)
        seen: list[tuple[int, int]] = []
        peak = 0
        # From the second batch of a step on, the gradients of the first are there as well.
        for _ in range(min(2, recipe.optimisation.gradient_accumulation_steps)):
            with live:
                with _autocast(recipe):
                    loss, activations, logits = _forward(causal, ids, batch, live)
                seen.append((activations, logits))
                loss.backward()
                del loss
            peak = max(peak, live.peak)
        activations, logits = seen[0]
        return Step(
            trained=sum(p.numel() for p in trained),
            frozen_bytes=_bytes([p for p in parameters if not p.requires_grad]),
            trained_bytes=_bytes(trained),
            activations=activations,
            logits=logits,
            peak=peak,
        )


def random_model(config: Mapping[str, Any], dtype: torch.dtype, attention: str, layers: int) -> Any:
    """A causal model of this configuration with so many layers, on the default device."""
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = {k: v for k, v in config.items() if k not in ("model_type", "architectures", "dtype", "torch_dtype")}
    settings |= {"num_hidden_layers": layers, "layer_types": None, "max_window_layers": layers}
    known = AutoConfig.for_model(config["model_type"], **settings)
    return AutoModelForCausalLM.from_config(known, dtype=dtype, attn_implementation=attention)


def _to_fake(model: nn.Module) -> None:
    """Fake tensors of the CPU in place of those of the meta device, which has no autocast; shared ones stay so."""
    made: dict[int, Any] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                if id(parameter) not in made:
                    made[id(parameter)] = nn.Parameter(_on_cpu(parameter), requires_grad=parameter.requires_grad)
                module._parameters[name] = made[id(parameter)]
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = made.setdefault(id(buffer), _on_cpu(buffer))


def _on_cpu(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")


def simulable(recipe: Recipe) -> Recipe:
    """Starts that look at numbers make no difference to bytes."""
    if recipe.method == "full" or recipe.adapter.init == "default":
        return recipe
    return recipe.model_copy(update={"lora": recipe.adapter.model_copy(update={"init": "default"})})


def _forward(causal: Any, ids: Tensor, batch: Batch, live: LiveBytes) -> tuple[Tensor, int, int]:
    hidden = causal.base_model(
        input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False, return_dict=True
    ).last_hidden_state
    activations, before = live.now, live.peak
    # The real loss picks positions by their labels, which fake tensors cannot: as many from the front cost the same.
    chosen = hidden.reshape(-1, hidden.shape[-1])[: batch.learned]
    live.peak = live.now
    loss = head_loss(causal.get_output_embeddings(), chosen, torch.zeros(batch.learned, dtype=torch.long))
    logits = live.peak - activations
    live.peak = max(live.peak, before)
    return loss, activations, logits


def _without_data(model: nn.Module) -> None:
    """Trained rows are looked up by token ids, which fake tensors do not have: here every position takes part."""
    from peft.tuners.trainable_tokens import TrainableTokensLayer

    def look_up(module: Any) -> Any:
        def forward(x: Tensor, *_: Any, **__: Any) -> Tensor:
            found: Tensor = nn.functional.embedding(x, module.base_layer.weight)
            return found + 0.0 * module.trainable_tokens_delta["default"].sum().to(found.dtype)

        return forward

    for module in model.modules():
        if isinstance(module, TrainableTokensLayer) and isinstance(module.base_layer, nn.Embedding):
            module.forward = look_up(module)


def _autocast(recipe: Recipe) -> Any:
    # float16 has the sizes of bfloat16.
    return nullcontext() if recipe.precision == "fp32" else torch.autocast("cpu", torch.bfloat16)


def _bytes(parameters: list[nn.Parameter]) -> int:
    return sum(p.numel() * p.element_size() for p in parameters)


@contextmanager
def quietly() -> Iterator[None]:
    """Context without the libraries' remarks on models that nobody will use."""
    import warnings

    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(before)
