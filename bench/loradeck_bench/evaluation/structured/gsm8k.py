"""GSM8K: the number behind the last marker (strict), and the last number anywhere (flexible), against the gold one."""

import re
from collections.abc import Sequence
from decimal import Decimal

from loradeck_bench.evaluation.figure import Figure, mean
from loradeck_bench.evaluation.measured import method

MARKER = "####"
"""What stands before the final answer in GSM8K's own solutions."""
_NUMBER = r"[-−]?\s?\$?\s?(?:\d[\d,]*(?:\.\d+)?|\.\d+)"
_BEHIND_MARKER = re.compile(rf"\s*({_NUMBER})(?![\d/])")
_ANYWHERE = re.compile(rf"(?<![\w.])({_NUMBER})")


def strict(text: str, marker: str = MARKER) -> Decimal | None:
    """The number right behind the last `marker`; None without a marker, or where something else follows it."""
    _, found, rest = text.rpartition(marker)
    match = _BEHIND_MARKER.match(rest) if found else None
    return _value(match[1]) if match else None


def flexible(text: str) -> Decimal | None:
    """The last number in `text`, None without any."""
    numbers = _ANYWHERE.findall(text)
    return _value(numbers[-1]) if numbers else None


def gsm8k(answers: Sequence[str], references: Sequence[str], marker: str = MARKER) -> dict[str, Figure]:
    """`gsm8k_strict`, `gsm8k_flexible`, and `gsm8k_marked`, the share of answers with a number behind the marker.

    A reference is a solution with the marker, or the number alone. Raises ValueError for one with neither.
    """
    gold = [_gold(reference, marker) for reference in references]
    marked = [strict(answer, marker) for answer in answers]
    last = [flexible(answer) for answer in answers]
    numbers = "compared as decimals without $ and thousands commas"
    return {
        "gsm8k_strict": mean(
            [a == g for a, g in zip(marked, gold, strict=True)],
            method("loradeck", f"the number behind the last {marker!r}; {numbers}"),
        ),
        "gsm8k_flexible": mean(
            [a == g for a, g in zip(last, gold, strict=True)],
            method("loradeck", f"the last number in the answer; {numbers}"),
        ),
        "gsm8k_marked": mean(
            [number is not None for number in marked], method("loradeck", f"share with a number behind {marker!r}")
        ),
    }


def _gold(reference: str, marker: str) -> Decimal:
    number = strict(reference, marker)
    if number is None and re.fullmatch(rf"\s*{_NUMBER}\s*", reference):
        number = _value(reference)
    if number is None:
        raise ValueError(f"no number behind {marker!r} in the reference {reference[-60:]!r}")
    return number


def _value(text: str) -> Decimal:
    return Decimal(re.sub(r"[$,\s]", "", text).replace("−", "-"))
