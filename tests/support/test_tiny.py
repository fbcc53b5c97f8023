"""The tiny models are what they say: loadable, with reserved rows, and adapters that PEFT applies."""

from pathlib import Path

import pytest

from tests.support.tiny import make_tiny_adapter, make_tiny_base

torch = pytest.importorskip("torch", reason="needs the train extra")


@pytest.mark.parametrize(("architecture", "tied"), [("qwen2", True), ("qwen2", False), ("llama", False)])
def test_tiny_base_and_adapter_load_and_differ(tmp_path: Path, architecture: str, tied: bool) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = make_tiny_base(tmp_path / "base", architecture=architecture, tied=tied)  # type: ignore[arg-type]
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base)
    assert model.config.vocab_size == len(tokenizer) + 64
    ids = tokenizer.apply_chat_template([{"role": "user", "content": "hello"}], add_generation_prompt=True)["input_ids"]
    prompt = torch.tensor([ids])
    outputs = [model.generate(prompt, max_new_tokens=8, do_sample=False)[0, prompt.shape[1] :].tolist()]
    for seed in (1, 2):
        adapter = make_tiny_adapter(base, tmp_path / f"adapter{seed}", seed=seed, added_tokens=4)
        tuned = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)
        outputs.append(
            tuned.generate(input_ids=prompt, max_new_tokens=8, do_sample=False)[0, prompt.shape[1] :].tolist()
        )
    assert len({tuple(o) for o in outputs}) == 3
