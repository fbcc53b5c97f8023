"""The committed pocket base: it loads, speaks its chat format, keeps its size and its reserved rows."""

import json
import unicodedata
from pathlib import Path

import pytest

from tests.pocket.scripts import load_script

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TEXTS = (
    "Plain words, 1234.5 and a line\nbreak.\r\n\ttab  two spaces",
    "naïve café, e\u0301 decomposed, 한국어, العربية, 😀👩‍🔬",
    "\u0000\u0007\ufeff odd controls",
)


@pytest.fixture(scope="module")
def tokenizer(base: Path):  # type: ignore[no-untyped-def]
    return transformers.AutoTokenizer.from_pretrained(base)


@pytest.fixture(scope="module")
def model(base: Path):  # type: ignore[no-untyped-def]
    return transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()


def test_weights_are_bfloat16_safetensors_of_twelve_megabytes_at_most(base: Path) -> None:
    from safetensors import safe_open

    files = list(base.glob("*.safetensors"))
    assert files
    assert sum(file.stat().st_size for file in files) <= 12 * 10**6
    assert not list(base.glob("*.bin"))
    assert not list(base.glob("*.pt"))
    for file in files:
        with safe_open(file, "pt") as tensors:
            assert {tensors.get_tensor(name).dtype for name in tensors.keys()} == {torch.bfloat16}  # noqa: SIM118


def test_architecture_is_what_the_engine_serves(base: Path) -> None:
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == ["Qwen2ForCausalLM"]
    assert config["hidden_size"] // config["num_attention_heads"] == 64
    assert config["tie_word_embeddings"] is True
    assert config["vocab_size"] == 4096


def test_last_64_rows_are_reserved_and_zero(model, tokenizer) -> None:  # type: ignore[no-untyped-def]
    weight = model.get_input_embeddings().weight
    assert len(tokenizer) == 4032 == len(weight) - 64
    assert not weight[4032:].any()
    assert weight[:4032].any(dim=1).all()


@pytest.mark.parametrize("text", TEXTS)
def test_tokenizer_gives_back_any_text(tokenizer, text: str) -> None:  # type: ignore[no-untyped-def]
    ids = tokenizer(text)["input_ids"]
    # NFC, as with Qwen2: composed and decomposed spellings of a character are one text.
    assert tokenizer.decode(ids) == unicodedata.normalize("NFC", text)
    assert max(ids) < 4032


def test_digits_are_single_tokens(tokenizer) -> None:  # type: ignore[no-untyped-def]
    assert [tokenizer.decode([token]) for token in tokenizer("2048")["input_ids"]] == ["2", "0", "4", "8"]


def test_chat_template_renders_turns_and_the_generation_prompt(tokenizer) -> None:  # type: ignore[no-untyped-def]
    chat = load_script("base", "chat")
    turns = [("system", "Be brief."), ("user", "Hello"), ("assistant", "Hi.")]
    messages = [{"role": role, "content": text} for role, text in turns]
    assert tokenizer.apply_chat_template(messages, tokenize=False) == chat.render(turns)
    prompt = tokenizer.apply_chat_template(messages[1:2], tokenize=False, add_generation_prompt=True)
    assert prompt == chat.render([("user", "Hello")]) + "<|im_start|>assistant\n"


def test_special_tokens_are_single_and_end_generation(base: Path, tokenizer) -> None:  # type: ignore[no-untyped-def]
    ends = [tokenizer.convert_tokens_to_ids(token) for token in ("<|im_end|>", "<|endoftext|>")]
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.pad_token == "<|endoftext|>"
    assert json.loads((base / "generation_config.json").read_text(encoding="utf-8"))["eos_token_id"] == ends


def test_base_repeats_a_date_and_ends_its_turn(model, tokenizer) -> None:  # type: ignore[no-untyped-def]
    said = "7 November 2001"
    prompt = tokenizer.apply_chat_template(
        [{"role": "system", "content": "Follow the instruction."}, {"role": "user", "content": f"Say exactly: {said}"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    with torch.no_grad():
        out = model.generate(**prompt, max_new_tokens=24, do_sample=False)
    new = out[0, prompt["input_ids"].shape[1] :]
    assert tokenizer.decode(new) == f"{said}<|im_end|>"


def test_held_out_loss_of_the_card_is_the_recorded_one(base: Path) -> None:
    run = json.loads((base / "run.json").read_text(encoding="utf-8"))
    card = (base / "README.md").read_text(encoding="utf-8")
    for source, loss in run["final_held_out_nats_per_token"].items():
        assert f"| {source} |" in card
        assert f"{loss:.2f}" in card
