"""Metrics of answers by name: what `--metric` chooses from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from loradeck_bench.evaluation import answers, embedding
from loradeck_bench.evaluation.answers import Metric
from loradeck_bench.evaluation.structured.database import Database
from loradeck_bench.evaluation.structured.gsm8k import MARKER, gsm8k
from loradeck_bench.evaluation.structured.sql import sql
from loradeck_bench.evaluation.structured.viggo import viggo
from loradeck_registry.errors import InvalidError, LoradeckError, NotFoundError


@dataclass(frozen=True)
class MetricSettings:
    """What some metrics need."""

    embedding_model: Path | None = None
    """Local folder; BERTScore and semantic similarity ask for it."""
    marker: str = MARKER
    """What stands before the final number of a GSM8K answer."""
    database: Path | None = None
    """SQLite file that SQL answers are run on."""
    query_seconds: float = 5.0
    query_rows: int = 10_000


_PLAIN: dict[str, Metric] = {
    "bleu": answers.bleu,
    "lengths": answers.lengths,
    "rouge_1": answers.rouge_1,
    "chrf": answers.chrf,
    "tfidf_cosine": answers.tfidf_cosine,
    "exact_match": answers.exact_match,
    "viggo": viggo,
}
_WITH_SETTINGS: dict[str, Callable[[MetricSettings], Metric]] = {
    "gsm8k": lambda settings: partial(gsm8k, marker=settings.marker),
    "sql": lambda settings: partial(sql, database=_database(settings)),
    "bert_score": lambda settings: partial(embedding.bert_score, _model(settings, sentences=False)),
    "sem_sim": lambda settings: partial(embedding.semantic_similarity, _model(settings, sentences=True)),
}
_READ_REFERENCES = ("gsm8k", "viggo", "sql")
NAMES = (*_PLAIN, *_WITH_SETTINGS)
"""All metrics of answers."""


def choose(names: Sequence[str], settings: MetricSettings | None = None) -> list[Metric]:
    """The metrics called `names`; with none, those of texts, and those of the embedding model if there is one.

    Raises NotFoundError (UNKNOWN_METRIC), and InvalidError where a metric lacks what it needs.
    """
    given = settings or MetricSettings()
    if not names:
        names = list(_PLAIN)[:6]
        if given.embedding_model is not None:
            sentences = (given.embedding_model / "modules.json").is_file()
            names += ["bert_score", "sem_sim"] if sentences else ["bert_score"]
    return [_one(name, given) for name in dict.fromkeys(names)]


def check_models(metrics: Sequence[Metric]) -> None:
    """Compute the metrics of an embedding model once, on one pair of texts: a model that cannot be used is told before
    anything is asked. Raises InvalidError (NO_MODEL)."""
    for metric in metrics:
        if isinstance(metric, partial) and metric.func in (embedding.bert_score, embedding.semantic_similarity):
            try:
                metric(["a text"], ["a text"])
            except LoradeckError:
                raise
            except Exception as error:
                line = " ".join(str(error).split())[:200] or type(error).__name__
                raise InvalidError(
                    f"the embedding model cannot be used: {line}", reason="NO_MODEL", field="model"
                ) from error


def check_references(names: Sequence[str], settings: MetricSettings, references: Sequence[str]) -> None:
    """Raise InvalidError now, before anything is asked, where metrics could not read the references."""
    kept = [reference for reference in references if reference.strip()]
    for name in names:
        if name in _READ_REFERENCES and kept:
            try:
                _one(name, settings)([""] * len(kept), kept)
            except ValueError as error:
                raise InvalidError(str(error), reason="BAD_DATA", field="data") from None


def _one(name: str, settings: MetricSettings) -> Metric:
    if name in _PLAIN:
        return _PLAIN[name]
    if name not in _WITH_SETTINGS:
        raise NotFoundError(
            f"no metric {name!r}: there are {', '.join(NAMES)}", reason="UNKNOWN_METRIC", field="metric"
        )
    return _WITH_SETTINGS[name](settings)


def _database(settings: MetricSettings) -> Database | None:
    if settings.database is None:
        return None
    return Database(settings.database, seconds=settings.query_seconds, rows=settings.query_rows)


def _model(settings: MetricSettings, *, sentences: bool) -> Path:
    if settings.embedding_model is None:
        raise InvalidError(
            "bert_score and sem_sim need a local model: --embedding-model FOLDER", reason="NO_MODEL", field="model"
        )
    embedding.check_library(sentences=sentences)
    embedding.check_model(settings.embedding_model, sentences=sentences)
    return settings.embedding_model
