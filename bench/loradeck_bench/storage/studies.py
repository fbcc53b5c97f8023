"""The storage figures that the four studies state, beside what the shapes of their bases give."""

from dataclasses import dataclass

from loradeck_bench.storage.shapes import ATTENTION, MLP, TARGETS, adapter_parameters, find_base

GIGABYTE = 10**9
CAPACITY = 280 * GIGABYTE
"""Bytes that the second study compares in: twenty full 7B checkpoints."""
_HALF = 2
"""Bytes per parameter in float16 and bfloat16."""


@dataclass(frozen=True)
class StudyFigure:
    """`stated` by the study, `computed` from shapes; both in `unit`. `note` says what was counted."""

    study: str
    figure: str
    unit: str
    stated: float
    computed: float
    note: str


def study_figures() -> list[StudyFigure]:
    """Every figure of parameters and storage that the studies' texts state."""
    return [*_econ(), *_llama2(), *_belle(), *_alpaca()]


def _econ() -> list[StudyFigure]:
    study, base = "Qwen2-7B, economics and IT", find_base("Qwen/Qwen2-7B")
    pair = 8 * (base.rows + base.hidden)
    return [
        StudyFigure(study, "LoRA on the head, rank 8", "parameters", 1_245_184, pair, "152064 x 8 and 8 x 3584"),
        StudyFigure(
            study, "the head itself", "parameters", 543_360_256, base.rows * base.hidden,
            "152064 x 3584: the study's product is off",
        ),
        StudyFigure(study, "new tokens", "parameters", 4 * 3584, 4 * base.hidden, "4 x 3584"),
    ]  # fmt: skip


def _llama2() -> list[StudyFigure]:
    study = "Llama 2, ViGGO, GSM8k and SQL"
    small, large = find_base("meta-llama/Llama-2-7b-hf"), find_base("meta-llama/Llama-2-70b-hf")
    room = CAPACITY - large.parameters * _HALF
    linear = adapter_parameters(large, 8, TARGETS["all linear"]) * _HALF
    wide = adapter_parameters(large, 8, TARGETS["all linear, embedding, head"], new_tokens=4) * _HALF
    return [
        StudyFigure(
            study, "20 full checkpoints of 7B", "GB", 280, 20 * small.parameters * _HALF / GIGABYTE, "16-bit weights",
        ),
        StudyFigure(
            study, "adapters of 70B in 280 GB, base included", "adapters", 700, room // linear,
            "rank 8 on all linear layers, 16-bit",
        ),
        StudyFigure(
            study, "adapters of 70B in 280 GB, base included", "adapters", 700, room // wide,
            "the same with LoRA on embedding and head, and 4 new tokens",
        ),
    ]  # fmt: skip


def _belle() -> list[StudyFigure]:
    study = "LLaMA, BELLE"
    targets = ("q_proj", "k_proj", "v_proj", *MLP)
    return [
        StudyFigure(
            study, f"LoRA of LLaMA-{size}", "parameters", stated,
            adapter_parameters(find_base(f"huggyllama/llama-{size.lower()}"), 8, targets),
            "rank 8 on q, k, v, gate, up, down, which gives the stated count",
        )
        for size, stated in (("7B", 17_900_000), ("13B", 28_000_000))
    ]  # fmt: skip


def _alpaca() -> list[StudyFigure]:
    base = find_base("Qwen/Qwen2.5-1.5B-Instruct")
    share = 100 * adapter_parameters(base, 8, ATTENTION) / base.parameters
    return [
        StudyFigure("Qwen2.5-1.5B, Alpaca", "share of parameters trained", "%", 0.14, share, "rank 8 on q, k, v, o")
    ]
