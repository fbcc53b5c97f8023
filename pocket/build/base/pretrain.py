"""Pre-trains the pocket base: tokenizer, packed corpus, training with checkpoints and resume, export.

    python pocket/build/base/pretrain.py --fragments FILE --gsm8k train.jsonl --wikisql wikisql.json.bz2 \\
        --own-data pocket/loradeck_pocket/data --tests FILE... --work FOLDER --minutes 45

Everything is kept in --work, and the same command resumes after an interruption. On a machine with other work, two
processes of one thread each are faster than one of two threads, because they wait for each other once per step and not
in every operation: start the command twice, with WORLD_SIZE=2, RANK=0 or 1, MASTER_ADDR and MASTER_PORT in the
environment (or use torchrun). `export.py` writes the package's files.
"""

import argparse
import json
import math
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as distributed
from corpus import Inputs, Sizes, build
from model import CONTEXT, RESERVED_FROM, new_model
from numpy.typing import NDArray
from packing import Packed, load_packed, pack
from stages import read_records, take_over, write_record, write_row
from tokenizer import save_tokenizer, train_tokenizer
from torch.nn.functional import cross_entropy
from transformers import Qwen2ForCausalLM, Qwen2Tokenizer


def arguments() -> argparse.Namespace:
    """Command line; paths of data outside the package are always given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fragments", type=Path, required=True, help="unlabelled media fragments (JSONL with text)")
    parser.add_argument("--gsm8k", type=Path, required=True, help="GSM8K train.jsonl")
    parser.add_argument("--wikisql", type=Path, required=True, help="wikisql.json.bz2 of text2sql-data")
    parser.add_argument("--own-data", type=Path, required=True, help="the package's data folder")
    parser.add_argument("--tests", type=Path, nargs="+", required=True, help="test files whose sentences are kept out")
    parser.add_argument("--work", type=Path, required=True, help="folder for the corpus, checkpoints and the log")
    parser.add_argument("--continue-from", type=Path, help="work folder of an earlier stage to take over")
    parser.add_argument(
        "--stop-at-step", type=int, help="end this stage at a step, before the planned minutes are used"
    )
    parser.add_argument("--minutes", type=float, default=45.0, help="training time planned; the schedule ends with it")
    parser.add_argument("--learning-rate", type=float, default=2.5e-3)
    parser.add_argument("--weight-decay", type=float, default=0.1)
    parser.add_argument("--warm-up-steps", type=int, default=100)
    parser.add_argument("--batch", type=int, default=8, help="sequences per step")
    parser.add_argument("--length", type=int, default=512, help="tokens per sequence")
    parser.add_argument("--reports", type=int, default=30_000)
    parser.add_argument("--generic", type=int, default=45_000)
    parser.add_argument("--repetitions", type=int, default=30_000)
    parser.add_argument("--lookups", type=int, default=0, help="chats that look several things up in one text")
    parser.add_argument("--gsm8k-share", type=float, default=1.0, help="share of GSM8K's training rows used")
    parser.add_argument("--new-schedule", action="store_true", help="warm-up and cosine begin anew with this stage")
    parser.add_argument("--drawn-arithmetic", type=int, default=12_000)
    parser.add_argument("--wikisql-share", type=float, default=0.5, help="share of WikiSQL's training questions used")
    parser.add_argument("--checkpoint-steps", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--compile", action="store_true", help="use torch.compile (needs a C++ compiler)")
    return parser.parse_args()


def prepare(options: argparse.Namespace) -> Packed:
    """Corpus, tokenizer and packed tokens in the work folder; made once."""
    work: Path = options.work
    if not (work / "train.npy").exists():
        work.mkdir(parents=True, exist_ok=True)
        before = take_over(options.continue_from, work) if options.continue_from else 0
        inputs = Inputs(
            options.fragments,
            options.own_data / "arithmetic" / "train.jsonl",
            options.gsm8k,
            options.wikisql,
            tuple(options.tests),
        )
        sizes = Sizes(
            options.reports,
            options.generic,
            options.repetitions,
            options.lookups,
            options.drawn_arithmetic,
            options.wikisql_share,
            options.gsm8k_share,
            options.seed,
        )
        documents, dropped = build(inputs, sizes)
        if before:
            tokenizer = Qwen2Tokenizer.from_pretrained(work / "tokenizer")
        else:
            sample = documents[:: max(1, len(documents) // 60_000)]
            tokenizer = train_tokenizer((document.text for document in sample), CONTEXT)
            save_tokenizer(tokenizer, work / "tokenizer")
        state = torch.load(work / "checkpoint.pt", weights_only=True) if before else {"step": 0, "elapsed": 0.0}
        record = {
            "first_step": state["step"],
            "first_second": state["elapsed"],
            "sizes": asdict(sizes),
            "dropped_documents": dropped,
        }
        write_record(work, before + 1, record | pack(documents, tokenizer, work, options.length))
    return load_packed(work)


def learning_rate(step: int, progress: float, options: argparse.Namespace) -> float:
    """Linear warm-up, then a cosine down to 5 % of the peak at progress 1."""
    warm = min(1.0, (step + 1) / options.warm_up_steps)
    cosine = 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return float(options.learning_rate * warm * cosine)


def loss_of(model: Callable[..., Any], rows: NDArray[np.uint16]) -> torch.Tensor:
    """Mean next-token loss in nats of packed rows, shape (batch, length); bfloat16 matrix products."""
    tokens = torch.from_numpy(rows.astype(np.int64))
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(input_ids=tokens, use_cache=False).logits
    return cross_entropy(logits[:, :-1].reshape(-1, logits.shape[-1]).float(), tokens[:, 1:].reshape(-1))


def held_out_losses(model: Qwen2ForCausalLM, packed: Packed, limit: int = 4) -> dict[str, float]:
    """Held-out loss in nats per token and source, on at most `limit` rows each."""
    model.eval()
    losses = {}
    with torch.no_grad():
        for source, rows in packed.held_out.items():
            parts = [loss_of(model, rows[first : first + 4]) for first in range(0, min(limit, len(rows)), 4)]
            losses[source] = float(torch.stack(parts).mean())
    model.train()
    return losses


def ranks() -> tuple[int, int]:
    """This process's rank and the number of processes; joins the group when there is more than one."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world > 1:
        distributed.init_process_group("gloo")
    return int(os.environ.get("RANK", "0")), world


