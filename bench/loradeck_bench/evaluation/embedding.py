"""BERTScore and semantic similarity, where a local embedding model is given; each figure is named by its model."""

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path

from loradeck_bench.evaluation.figure import Figure, mean
from loradeck_bench.evaluation.measured import method
from loradeck_registry.errors import InvalidError, PreconditionError

_TOKENS = ("bert_score", "bert-score")
_SENTENCES = ("sentence_transformers", "sentence-transformers")


def check_model(folder: Path, *, sentences: bool) -> None:
    """Raise InvalidError unless `folder` holds a model, and with `sentences` one of sentence-transformers."""
    for name in ("config.json", "modules.json") if sentences else ("config.json",):
        if not (folder / name).is_file():
            what = "sentence-transformers" if name == "modules.json" else "embedding"
            raise InvalidError(f"no {what} model in {folder}: {name} is missing", reason="NO_MODEL", field="model")


def check_library(*, sentences: bool) -> None:
    """Raise PreconditionError (MISSING_PACKAGE) if the library of the metric is not installed."""
    module, distribution = _SENTENCES if sentences else _TOKENS
    if importlib.util.find_spec(module) is None:
        raise PreconditionError(
            f"this metric needs {distribution}: pip install {distribution}", reason="MISSING_PACKAGE"
        )


def bert_score(folder: Path, answers: Sequence[str], references: Sequence[str]) -> dict[str, Figure]:
    """`bert_score_f1:<model>`: mean BERTScore F1 without rescaling, from the layer tuned for that model if bert-score
    knows it by the folder's name, else from the last."""
    check_model(folder, sentences=False)
    check_library(sentences=False)
    library = importlib.import_module(_TOKENS[0])
    layers = int(json.loads((folder / "config.json").read_text())["num_hidden_layers"])
    layer = min(int(library.utils.model2layers.get(folder.name, layers)), layers)
    values = [0.0] * len(answers)
    # bert-score 0.3.13 asks tokenizers of transformers 5 for a method that they lost, for empty texts only.
    kept = [number for number, answer in enumerate(answers) if answer.strip() and references[number].strip()]
    if kept:
        pairs = [answers[number] for number in kept], [references[number] for number in kept]
        _, _, f1 = library.score(*pairs, model_type=str(folder), num_layers=layer, lang=None, verbose=False)
        for number, value in zip(kept, f1.tolist(), strict=True):
            values[number] = value
    settings = (f"layer {layer} of {layers}", "no rescaling", "no idf", "an empty answer scores 0")
    how = method("bert-score", f"model {folder.name}", *settings)
    return {f"bert_score_f1:{folder.name}": mean(values, how)}


def semantic_similarity(folder: Path, answers: Sequence[str], references: Sequence[str]) -> dict[str, Figure]:
    """`sem_sim:<model>`: mean cosine of sentence embeddings. The method line says what share of texts was cut."""
    check_model(folder, sentences=True)
    check_library(sentences=True)
    library = importlib.import_module(_SENTENCES[0])
    model = library.SentenceTransformer(str(folder), device="cpu")
    texts = [*answers, *references]
    vectors = model.encode(texts, normalize_embeddings=True, show_progress_bar=False)
    count = len(answers)
    cosines = (vectors[:count] * vectors[count:]).sum(axis=1)
    limit = int(model.max_seq_length)
    lengths = [len(ids) for ids in model.tokenizer(texts, truncation=False)["input_ids"]]
    cut = sum(length > limit for length in lengths) / len(lengths)
    how = method(
        "sentence-transformers", f"model {folder.name}", "cosine", f"{cut:.1%} of texts cut at {limit} word pieces"
    )
    return {f"sem_sim:{folder.name}": mean(cosines.tolist(), how)}
