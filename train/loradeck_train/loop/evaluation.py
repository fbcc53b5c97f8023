"""Loss on held-out examples: by learned token, whatever the batches are."""

from collections.abc import Sequence

import torch
from torch import nn

from loradeck_train.data.batches import IGNORED, Collator, EncodedDataset
from loradeck_train.data.encoding import Encoded
from loradeck_train.model.sharding import settle

_TOKENS = 4096


def loss_per_token(model: nn.Module, examples: Sequence[Encoded], *, bf16: bool, learn_prompt: bool = False) -> float:
    """Cross-entropy in nats by learned token of `model`, whose `forward` is that of `install_completion_loss`.

    Batches hold examples of like length and at most 4096 tokens with padding. The model's mode is put back."""
    order = sorted(range(len(examples)), key=lambda index: examples[index].length)
    dataset, collate = EncodedDataset(examples, learn_prompt), Collator(0)
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    total, count = 0.0, 0
    try:
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            while order:
                size = max(1, _TOKENS // examples[order[-1]].length)
                chosen, order = order[-size:], order[:-size]
                batch = collate([dataset[i] for i in chosen])
                del batch["rows"]
                batch = {name: tensor.to(device) for name, tensor in batch.items()}
                total += float(model(**batch, num_items_in_batch=1).loss)
                count += int((batch["labels"][:, 1:] != IGNORED).sum())
    finally:
        model.train(training)
        settle(model)
    return total / count