def share_gradients(model: Qwen2ForCausalLM, elapsed: float, world: int) -> float:
    """Average the gradients of all processes in place, and return the common elapsed time in seconds."""
    if world == 1:
        return elapsed
    gradients = [weight.grad for weight in model.parameters()]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients] + [torch.tensor([elapsed])])
    distributed.all_reduce(flat)
    flat /= world
    place = 0
    for gradient in gradients:
        gradient.copy_(flat[place : place + gradient.numel()].view_as(gradient))
        place += gradient.numel()
    # Time must be the same everywhere: it decides the learning rate and the last step.
    return float(flat[-1])


def make_optimizer(model: Qwen2ForCausalLM, options: argparse.Namespace) -> torch.optim.AdamW:
    """AdamW with float32 master weights; no decay on norms and biases."""
    matrices = [weight for weight in model.parameters() if weight.ndim > 1]
    vectors = [weight for weight in model.parameters() if weight.ndim == 1]
    groups = [{"params": matrices, "weight_decay": options.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=options.learning_rate, betas=(0.9, 0.95), fused=True)


def train(options: argparse.Namespace, packed: Packed) -> None:
    """Train until the planned minutes are used; progress is time, so that a busy machine cannot cut the schedule."""
    torch.manual_seed(options.seed)
    model = new_model()
    optimizer = make_optimizer(model, options)
    step, elapsed, saved = 0, 0.0, options.work / "checkpoint.pt"
    if saved.exists():
        state = torch.load(saved, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step, elapsed = state["step"], state["elapsed"]
    # Compiled for training only: its one batch shape compiles once, held-out rows of other shapes would not.
    forward = torch.compile(model) if options.compile else model
    log = options.work / "loss.csv"
    running: list[float] = []
    rank, world = ranks()
    planned, started = options.minutes * 60, time.monotonic() - elapsed
    begun = read_records(options.work)[-1] if options.new_schedule else {"first_step": 0, "first_second": 0.0}
    while elapsed < planned and step != options.stop_at_step:
        for group in optimizer.param_groups:
            progress = (elapsed - begun["first_second"]) / (planned - begun["first_second"])
            group["lr"] = learning_rate(step - int(begun["first_step"]), progress, options)
        loss = loss_of(forward, packed.batch(step, options.batch, options.seed)[rank::world])
        loss.backward()
        elapsed = share_gradients(model, time.monotonic() - started, world)
        # The reserved rows stay zero, so that any later use of them starts from a known state.
        model.model.embed_tokens.weight.grad[RESERVED_FROM:] = 0
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        running.append(loss.item())
        step += 1
        if step % 25 == 0 and rank == 0:
            tokens = step * options.batch * options.length
            row = {"step": step, "tokens": tokens, "seconds": round(elapsed, 1), "lr": optimizer.param_groups[0]["lr"]}
            losses = held_out_losses(model, packed) if step % options.checkpoint_steps == 0 else {}
            write_row(log, row | {"train": sum(running) / len(running)} | losses)
            print(f"step {step} {elapsed:.0f}s loss {sum(running) / len(running):.3f} {losses}", flush=True)
            running.clear()
        if step % options.checkpoint_steps == 0 and rank == 0:
            save(model, optimizer, step, elapsed, saved)
    if rank == 0:
        save(model, optimizer, step, elapsed, saved)
        finish(options, model, packed, step, elapsed)


def save(model: Qwen2ForCausalLM, optimizer: torch.optim.AdamW, step: int, elapsed: float, path: Path) -> None:
    """Write a checkpoint in one move, so that an interruption never leaves half of one."""
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "elapsed": elapsed}
    torch.save(state, path.with_suffix(".part"))
    path.with_suffix(".part").replace(path)


def finish(options: argparse.Namespace, model: Qwen2ForCausalLM, packed: Packed, step: int, elapsed: float) -> None:
    """Record the run: final held-out losses on all held-out rows, hyperparameters, time, hardware."""
    ranks_text = f"{os.environ.get('WORLD_SIZE', '1')} processes"
    record = {
        "final_held_out_nats_per_token": held_out_losses(model, packed, limit=64),
        "steps": step,
        "tokens_trained": step * options.batch * options.length,
        "seconds": round(elapsed),
        "hyperparameters": {name: value for name, value in vars(options).items() if isinstance(value, int | float)},
        "hardware": f"{platform.machine()}, {ranks_text} x {torch.get_num_threads()} threads, "
        f"bfloat16 autocast, torch {torch.__version__}",
    }
    (options.work / "run.json").write_text(json.dumps(record, indent=1), encoding="utf-8")


def main() -> None:
    """Prepare (the first process does; the others need a prepared work folder), then train or resume."""
    options = arguments()
    train(options, prepare(options))
    if distributed.is_initialized():
        distributed.destroy_process_group()


if __name__ == "__main__":
    main()
