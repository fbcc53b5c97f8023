"""An adapter merged into its base: one full checkpoint that answers as the pair does."""

import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from loradeck_registry.bases.shapes import BaseShapes, read_shapes
from loradeck_registry.registry import Registry
from loradeck_train.convert.publishing import proven_manifest, push_converted
from loradeck_train.convert.sources import open_source
from loradeck_train.model.loading import load_causal
from loradeck_train.model.loss import logprobs_at_end
from loradeck_train.publish.changes import Changes, Pair
from loradeck_train.publish.export import MODEL, NEW_TOKENS, PREFIX
from loradeck_train.publish.merging import Rows, merge_into, save_checkpoint
from loradeck_train.publish.proof import allowed_ids, load_adapter

_A, _B = ".lora_A.weight", ".lora_B.weight"


def merge(
    registry: Registry,
    reference: str,
    output: Path,
    *,
    base: str | None,
    publish: tuple[str, str | None] | None,
    dtype: str,
) -> dict[str, Any]:
    """Merge the adapter `reference` into its base, write the checkpoint to `output`, and push it if `publish` says so.

    The log-probabilities of the adapter on its base are compared with those of the checkpoint after a reload. Returns
    figures for programs. Raises PreconditionError (RELOAD_DIFFERS and what opening the source raises).
    """
    source = open_source(registry, reference, base, "adapter")
    allowed = allowed_ids(source.task, source.base.identity.vocabulary)
    paired = load_adapter(load_causal(source.base.folder, getattr(torch, dtype)).eval(), source.folder)
    expected = logprobs_at_end(paired, source.prompts, allowed)
    del paired
    shutil.rmtree(output, ignore_errors=True)
    changes = read_changes(source.folder, read_shapes(source.base.folder))
    causal = merge_into(source.base.folder, changes, read_rows(source.folder), dtype)
    tied = bool(causal.config.tie_word_embeddings)
    save_checkpoint(causal, source.tokenizer, output)
    del causal
    record = {"method": "merge", "base_reference": source.base.reference, "dtype": dtype}
    manifest, check = proven_manifest(source, output, "full", expected, dtype, record, lossy=False)
    revision = None
    if publish is not None:
        revision = push_converted(registry, manifest, output, *publish, reason=f"merge {source.revision}")
    return {
        "revision": str(revision) if revision else None,
        "source": str(source.revision),
        "base": source.base.reference,
        "base_digest": source.base.identity.digest,
        "digest": manifest.digest(),
        "bytes": manifest.size,
        "folder": str(output),
        "tied": tied,
        "mean_difference": check.mean_difference,
        "largest_difference": check.largest_difference,
        "distance_from_base": (manifest.probe or {})["distance"],
    }


def read_changes(folder: Path, base: BaseShapes) -> Changes:
    """The pairs of an adapter in the published format."""
    found = Changes()
    if not (folder / MODEL).is_file():
        return found
    tensors = {name.removeprefix(PREFIX): tensor.float() for name, tensor in load_file(str(folder / MODEL)).items()}
    for name in [name.removesuffix(_A) for name in tensors if name.endswith(_A)]:
        pair = tensors[f"{name}{_A}"], tensors[f"{name}{_B}"]
        if name == base.head:
            found.head = pair
        else:
            found.pairs[name] = pair
    if (a := tensors.get(f"{base.embedding}.lora_embedding_A")) is not None:
        found.embedding = tensors[f"{base.embedding}.lora_embedding_B"].t(), a.t()
        if base.tied:
            _take_tied(found, found.embedding)
    return found


def _take_tied(found: Changes, embedding: Pair) -> None:
    """Without a head's pair of its own, a tied embedding's would change both sides; with an equal one, it should."""
    if found.head is None:
        (a, b), none = embedding, slice(0, 0)
        found.head = a[none], b[:, none]
    elif all(torch.equal(one, other) for one, other in zip(found.head, embedding, strict=True)):
        found.head = None


def read_rows(folder: Path) -> Rows | None:
    """The new tokens' rows of an adapter in the published format."""
    if not (folder / NEW_TOKENS).is_file():
        return None
    new = load_file(str(folder / NEW_TOKENS))
    return new["ids"], new["input_rows"].float(), new["output_rows"].float()
