"""Gates: rules over evaluations that a protected alias demands of every revision it is pointed to."""

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from loradeck_registry.errors import InvalidError

_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt, "==": operator.eq,
}  # fmt: skip
_NUMBER = r"[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?"
_RULE = re.compile(
    rf"\s*(?P<metric>[A-Za-z_][A-Za-z0-9_.:@/-]*)\s*(?P<comparison>>=|<=|==|>|<)\s*"
    rf"(?:(?P<value>-?{_NUMBER})|@(?P<alias>[a-z0-9][a-z0-9._-]*)(?:\s*(?P<sign>[+-])\s*(?P<offset>{_NUMBER}))?)\s*"
)


@dataclass(frozen=True)
class Rule:
    """`metric comparison value`, or `metric comparison @alias + value`: against what the alias points to now."""

    text: str
    metric: str
    comparison: str
    value: float
    alias: str | None

    @classmethod
    def parse(cls, text: str) -> "Rule":
        """Parse `macro_f1 >= 0.8` or `macro_f1 >= @prod - 0.01`. Raises InvalidError."""
        match = _RULE.fullmatch(text)
        if match is None:
            raise InvalidError(
                f"bad rule {text[:120]!r}: write it as `macro_f1 >= 0.8` or `macro_f1 >= @prod - 0.01`",
                reason="BAD_RULE",
                field="rules",
            )
        alias = match["alias"]
        number = float(match["offset"] or 0) if alias else float(match["value"])
        return cls(
            text.strip(), match["metric"], match["comparison"], -number if match["sign"] == "-" else number, alias
        )

    def failure(self, metrics: Mapping[str, float], others: Mapping[str, Mapping[str, float]]) -> str | None:
        """Why a revision with these metrics fails the rule, None if it passes.

        `others` gives the metrics of what each alias points to. An alias that does not exist yet compares with
        nothing and passes; a metric that is not stated on either side fails.
        """
        mine = _find(metrics, self.metric)
        if mine is None:
            return f"{self.text}: the revision has no {self.metric}"
        bound = self.value
        if self.alias is not None:
            if self.alias not in others:
                return None
            theirs = _find(others[self.alias], self.metric)
            if theirs is None:
                return f"{self.text}: {self.alias} points to a revision without {self.metric}"
            bound += theirs
        if _COMPARISONS[self.comparison](mine, bound):
            return None
        return f"{self.text}: it is {mine:g}, the bound {bound:g}"


def _find(metrics: Mapping[str, float], name: str) -> float | None:
    """A metric by its full dotted name, or by its last part where that is unique."""
    if name in metrics:
        return metrics[name]
    found = [value for key, value in metrics.items() if key.rpartition(".")[2] == name]
    return found[0] if len(found) == 1 else None
