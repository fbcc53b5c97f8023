"""What transformers and PEFT say on a base, for comparison with the engine; needs the training extra (`peft`)."""

import random
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from loradeck_registry.errors import PreconditionError
from loradeck_serve.engine.base import EngineAdapter
from loradeck_tasks.probe import Probe, ProbePrompt, choose_candidates


class PeftBase:
    """A base in one precision, with which adapters are compared one at a time."""

    def __init__(self, folder: Path, dtype: str) -> None:
        """Raises PreconditionError where PEFT is not installed."""
        try:
            import peft  # noqa: F401
        except ImportError as error:
            raise PreconditionError("this measurement compares with PEFT: install the extra train") from error
        from transformers import AutoTokenizer

        self.folder = folder
        self.dtype = dtype
        self.vocabulary = len(AutoTokenizer.from_pretrained(str(folder)))

    def logprobs(self, adapter: EngineAdapter | None, prompts: Sequence[Sequence[int]], allowed: Any) -> Any:
        """Log-probabilities of `allowed` tokens after each prompt, float32 [prompts, allowed]."""
        import torch

        model = self._model(adapter)
        with torch.no_grad():
            rows = [model(torch.tensor([list(prompt)])).logits[0, -1, allowed].float() for prompt in prompts]
        return torch.stack(rows).log_softmax(-1)

    def greedy(self, adapter: EngineAdapter, prompts: Sequence[Sequence[int]], allowed: Any, count: int) -> Any:
        """The `count` tokens that greedy decoding gives behind prompts of one length, int64 [prompts, count]."""
        import torch

        model, ids = self._model(adapter), torch.tensor([list(prompt) for prompt in prompts])
        with torch.no_grad():
            for _ in range(count):
                best = allowed[model(ids).logits[:, -1, allowed].argmax(-1)]
                ids = torch.cat([ids, best[:, None]], dim=1)
        return ids[:, -count:] if count else ids[:, :0]

    def _model(self, adapter: EngineAdapter | None) -> Any:
        import torch
        from peft import PeftModel
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(str(self.folder), dtype=getattr(torch, self.dtype)).eval()
        if adapter is not None:
            if adapter.added_token_ids:
                from safetensors.torch import load_file

                new = load_file(str(adapter.folder / "new_tokens.safetensors"))
                with torch.no_grad():
                    model.get_input_embeddings().weight[new["ids"]] = new["input_rows"].to(model.dtype)
                    model.get_output_embeddings().weight[new["ids"]] = new["output_rows"].to(model.dtype)
            model = PeftModel.from_pretrained(model, str(adapter.folder)).eval()
        return model

    def answers(self, probe: Probe, adapter: EngineAdapter) -> list[list[float]]:
        """Log-probabilities of the probe's candidates with the adapter as it is in its folder now."""
        import torch

        allowed = torch.tensor([*range(self.vocabulary), *adapter.added_token_ids])
        position = {int(token): number for number, token in enumerate(allowed)}
        found = self.logprobs(adapter, [prompt.token_ids for prompt in probe.prompts], allowed)
        return [
            [float(values[position[token]]) for token in prompt.candidates]
            for values, prompt in zip(found, probe.prompts, strict=True)
        ]


def probe_of(base: PeftBase, adapter: EngineAdapter, count: int, length: int, greedy: int = 0) -> Probe:
    """A probe of `count` random prompts of `length` tokens, as training would make it, with `greedy` tokens more."""
    import torch

    chooser = random.Random(0)
    prompts = [[chooser.randrange(3, base.vocabulary) for _ in range(length)] for _ in range(count)]
    allowed = torch.tensor([*range(base.vocabulary), *adapter.added_token_ids])
    without, trained = base.logprobs(None, prompts, allowed), base.logprobs(adapter, prompts, allowed)
    following = base.greedy(adapter, prompts, allowed, greedy).tolist()
    found = []
    for prompt, base_values, values, tokens in zip(prompts, without, trained, following, strict=True):
        chosen = torch.tensor(choose_candidates((values - base_values).abs().tolist(), base.vocabulary))
        found.append(
            ProbePrompt(
                token_ids=tuple(prompt),
                candidates=tuple(allowed[chosen].tolist()),
                adapter_logprobs=tuple(values[chosen].tolist()),
                base_logprobs=tuple(base_values[chosen].tolist()),
                greedy=tuple(tokens),
            )
        )
    gaps = [abs(a - b) for p in found for a, b in zip(p.adapter_logprobs, p.base_logprobs, strict=True)]
    return Probe(dtype=base.dtype, prompts=tuple(found), distance=fmean(gaps))
