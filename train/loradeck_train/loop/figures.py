"""Loss and memory of a run as one picture."""

import io
from collections.abc import Mapping, Sequence
from importlib.util import find_spec


def draw_run(title: str, steps: Sequence[Mapping[str, float]], looks: Sequence[Mapping[str, float]]) -> bytes | None:
    """A PNG: loss by step with the validation losses, and memory by step in MiB. None without matplotlib.

    `steps` are the history's entries, `looks` have `step` and `validation_loss`.
    """
    if find_spec("matplotlib") is None or not steps:
        return None
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    at = [entry["step"] for entry in steps]
    above.plot(at, [entry["loss"] for entry in steps], linewidth=0.8, label="training")
    if looks:
        above.plot([e["step"] for e in looks], [e["validation_loss"] for e in looks], "o-", label="validation")
    above.set(title=title, ylabel="loss (nats by token)")
    above.legend()
    below.plot(at, [entry.get("memory_bytes", 0) / 2**20 for entry in steps], linewidth=0.8, color="tab:green")
    below.set(xlabel="step", ylabel="memory (MiB)", ylim=(0, None))
    content = io.BytesIO()
    FigureCanvasAgg(figure).print_png(content)
    return content.getvalue()
