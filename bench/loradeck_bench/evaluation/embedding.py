"""BERTScore and semantic similarity, where a local embedding model is given; each figure is named by its model."""

import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from loradeck_bench.evaluation.answers import Extra
from loradeck_bench.evaluation.measured import Measured, mean_of, method
from loradeck_registry.errors import InvalidError, PreconditionError


def embedding_metrics(folder: Path) -> list[Extra]:
    """The metrics that a local model folder allows: sentence similarity for a sentence-transformers folder, and
    BERTScore for any encoder. Raises InvalidError for a folder that holds no model."""
    if not (folder / "config.json").is_file():
        raise InvalidError(f"no embedding model in {folder}: config.json is missing", reason="NO_MODEL", field="model")
    metrics: list[Extra] = [lambda answers, references: bert_score(folder, answers, references)]
    if (folder / "modules.json").is_file():
        metrics.append(lambda answers, references: semantic_similarity(folder, answers, references))
    return metrics


def bert_score(folder: Path, answers: Sequence[str], references: Sequence[str]) -> dict[str, Measured]:
    """`bert_score_f1:<model>`: mean BERTScore F1 without rescaling, from the layer tuned for that model if bert-score
    knows it by the folder's name, else from the last."""
    library = _needed("bert_score", "bert-score")
    layers = int(json.loads((folder / "config.json").read_text())["num_hidden_layers"])
    layer = min(int(library.utils.model2layers.get(folder.name, layers)), layers)
    _, _, f1 = library.score(
        list(answers), list(references), model_type=str(folder), num_layers=layer, lang=None, verbose=False
    )
    how = method("bert-score", f"model {folder.name}", f"layer {layer} of {layers}", "no rescaling", "no idf")
    return {f"bert_score_f1:{folder.name}": mean_of(f1.tolist(), how)}


def semantic_similarity(folder: Path, answers: Sequence[str], references: Sequence[str]) -> dict[str, Measured]:
    """`sem_sim:<model>`: mean cosine of sentence embeddings. The method line says what share of texts was cut."""
    library = _needed("sentence_transformers", "sentence-transformers")
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
    return {f"sem_sim:{folder.name}": mean_of(cosines.tolist(), how)}


def _needed(module: str, distribution: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise PreconditionError(
            f"this metric needs {distribution}: pip install {distribution} ({error})", reason="MISSING_PACKAGE"
        ) from error
