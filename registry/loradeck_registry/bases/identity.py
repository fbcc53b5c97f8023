"""What a base is: its two digests, its vocabulary and its rows, from a local folder and without a framework."""

import hashlib
import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loradeck_registry.cache.settings import default_folder
from loradeck_registry.errors import InvalidError, NotFoundError
from loradeck_registry.hashing import sha256_of
from loradeck_registry.manifest import BaseIdentity
from loradeck_registry.weights import Weights, open_all, weight_files

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
)
EMBEDDING_SUFFIXES = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight", "embed_in.weight")
"""How the input embedding's tensor name ends, by family."""
HEAD_NAMES = ("lm_head.weight", "embed_out.weight")
_VOLATILE = {
    "vocab_size",
    "transformers_version",
    "_name_or_path",
    "name_or_path",
    "torch_dtype",
    "dtype",
    "use_cache",
    "_attn_implementation_autoset",
}
_SPECIAL_KEYS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def identify_base(folder: Path, reference: str) -> BaseIdentity:
    """Digests and sizes of the model in `folder`; `reference` is how people name it.

    Reads all weights; the result is kept in the cache folder and used again while sizes and times of the files stand.
    Raises NotFoundError (no such folder, no config.json), InvalidError (no safetensors weights, no tokenizer.json, no
    embedding).
    """
    if not folder.is_dir():
        raise NotFoundError(f"no folder {folder}", field="base")
    weight_files(folder)
    key = _cache_key(folder)
    kept = _kept(key)
    if kept is None:
        kept = _identify(folder)
        _keep(key, kept)
    return BaseIdentity(reference=reference, **kept)


def base_files(folder: Path) -> list[Path]:
    """The files that make the base what it is: configuration, weights, tokenizer; sorted by name."""
    names = {"config.json", *TOKENIZER_FILES}
    return sorted([*(folder / name for name in names if (folder / name).is_file()), *weight_files(folder)])


def read_config(folder: Path) -> dict[str, Any]:
    """The model's config.json. Raises NotFoundError, InvalidError."""
    return _read_json(folder, "config.json", "a model folder has config.json, *.safetensors and tokenizer.json")


def read_vocabulary(folder: Path) -> int:
    """The id that the first further token would get, which is the tokenizer's length. Raises NotFoundError."""
    tokenizer = _read_json(
        folder, "tokenizer.json", "save the tokenizer with transformers' `save_pretrained` to make one"
    )
    try:
        vocabulary = tokenizer["model"]["vocab"]
        known = set(vocabulary) if isinstance(vocabulary, dict) else {piece for piece, _ in vocabulary}
        added = {entry["content"]: int(entry["id"]) for entry in tokenizer.get("added_tokens", ())}
        following = max([len(known), *(number + 1 for number in added.values())])
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidError(f"{folder.name}/tokenizer.json is not a tokenizer", field="base") from error
    return following + len(_late_tokens(folder) - known - set(added))


def _late_tokens(folder: Path) -> set[str]:
    """Tokens that transformers adds when it loads the tokenizer because only its configuration knows them."""
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_bytes()) if path.is_file() else {}
    entries = [config.get(key) for key in _SPECIAL_KEYS]
    entries += list(config.get("added_tokens_decoder", {}).values())
    for key in ("additional_special_tokens", "extra_special_tokens"):
        extra = config.get(key) or []
        entries += list(extra.values()) if isinstance(extra, dict) else list(extra)
    contents = {entry.get("content") if isinstance(entry, dict) else entry for entry in entries}
    return {content for content in contents if isinstance(content, str)}


def _identify(folder: Path) -> dict[str, Any]:
    config = read_config(folder)
    vocabulary = read_vocabulary(folder)
    tensors = open_all(folder)
    embedding = [name for name in tensors if name.endswith(EMBEDDING_SUFFIXES)]
    if len(embedding) != 1:
        raise InvalidError(
            f"{folder.name} has {len(embedding)} input embeddings, one is needed: the architecture is not supported",
            field="base",
        )
    rows = tensors[embedding[0]].tensors[embedding[0]].shape[0]
    if vocabulary > rows:
        raise InvalidError(
            f"{folder.name}: the tokenizer has {vocabulary} tokens but the embedding only {rows} rows", field="base"
        )
    files = {path.name: sha256_of(path) for path in base_files(folder)}
    return {
        "digest": _digest(files),
        "compatibility": _compatibility(config, tensors, embedding[0], vocabulary),
        "vocabulary": vocabulary,
        "rows": rows,
    }


def _compatibility(config: dict[str, Any], tensors: Mapping[str, Weights], embedding: str, vocabulary: int) -> str:
    tied = bool(config.get("tie_word_embeddings", False))
    content = {}
    for name in sorted(tensors):
        if tied and name in HEAD_NAMES:
            continue
        tensor = tensors[name].tensors[name]
        raw = tensors[name].raw(name)
        shape = list(tensor.shape)
        if name == embedding or name in HEAD_NAMES:
            raw = raw[: len(raw) // shape[0] * vocabulary]
            shape[0] = vocabulary
        content[name] = [tensor.dtype, shape, hashlib.sha256(raw).hexdigest()]
    stable = {key: value for key, value in config.items() if key not in _VOLATILE}
    return _digest({"config": stable, "tensors": content})


def _digest(content: object) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _read_json(folder: Path, name: str, hint: str) -> dict[str, Any]:
    try:
        content = json.loads((folder / name).read_bytes())
    except FileNotFoundError:
        raise NotFoundError(f"{folder} has no {name}: {hint}", field="base") from None
    except ValueError as error:
        raise InvalidError(f"{folder.name}/{name} is not JSON: {error}", field="base") from error
    if not isinstance(content, dict):
        raise InvalidError(f"{folder.name}/{name} is not a JSON object", field="base")
    return content


def _cache_key(folder: Path) -> str:
    """Changes with any file that counts: its name, size, time of change and place on disk."""
    state = [(path.name, s.st_size, s.st_mtime_ns, s.st_ino) for path in base_files(folder) for s in [path.stat()]]
    return _digest(["1", str(folder.resolve()), state]).removeprefix("sha256:")


def _kept(key: str) -> dict[str, Any] | None:
    try:
        content = json.loads((default_folder() / "bases" / f"{key}.json").read_bytes())
        BaseIdentity(reference="", **content)
    except (OSError, ValueError, TypeError):
        return None
    return dict(content)


def _keep(key: str, identity: dict[str, Any]) -> None:
    """Best effort: without a writable cache the weights are read again next time."""
    folder = default_folder() / "bases"
    part = folder / f".{key}.{os.getpid()}.{uuid.uuid4().hex[:8]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(identity))
        part.replace(folder / f"{key}.json")
    except OSError:
        part.unlink(missing_ok=True)
