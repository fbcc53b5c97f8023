"""An adapter merged into its base: one full checkpoint that answers as the pair does."""

import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from loradeck_registry.registry import Registry
from loradeck_train.convert.publishing import proven_manifest, push_converted
from loradeck_train.convert.sources import open_source
from loradeck_train.model.loading import load_causal
from loradeck_train.model.loss import logprobs_at_end
from loradeck_train.publish.changes import Changes
from loradeck_train.publish.export import MODEL, NEW_TOKENS
from loradeck_train.publish.merging import Rows, merge_into, save_checkpoint
from loradeck_train.publish.proof import allowed_ids, load_adapter

_PREFIX, _A, _B = "base_model.model.", ".lora_A.weight", ".lora_B.weight"


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
    causal = merge_into(source.base.folder, read_changes(source.folder), read_rows(source.folder), dtype)
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


def read_changes(folder: Path) -> Changes:
    """The pairs of an adapter in the published format."""
    if not (folder / MODEL).is_file():
        return Changes()
    tensors = load_file(str(folder / MODEL))
    names = [name.removeprefix(_PREFIX).removesuffix(_A) for name in tensors if name.endswith(_A)]
    return Changes(
        pairs={n: (tensors[f"{_PREFIX}{n}{_A}"].float(), tensors[f"{_PREFIX}{n}{_B}"].float()) for n in names}
    )


def read_rows(folder: Path) -> Rows | None:
    """The new tokens' rows of an adapter in the published format."""
    if not (folder / NEW_TOKENS).is_file():
        return None
    new = load_file(str(folder / NEW_TOKENS))
    return new["ids"], new["input_rows"].float(), new["output_rows"].float()
