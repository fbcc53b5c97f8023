"""New tokens' rows: where they start, and where they are trained."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from loradeck_tasks.task import Task
from loradeck_train.model.matrices import is_tied, matrices, plain

_NOISE = 0.02


def initial_rows(
    causal: Any,
    task: Task,
    tokenizer: Any,
    seed: int,
    start: Literal["description", "mean", "random"] = "description",
    descriptions: Mapping[str, str] | None = None,
) -> tuple[Tensor, Tensor]:
    """Rows to start the task's added tokens from, for embedding and head: float32 [added, hidden] each.

    `description`: the mean of the token rows of a token's description, which for a label token is the label's name
    unless `descriptions` (by label or token) says more, so that it starts where the base would look for it; a token
    without one starts at the mean of all rows, as all do with `mean`. A little noise keeps equal ones apart. `random`:
    normal, with the spread of the base's rows.
    """
    words = descriptions or {}
    named = {label.token: words.get(label.name, label.name) for label in task.labels if label.token is not None}
    vocabulary = min(token.id for token in task.added_tokens)
    generator = torch.Generator().manual_seed(seed)
    found = []
    for matrix in matrices(causal):
        used = matrix[:vocabulary].detach().float().cpu()
        noise = torch.randn(len(task.added_tokens), used.shape[1], generator=generator) * used.std()
        if start == "random":
            found.append(noise)
            continue
        rows = []
        for token in task.added_tokens:
            text = words.get(token.content) or named.get(token.content, "")
            ids = tokenizer.encode(text, add_special_tokens=False) if start == "description" and text else []
            rows.append(used[ids].mean(dim=0) if ids else used.mean(dim=0))
        found.append(torch.stack(rows) + _NOISE * noise)
    return found[0], found[0] if is_tied(causal) else found[1]


def trained_rows(causal: Any) -> tuple[nn.Parameter, nn.Parameter] | None:
    """The trained rows of embedding and head (absolute rows, not differences), or None if no rows are trained."""
    found = []
    for module in (causal.get_input_embeddings(), causal.get_output_embeddings()):
        adapter = getattr(module, "token_adapter", None)
        inner = None if adapter is not None else plain(module)
        if adapter is not None:
            found.append(adapter.trainable_tokens_delta["default"])
        elif isinstance(inner, _RowsEmbedding | _RowsHead):
            found.append(inner.lora_new_rows["default"])
        else:
            return None
    return found[0], found[1]


def set_rows(causal: Any, added: Sequence[int], rows: tuple[Tensor, Tensor]) -> None:
    """Write the rows where they are trained, or else into the matrices themselves."""
    trained = trained_rows(causal)
    with torch.no_grad():
        if trained is not None:
            for parameter, values in zip(trained, rows, strict=True):
                parameter.copy_(values)
        else:
            for matrix, values in zip(matrices(causal), rows, strict=True):
                matrix[list(added)] = values.to(matrix)


class _RowsEmbedding(nn.Embedding):  # type: ignore[misc]
    """An embedding whose rows `ids` are parameters of their own. The `lora_` in their name puts them into PEFT's
    checkpoints."""

    ids: Tensor
    lora_new_rows: nn.ParameterDict

    def forward(self, x: Tensor) -> Tensor:
        place = torch.searchsorted(self.ids, x).clamp_max(len(self.ids) - 1)
        new = (self.ids[place] == x).unsqueeze(-1)
        found: Tensor = nn.functional.embedding(x, self.weight, self.padding_idx)
        return torch.where(new, self.lora_new_rows["default"][place].to(found.dtype), found)


class _RowsHead(nn.Linear):  # type: ignore[misc]
    """A head whose rows `ids` are parameters of their own."""

    ids: Tensor
    lora_new_rows: nn.ParameterDict

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = nn.functional.linear(x, self.weight, self.bias)
        own = nn.functional.linear(x, self.lora_new_rows["default"].to(x.dtype))
        return logits.index_copy(-1, self.ids, own.to(logits.dtype))


def split_rows(causal: Any, added: Sequence[int]) -> list[nn.Parameter]:
    """Make the rows `added` (ascending) parameters of their own, under LoRA on the whole matrices.

    PEFT cannot train tokens of a matrix that carries LoRA. Called before PEFT wraps the model, which then wraps these
    layers like any other. Returns the new parameters, which PEFT will freeze: one if tied, else two.
    """
    tied = is_tied(causal)
    found: list[nn.Parameter] = []
    sides = ((causal.get_input_embeddings(), _RowsEmbedding), (causal.get_output_embeddings(), _RowsHead))
    for module, kind in sides:
        rows = found[0] if tied and found else nn.Parameter(module.weight.detach()[list(added)].float().clone())
        module.__class__ = kind
        module.register_buffer("ids", torch.tensor(list(added), device=rows.device), persistent=False)
        module.lora_new_rows = nn.ParameterDict({"default": rows})
        if not found or rows is not found[0]:
            found.append(rows)
    return found
