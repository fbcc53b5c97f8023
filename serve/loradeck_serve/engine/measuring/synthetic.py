"""Random adapters in the published format, for measuring engines: real sizes and effects, no training."""

import json
from pathlib import Path

from loradeck_serve.engine.base import EngineAdapter


def write_random_adapter(base: Path, folder: Path, *, rank: int, seed: int, strength: float = 1.0) -> EngineAdapter:
    """Write a random LoRA of `rank` on every linear layer of the base's blocks into `folder`.

    Each pair is scaled so that its product has about `strength` times the size of the matrix that it changes, which
    makes greedy outputs of two seeds part within a few tokens. `base` is a folder with safetensors of a model whose
    linear layers are called `…_proj`.
    """
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, torch.Tensor] = {}
    for file in sorted(base.glob("*.safetensors")):
        with safe_open(str(file), "pt") as weights:
            for name in weights.keys():  # noqa: SIM118
                if not name.endswith("_proj.weight"):
                    continue
                weight = weights.get_tensor(name).float()
                rows, columns = weight.shape
                module = name.removesuffix(".weight")
                a = torch.randn(rank, columns, generator=generator)
                b = torch.randn(rows, rank, generator=generator) * (strength * weight.std().item() / rank**0.5)
                tensors[f"base_model.model.{module}.lora_A.weight"] = a
                tensors[f"base_model.model.{module}.lora_B.weight"] = b
    save_file(tensors, str(folder / "adapter_model.safetensors"), metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted({name.split(".")[-3] for name in tensors}),
        "inference_mode": True,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return EngineAdapter(f"random-{rank}-{seed}", folder, rank)
