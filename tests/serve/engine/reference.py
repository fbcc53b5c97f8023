"""What an adapter should answer, computed with transformers and PEFT in float32: the measure for the engine."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loradeck_serve.engine.base import EngineAdapter


@dataclass
class Reference:
    """A base, alone or with one adapter, its new rows in place and foreign reserved logits blocked."""

    model: Any
    allowed: Any
    """Which token ids can be produced, bool [rows]."""

    def logprobs(self, prompt: Sequence[int]) -> Any:
        """Natural-log probabilities of the next token, float32 [rows]."""
        import torch

        with torch.no_grad():
            logits = self.model(torch.tensor([list(prompt)])).logits[0, -1]
        return logits.masked_fill(~self.allowed, float("-inf")).log_softmax(-1)

    def greedy(self, prompt: Sequence[int], count: int) -> tuple[int, ...]:
        """The `count` tokens that greedy decoding gives."""
        tokens = list(prompt)
        for _ in range(count):
            tokens.append(int(self.logprobs(tokens).argmax()))
        return tuple(tokens[len(prompt) :])


def make_reference(base: Path, vocabulary: int, adapter: EngineAdapter | None = None) -> Reference:
    """Load `base`, with an untied head so that the rows of both sides can differ, and `adapter` if given."""
    import torch
    from peft import PeftModel
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(str(base), dtype=torch.float32, attn_implementation="eager")
    head = torch.nn.Linear(model.config.hidden_size, model.config.vocab_size, bias=False)
    head.weight = torch.nn.Parameter(model.get_output_embeddings().weight.detach().clone())
    model.config.tie_word_embeddings = False
    model.set_output_embeddings(head)
    allowed = torch.arange(model.config.vocab_size) < vocabulary
    if adapter is not None:
        if (adapter.folder / "new_tokens.safetensors").exists():
            rows = load_file(str(adapter.folder / "new_tokens.safetensors"))
            with torch.no_grad():
                model.get_input_embeddings().weight[rows["ids"]] = rows["input_rows"].float()
                head.weight[rows["ids"]] = rows["output_rows"].float()
            allowed[rows["ids"]] = True
        if json.loads((adapter.folder / "adapter_config.json").read_text())["r"]:
            model = PeftModel.from_pretrained(model, str(adapter.folder))
    return Reference(model.eval(), allowed)
