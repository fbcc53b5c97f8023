"""A base with a vocabulary of 152,064 and random weights: `python -m loradeck_bench.training.wide BASE FOLDER`.

Geometry and tokenizer are those of BASE, so that any data set of the project can be trained on it; the vocabulary is
Qwen2's, with which embedding, head and logits outweigh everything else of a small model.
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM

VOCABULARY = 152_064


def main() -> None:
    """Write the base."""
    make_wide(Path(sys.argv[1]), Path(sys.argv[2]))


def make_wide(base: Path, folder: Path) -> None:
    """Save a bfloat16 model in `folder`, with the files of `base`'s tokenizer."""
    config = AutoConfig.from_pretrained(str(base), local_files_only=True)
    config.vocab_size = VOCABULARY
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(str(folder))
    for path in base.iterdir():
        if "token" in path.name or path.name == "chat_template.jinja":
            shutil.copy(path, folder / path.name)
    assert json.loads((folder / "config.json").read_text())["vocab_size"] == VOCABULARY


if __name__ == "__main__":
    main()
