"""Measures what an exported base can do without fine-tuning, and writes abilities.json beside it.

    python pocket/build/base/abilities.py --base pocket/loradeck_pocket/base --data pocket/loradeck_pocket/data

Generic instructions are drawn afresh with names from the test side; the three tasks are asked in a plain prompt.
"""

import argparse
import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from instructions import Material, listing, people, pick, record, repeat
from rouge_score import rouge_scorer
from sources import STEPS
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase, Qwen2ForCausalLM

sys.path.insert(0, str(Path(__file__).parents[1] / "qa"))

from slots import MONTHS, firm, person, place

Prompt = tuple[str, str, str]  # system, user, expected reply
BATCH = 16
WORDS = ("river", "copper", "window", "yellow", "market", "simple", "garden", "engine", "letter", "summer", "paper")


def generic_prompts(count: int, seed: int) -> dict[str, list[Prompt]]:
    """Fresh generic instructions per type, names from the test side of the pools."""
    material = Material(
        words=WORDS,
        names=lambda rng: person(rng, "test"),
        places=lambda rng: place(rng, "test"),
        firms=lambda rng: firm(rng, "test"),
        dates=lambda rng: f"{rng.randrange(1, 29)} {rng.choice(MONTHS)} {rng.randrange(1990, 2026)}",
    )
    prompts = {}
    for draw in (repeat, pick, listing, record, people):
        rng = random.Random(f"{draw.__name__}-{seed}")
        prompts[draw.__name__] = [("Follow the instruction.", *draw(rng, material)) for _ in range(count)]
    return prompts


def task_prompts(data: Path, count: int) -> dict[str, list[Prompt]]:
    """Test rows of question answering and arithmetic in plain prompts, spread over the files."""

    def spread(task: str) -> list[dict[str, str]]:
        lines = (data / task / "test.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines[:: max(1, len(lines) // count)]][:count]

    short = "Answer the question from the context in a few words."
    return {
        "short answers": [
            (short, f"{row['context']}\n\nQuestion: {row['question']}", row["short_answer"]) for row in spread("qa")
        ],
        "arithmetic": [(STEPS[0], row["question"], row["answer"]) for row in spread("arithmetic")],
    }


def answers(model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt]) -> list[str]:
    """Greedy replies, at most 64 tokens."""
    said = []
    for first in range(0, len(prompts), BATCH):
        chats = [
            [{"role": "system", "content": system}, {"role": "user", "content": user}]
            for system, user, _ in prompts[first : first + BATCH]
        ]
        inputs = tokenizer.apply_chat_template(
            chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
        )
        with torch.no_grad():
            out = model.generate(**inputs, max_new_tokens=64, do_sample=False)
        new = out[:, inputs["input_ids"].shape[1] :]
        said += tokenizer.batch_decode(new, skip_special_tokens=True)
    return said


def final_number(text: str) -> str:
    """What stands after the last '####'."""
    return text.rpartition("####")[2].strip()


def main() -> None:
    """Measure, print, and write abilities.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="the package's data folder")
    parser.add_argument("--count", type=int, default=100, help="prompts per kind")
    parser.add_argument("--seed", type=int, default=3)
    options = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(options.base, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(options.base, dtype=torch.float32).eval()
    scorer = rouge_scorer.RougeScorer(["rouge1"])
    figures: dict[str, dict[str, float]] = {}
    kinds = generic_prompts(options.count, options.seed) | task_prompts(options.data, options.count)
    for kind, prompts in kinds.items():
        pairs = [
            (prompt[2], said.strip()) for prompt, said in zip(prompts, answers(model, tokenizer, prompts), strict=True)
        ]
        score = sum(scorer.score(expected, said)["rouge1"].fmeasure for expected, said in pairs)
        figures[kind] = {
            "prompts": len(pairs),
            "exact": round(sum(expected == said for expected, said in pairs) / len(pairs), 3),
            "rouge_1": round(score / len(pairs), 3),
        }
        if kind == "arithmetic":
            right = sum(final_number(expected) == final_number(said) for expected, said in pairs)
            figures[kind]["final_number"] = round(right / len(pairs), 3)
        print(kind, figures[kind], flush=True)
    (options.base / "abilities.json").write_text(json.dumps(figures, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
