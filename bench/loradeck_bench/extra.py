"""Says which extra to install when a measurement needs libraries that the plain install does not bring."""

from importlib.util import find_spec

from loradeck_registry.errors import PreconditionError

METRICS = ("sklearn", "scipy", "sacrebleu", "rouge_score", "sqlglot")
"""What evaluation needs."""
JUDGE = ("openai",)
"""What a judge behind an endpoint needs."""
PAGES = ("jinja2", "matplotlib")
"""What HTML reports need."""
TRAINING = ("torch", "transformers", "peft")
"""What training needs."""
DATA = ("httpx",)
"""What building data sets with a model needs."""
ENGINE = ("vllm", "grpc_health")
"""What serving needs."""

_EXTRAS = {
    METRICS: "bench",
    JUDGE: "bench",
    PAGES: "bench",
    TRAINING: "train",
    DATA: "train",
    ENGINE: "serve-cpu (or serve-gpu)",
}


def missing(modules: tuple[str, ...]) -> list[str]:
    """Those of `modules` that are not installed."""
    return [module for module in modules if find_spec(module) is None]


def require(*needs: tuple[str, ...]) -> None:
    """Raise PreconditionError (MISSING_PACKAGE) naming the extra if a module of `needs` is not installed."""
    for modules in needs:
        if absent := missing(modules):
            raise PreconditionError(
                f"this needs {', '.join(absent)}: install the extra {_EXTRAS[modules]}, "
                "for example pip install 'loradeck[train,serve-cpu,bench]'",
                reason="MISSING_PACKAGE",
            )
