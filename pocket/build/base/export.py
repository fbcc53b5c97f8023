"""Writes the pocket base in transformers' form: bfloat16 safetensors, tokenizer, generation settings.

python pocket/build/base/export.py --work FOLDER --out pocket/loradeck_pocket/base
"""

import argparse
import shutil
from pathlib import Path

import torch
from chat import SPECIAL_TOKENS
from model import RESERVED_FROM, new_model
from transformers import GenerationConfig, Qwen2Tokenizer

SIZE_LIMIT = 12 * 10**6  # bytes of safetensors


def main() -> None:
    """Export, then check what the package promises: size and empty reserved rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="work folder of pretrain.py")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    options = parser.parse_args()
    model = new_model()
    model.load_state_dict(torch.load(options.work / "checkpoint.pt", weights_only=True)["model"])
    model = model.to(torch.bfloat16)
    if model.get_input_embeddings().weight[RESERVED_FROM:].any():
        raise SystemExit("the reserved rows are not zero: the checkpoint is from another script")
    end_of_text, _, turn_end = range(len(SPECIAL_TOKENS))
    model.generation_config = GenerationConfig(
        eos_token_id=[turn_end, end_of_text], pad_token_id=end_of_text, do_sample=False
    )
    options.out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(options.out)
    # The class that AutoTokenizer picks for this architecture, whatever the file says: the file shall agree with it.
    Qwen2Tokenizer.from_pretrained(options.work / "tokenizer").save_pretrained(options.out)
    for path in (options.work / "loss.csv", options.work / "run.json", *options.work.glob("corpus-*.json")):
        if path.exists():
            shutil.copy(path, options.out / path.name)
    size = sum(path.stat().st_size for path in options.out.glob("*.safetensors"))
    if size > SIZE_LIMIT:
        raise SystemExit(f"the weights take {size} bytes, more than {SIZE_LIMIT}")
    print(f"wrote {options.out}: {size} bytes of weights")


if __name__ == "__main__":
    main()
