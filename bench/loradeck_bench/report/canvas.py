"""Shared look of the figures, and their embedding as SVG data addresses."""

import base64
import functools
import io
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

COLOURS = {"tfidf": "#9aa55f", "base": "#8d99a6", "lora": "#2f6db5", "full": "#d9822b"}
"""Colour of each model wherever it is drawn."""
NAMES = {"tfidf": "TF-IDF + logistic regression", "base": "base", "lora": "LoRA", "full": "full fine-tuning"}
"""How models are called in figures and tables."""
PALETTE = ("#2f6db5", "#d9822b", "#4c9f70", "#a04e9c", "#b3423a", "#5b6770")
_STYLE = {
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#e3e6ea",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "svg.hashsalt": "loradeck",
}


def styled(draw: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Draw in the shared look, without changing matplotlib's settings for anybody else."""

    @functools.wraps(draw)
    def drawn(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        with rc_context(_STYLE):
            return draw(*args, **kwargs)

    return drawn


def subplots(columns: int, *, width: float, height: float = 3.0) -> tuple[Figure, list[Axes]]:
    """A figure of one row of axes, `width` and `height` in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, [figure.add_subplot(1, columns, index + 1) for index in range(columns)]


def embedded(figure: Figure) -> str:
    """The figure as an SVG `data:` address; text becomes paths, so no font is needed."""
    out = io.BytesIO()
    metadata: dict[str, Any] = {"Date": None, "Creator": None}
    figure.savefig(out, format="svg", metadata=metadata)
    drawing = out.getvalue()
    drawing = drawing[drawing.index(b"<svg") :]  # without the prologue, whose DTD has an outside address
    return "data:image/svg+xml;base64," + base64.b64encode(drawing).decode("ascii")
