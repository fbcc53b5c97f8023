"""Proof that what was published is what was trained: a reload on a fresh base, and the probe for servers."""

import gc
import random
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from loradeck_registry.errors import PreconditionError
from loradeck_tasks.probe import Probe, ProbePrompt, choose_candidates
from loradeck_tasks.rendering import stop_token_ids
from loradeck_tasks.task import Task
from loradeck_train.data.encoding import Encoded
from loradeck_train.model.loading import device, load_causal
from loradeck_train.model.loss import logprobs_at_end
from loradeck_train.model.matrices import matrices
from loradeck_train.publish.export import NEW_TOKENS
from loradeck_train.publish.merging import untie

_CONTINUATION = 8
_SHARE = 0.1
_LOSSY_SHARE = 0.5
_FLOOR = {"bfloat16": 0.05, "float32": 0.001}


@dataclass(frozen=True)
class ReloadCheck:
    """How far the reloaded revision is from the model in memory, in nats over the probe's candidates.

    `tolerance` is a tenth of what training changed (half of it for methods that are published only nearly), at least
    the rounding noise of the serving precision. `rounding` is what the weights' rounding to that precision did, which
    no file can hold better: it is not a fault of the files, and only bounded by half of what training changed.
    """

    mean_difference: float
    largest_difference: float
    tolerance: float
    rounding: float | None = None


def choose_prompts(examples: Sequence[Encoded], count: int, seed: int) -> list[list[int]]:
    """Prompts for the probe, of as many different answers as there are, the shorter half of the examples only."""
    shorter = sorted(examples, key=lambda e: (e.length, e.prompt))[: max(count, len(examples) // 2)]
    order = random.Random(seed).sample(shorter, len(shorter))
    by_answer: dict[tuple[int, ...], list[Encoded]] = {}
    for example in order:
        by_answer.setdefault(example.answer, []).append(example)
    chosen: list[Encoded] = []
    while len(chosen) < min(count, len(order)):
        for waiting in by_answer.values():
            if waiting and len(chosen) < count:
                chosen.append(waiting.pop())
    return [list(example.prompt) for example in chosen]


def allowed_ids(task: Task, vocabulary: int) -> Tensor:
    """Token ids that the adapter may emit: the base's own and its added ones. All log-probabilities are over these."""
    return torch.tensor([*range(vocabulary), *(token.id for token in task.added_tokens)])


def prove(
    prompts: list[list[int]],
    trained: list[Tensor],
    task: Task,
    tokenizer: Any,
    vocabulary: int,
    base: Path,
    published: Path,
    *,
    adapter: bool,
    dtype: str,
    lossy: bool = False,
    rounded: list[Tensor] | None = None,
) -> tuple[Probe, ReloadCheck]:
    """Load base and published revision afresh in the serving precision, and compare.

    `trained` holds the log-probabilities of the model in memory after each prompt, over `allowed_ids`. `lossy`: what
    was published is only near to it (`Recipe.lossy`), and may be apart by half of what training changed. `rounded`:
    the same of the model in memory once all its weights were rounded to `dtype`; the files are then held to that, since
    a few small steps move weights by hardly more than bfloat16 can tell apart. Raises PreconditionError: RELOAD_DIFFERS
    if the reloaded revision answers otherwise than the trained model, or ROUNDED_AWAY if rounding left too little.
    """
    allowed = allowed_ids(task, vocabulary)
    model = load_causal(base, getattr(torch, dtype)).to(device()).eval()
    before = logprobs_at_end(model, prompts, allowed)
    if adapter:
        model = load_adapter(model, published)
    else:
        del model
        gc.collect()
        model = load_causal(published, getattr(torch, dtype)).to(device()).eval()
    after = logprobs_at_end(model, prompts, allowed)
    generative = task.kind != "classification"
    stops = set(stop_token_ids(task, tokenizer))
    found: list[ProbePrompt] = []
    differences: list[Tensor] = []
    rounding: list[Tensor] = []
    for prompt, base_values, values, exact, in_memory in zip(
        prompts, before, after, trained, rounded or trained, strict=True
    ):
        chosen = torch.tensor(choose_candidates((values - base_values).abs().tolist(), vocabulary))
        differences.append((values[chosen] - in_memory[chosen]).abs())
        rounding.append((exact[chosen] - in_memory[chosen]).abs())
        greedy = _continue(model, prompt, allowed, stops) if generative else ()
        found.append(
            ProbePrompt(
                token_ids=tuple(prompt),
                candidates=tuple(allowed[chosen].tolist()),
                adapter_logprobs=tuple(values[chosen].tolist()),
                base_logprobs=tuple(base_values[chosen].tolist()),
                greedy=greedy,
            )
        )
    gaps = [abs(a - b) for p in found for a, b in zip(p.adapter_logprobs, p.base_logprobs, strict=True)]
    probe = Probe(dtype=dtype, prompts=tuple(found), distance=sum(gaps) / len(gaps))
    lost = None if rounded is None else float(torch.cat(rounding).mean())
    return probe, check_reload(torch.cat(differences), lost, probe.distance, dtype, _LOSSY_SHARE if lossy else _SHARE)


def load_adapter(base: Any, folder: Path) -> Any:
    """`base` (a plain causal model, changed in place) with the published adapter in `folder`, ready to answer."""
    from peft import PeftModel

    if (folder / NEW_TOKENS).is_file():
        new = load_file(str(folder / NEW_TOKENS))
        if not torch.equal(new["input_rows"], new["output_rows"]):
            untie(base)
        with torch.no_grad():
            for matrix, rows in zip(matrices(base), (new["input_rows"], new["output_rows"]), strict=True):
                matrix[new["ids"]] = rows.to(matrix)
    with warnings.catch_warnings():
        # Both sides of a tied matrix have a pair of their own, and nothing is merged here.
        warnings.filterwarnings("ignore", message=".*tie_word_embeddings.*")
        return PeftModel.from_pretrained(base, str(folder)).eval()


def _continue(model: Any, prompt: list[int], allowed: Tensor, stops: set[int]) -> tuple[int, ...]:
    ids: list[int] = []
    while len(ids) < _CONTINUATION:
        values = logprobs_at_end(model, [[*prompt, *ids]], allowed)[0]
        token = int(allowed[int(values.argmax())])
        if token in stops:
            break
        ids.append(token)
    return tuple(ids)


def check_reload(differences: Tensor, rounding: float | None, distance: float, dtype: str, share: float) -> ReloadCheck:
    """Judge the `differences` of the reloaded files' candidates; `distance` is what training changed, of which `share`
    is accepted. Raises PreconditionError (RELOAD_DIFFERS, ROUNDED_AWAY)."""
    check = ReloadCheck(
        mean_difference=float(differences.mean()),
        largest_difference=float(differences.max()),
        tolerance=max(share * distance, _FLOOR[dtype]),
        rounding=rounding,
    )
    if not check.mean_difference <= check.tolerance:
        raise PreconditionError(
            f"the published files answer otherwise than the trained model: {check.mean_difference:.3f} nats apart on "
            f"average, {check.tolerance:.3f} are allowed; nothing was published (publish.dtype float32 is more exact)",
            reason="RELOAD_DIFFERS",
        )
    if rounding is not None and not rounding <= max(_LOSSY_SHARE * distance, _FLOOR[dtype]):
        raise PreconditionError(
            f"rounded to {dtype} the checkpoint is {rounding:.3f} nats from what was trained, and {distance:.3f} from "
            "the base: training moved the weights by less than that precision can hold; nothing was published (set "
            "publish.dtype: float32, or train for longer)",
            reason="ROUNDED_AWAY",
        )
    return check
