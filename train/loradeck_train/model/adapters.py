"""LoRA put on a base: which modules, which ranks and scales, which start, and the embeddings' part."""

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from loradeck_registry.errors import InvalidError
from loradeck_train.model.matrices import is_tied, name_of
from loradeck_train.model.new_rows import split_rows
from loradeck_train.model.tied_head import tie_head
from loradeck_train.recipe.settings import Recipe

EMBEDDING_LEAVES = frozenset({"embed_tokens", "lm_head", "wte", "embed_in", "embed_out"})
_STARTS: dict[str, bool | str] = {"default": True, "gaussian": "gaussian", "eva": "eva", "pissa": "pissa"}
Start = dict[str, tuple[Tensor, Tensor]]
"""By module: A and scaled B at the start, where the start was taken out of the base's weights (PiSSA)."""


def with_lora(recipe: Recipe, causal: Any, added: Sequence[int], batches: Iterable[dict[str, Tensor]] = ()) -> Any:
    """PEFT's model around `causal`, adapter and new rows trainable and in float32.

    `batches` (input_ids, attention_mask, labels) are what EVA looks at. Raises InvalidError (BAD_RECIPE) for a module
    that the base lacks.
    """
    from peft import EvaConfig, LoraConfig, get_peft_model, initialize_lora_eva_weights

    settings = recipe.adapter
    targets = [*target_modules(recipe, causal), *_embedding_targets(recipe, causal)]
    own = split_rows(causal, added) if added and settings.embeddings == "both" else []
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        use_rslora=settings.rslora,
        rank_pattern=dict(settings.rank_pattern),
        alpha_pattern=dict(settings.alpha_pattern),
        use_dora=settings.dora,
        init_lora_weights=_STARTS[settings.init],
        eva_config=EvaConfig(rho=1.0) if settings.init == "eva" else None,
        target_modules=targets,
        bias="none",
        task_type="CAUSAL_LM",
        trainable_token_indices=_token_indices(causal, added) if added and settings.embeddings == "rows" else None,
    )
    directions = _main_directions(causal, config, batches) if settings.init == "eva" else None
    with warnings.catch_warnings():
        # PEFT warns of a tied head that it does not know of; `tie_head` takes care of it.
        warnings.filterwarnings("ignore", message=".*tie_word_embeddings.*")
        warnings.filterwarnings("ignore", message=".*eva initialization used with low_cpu_mem_usage.*")
        model = get_peft_model(causal, config)
    if directions is not None:
        initialize_lora_eva_weights(model, eva_state_dict=directions, show_progress_bar=False)
    if settings.embeddings != "rows" and is_tied(causal):
        tie_head(causal)
    for parameter in own:
        parameter.requires_grad = True
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return model


def lora_layers(model: nn.Module) -> dict[str, Any]:
    """PEFT's LoRA layers by the name of the module that they wrap, without PEFT's prefix."""
    from peft.tuners.lora import LoraLayer

    return {
        name.removeprefix("base_model.model."): module
        for name, module in model.named_modules()
        if isinstance(module, LoraLayer) and module.r
    }


def start_of(recipe: Recipe, model: nn.Module) -> Start:
    """What has to be taken off again at publish: the start that PiSSA took out of the base."""
    if recipe.adapter.init != "pissa":
        return {}
    return {
        name: (
            layer.lora_A["default"].weight.detach().float().cpu().clone(),
            layer.lora_B["default"].weight.detach().float().cpu() * float(layer.scaling["default"]),
        )
        for name, layer in lora_layers(model).items()
    }


def leaf_names(causal: nn.Module) -> list[str]:
    """Leaf names of the linear modules that can carry LoRA, sorted."""
    names = {n.rsplit(".", 1)[-1] for n, m in causal.named_modules() if isinstance(m, nn.Linear)}
    return sorted(names - EMBEDDING_LEAVES)


def target_modules(recipe: Recipe, causal: nn.Module) -> list[str]:
    """Leaf names of the layers' modules that get LoRA. Raises InvalidError (BAD_RECIPE) for one that the base lacks."""
    chosen, known = recipe.adapter.target_modules, leaf_names(causal)
    if chosen == "all-linear":
        return known
    for name in chosen:
        if name in EMBEDDING_LEAVES:
            raise InvalidError(
                f"lora.target_modules: `{name}` is no linear layer; for LoRA on the embeddings set lora.embeddings",
                reason="BAD_RECIPE",
                field="lora.target_modules",
            )
        if name not in known:
            raise InvalidError(
                f"lora.target_modules: the base has no linear module `{name}`; it has {', '.join(known)}",
                reason="BAD_RECIPE",
                field="lora.target_modules",
            )
    return sorted(set(chosen))


def _embedding_targets(recipe: Recipe, causal: Any) -> list[str]:
    settings = recipe.adapter
    if settings.embeddings == "rows":
        return []
    embedding, head = _leaf_of(causal, causal.get_input_embeddings()), _leaf_of(causal, causal.get_output_embeddings())
    if is_tied(causal) and settings.embedding_sides != "both":
        raise InvalidError(
            f"lora.embedding_sides: {settings.embedding_sides}, but embedding and head of this base are one matrix: "
            "use both",
            reason="BAD_RECIPE",
            field="lora.embedding_sides",
        )
    if is_tied(causal):
        return [embedding]
    return {"both": [embedding, head], "input": [embedding], "output": [head]}[settings.embedding_sides]


def _token_indices(causal: Any, added: Sequence[int]) -> dict[str, list[int]]:
    embedding, head = _leaf_of(causal, causal.get_input_embeddings()), _leaf_of(causal, causal.get_output_embeddings())
    # Tied: PEFT ties the head's rows to the embedding's by itself.
    return {embedding: list(added)} if is_tied(causal) else {embedding: list(added), head: list(added)}


def _leaf_of(causal: nn.Module, module: nn.Module) -> str:
    return name_of(causal, module).rsplit(".", 1)[-1]


def _main_directions(causal: Any, config: Any, batches: Iterable[dict[str, Tensor]]) -> Any:
    """EVA's matrices, from the plain base: PEFT would take trained rows for layers with LoRA."""
    from dataclasses import replace

    from peft import get_eva_state_dict

    found = get_eva_state_dict(
        causal,
        list(batches),
        replace(config, trainable_token_indices=None),
        forward_fn=lambda model, inputs: model(
            input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], logits_to_keep=1
        ),
        show_progress_bar=False,
        gather_distributed_inputs=False,
    )
    return {f"base_model.model.{name}": directions for name, directions in found.items()}
