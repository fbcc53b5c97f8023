"""What stops a run that cannot come to anything: a loss that is no number or runs away, weights that do not move."""

import math
from collections import deque
from collections.abc import Iterable, Sequence

from torch import Tensor, nn

from loradeck_registry.errors import PreconditionError
from loradeck_train.loop.world import World
from loradeck_train.model.sharding import part

_WINDOW = 20
_FACTOR = 2.0
_MARGIN = 1.0
_SAMPLED = 512


class LossGuard:
    """Looks at every step's loss and gradient norm."""

    def __init__(self, learning_rate: float) -> None:
        self._advice = f"lower optimisation.learning_rate (it is {learning_rate:g})"
        self._recent: deque[tuple[float, str]] = deque(maxlen=_WINDOW)
        self._lowest = math.inf

    def check(self, step: int, loss: float, gradient_norm: float, rows: Sequence[int]) -> None:
        """Raise PreconditionError: LOSS_NOT_FINITE, or LOSS_DIVERGED when the mean of the last 20 steps is more than
        twice the lowest such mean, and 1 nat above it. Both name the rows of the batch, counted from 1."""
        if not (math.isfinite(loss) and math.isfinite(gradient_norm)):
            raise PreconditionError(
                f"training diverged: loss {loss}, gradient norm {gradient_norm} at step {step}, in the batch of "
                f"{describe_rows(rows)}; {self._advice}, or look at these rows",
                reason="LOSS_NOT_FINITE",
            )
        self._recent.append((loss, f"step {step} of {describe_rows(rows)}"))
        if len(self._recent) < _WINDOW:
            return
        mean = sum(value for value, _ in self._recent) / _WINDOW
        self._lowest = min(self._lowest, mean)
        if mean > _FACTOR * self._lowest and mean > self._lowest + _MARGIN:
            worst, where = max(self._recent)
            raise PreconditionError(
                f"training diverged: the loss of the last {_WINDOW} steps is {mean:.2f} and was {self._lowest:.2f} at "
                f"its lowest (worst {worst:.2f}, {where}); {self._advice}",
                reason="LOSS_DIVERGED",
            )


def describe_rows(rows: Iterable[int], most: int = 8) -> str:
    """`rows 3, 5, 9 and 12 more`, counted from 1."""
    numbers = sorted(index + 1 for index in rows)
    shown = ", ".join(map(str, numbers[:most]))
    return f"rows {shown}" + (f" and {len(numbers) - most} more" if len(numbers) > most else "")


class WeightsMoved:
    """Compares a sample of every trained tensor with what it was before the first step."""

    def __init__(self, model: nn.Module) -> None:
        self._before = {name: _sample(p) for name, p in model.named_parameters() if p.requires_grad}

    def unmoved(self, model: nn.Module) -> list[str]:
        """Names of the trained tensors whose sample is still what it was. Raises PreconditionError
        (WEIGHTS_DID_NOT_MOVE) if that is all of them."""
        now = dict(model.named_parameters())
        still = {name for name, before in self._before.items() if bool((_sample(now[name]) == before).all())}
        # Where weights are sharded, a tensor has moved if any part of it has.
        everywhere = set.intersection(*World.here().collect(still))
        found = [name for name in self._before if name in everywhere]
        if len(found) == len(self._before):
            raise PreconditionError(
                "the first steps changed none of the trained weights: the learning rate is too small for their "
                "precision, or no gradient reaches them",
                reason="WEIGHTS_DID_NOT_MOVE",
            )
        return found


def _sample(parameter: Tensor) -> Tensor:
    flat = part(parameter).detach().reshape(-1)
    return flat[:: max(1, flat.numel() // _SAMPLED)].clone()
