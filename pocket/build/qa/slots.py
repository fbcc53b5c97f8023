"""Draws the facts of one project: names, dates, amounts and composed phrases, from pools that differ by split."""

import random
from dataclasses import dataclass
from typing import Literal

from sectors import Sector

Split = Literal["train", "test"]


def _words(text: str) -> list[str]:
    return text.split()


_PLACE_START = _words(
    "Ald Bar Cor Dun Elm Fen Gar Hol Kes Lor Mar Nor Oak Pen Ros Sel Tor Val Wes Yar Bren Cal Dor Hex"
)
_PLACE_END = _words("bury ton field mouth wick grin stad haven moor dale rick ford vale borg minster nara oka una")
_FIRST = _words(
    "Marta Amina Jonas Lucia Pavel Ingrid Tomas Nadia Hugo Elena Karim Sofia Viktor Priya Daniel Leila Oscar Greta "
    "Mateo Yuki Farid "
    "Clara Anton Noor Ruben Tessa Emil Salma Igor Bianca Henrik Aisha Milan Rosa Felix Zoya Andre Mina Boris"
)
_LAST_START = _words(
    "Oka Ber Lind Var Sol Kov Mar Hal Ten Ros Fer Dal Nys Gra Pet Sand Wei Mor Bel Ruz Chev Ost Il Jan"
)
_LAST_END = _words("for gren man ski nova vik ley ton dez quist mann ovic ara berg sen let ini well")
_FIRM_START = _words(
    "Nexa Orbi Velo Tera Lumi Quan Syno Arka Plex Cira Novu Delta Zeno Mira Fera Kodo Altu Vanta Opti Riva"
)
_FIRM_END = _words("link soft dyne core grid wave tec scan mind data path bit works logic")
_FIRM_KIND = ("Systems", "Labs", "Networks", "Software", "Engineering", "Group")
_TITLE = _words(
    "Harbour Northern Bright Silver River Open Second Golden Common Clear Rapid Central United Amber Coastal Quiet "
    "Granite Maple Summit Bridge Lantern Falcon Cedar Compass Meridian Aurora Cobalt Willow Orchard Pioneer"
)
_ROLE = {
    "train": (
        "the project director", "the chief engineer", "the head of data", "a former nurse", "the deputy mayor",
        "the chief economist", "the programme manager", "a professor of statistics", "the technical director",
        "a lawyer by training", "the chief information officer", "the head of operations",
    ),
    "test": (
        "the transformation officer", "an experienced planner", "the innovation manager", "a computer scientist",
        "the commercial director", "a retired judge",
    ),
}  # fmt: skip
MONTHS = _words("January February March April May June July August September October November December")
_LESS = {"train": ("reduce", "cut", "limit", "lower"), "test": ("reduce", "cut", "curb", "bring down")}
_MORE = {"train": ("improve", "extend", "support", "modernise"), "test": ("improve", "extend", "strengthen", "expand")}
_REASON = {
    "train": (
        "{bad} had doubled within {n} years",
        "{who} kept complaining about {bad}",
        "{good} no longer met the needs of {who}",
        "{bad} had become too costly for {who}",
        "{who} had no access to {good}",
        "{data} were still handled by hand",
    ),
    "test": (
        "{bad} hit {who} harder every season",
        "{who} demanded modern {good}",
        "{good} were outdated and {who} turned away",
        "{bad} consumed {n} percent of the revenue",
    ),
}
_RISK = {
    "train": (
        "{who} may not trust {head}",
        "errors in {data} could go unnoticed",
        "{data} could leak to outsiders",
        "{bad} may return after the pilot",
        "{who} could become dependent on one supplier",
        "{head} might misread {data}",
    ),
    "test": (
        "{data} might be stolen by hackers",
        "{who} without smartphones are left behind",
        "gaps in {data} distort the output",
        "savings on {bad} stay below the forecast",
    ),
}
_RESULT = {
    "train": (
        "{bad} fell by {n} percent",
        "{n} percent of {who} report better {good}",
        "{bad} fell in {m} {unit}",
        "{who} save {n} minutes a day",
        "complaints about {bad} fell by {n} percent",
        "{good} now reach {n} percent of {who}",
    ),
    "test": (
        "{bad} went down by {n} percent",
        "{who} gained {n} hours per month",
        "satisfaction with {good} climbed {n} points",
        "{m} {unit} recorded fewer {bad}",
    ),
}
_NEXT = {
    "train": (
        "connect {m} more {unit}",
        "publish {data} for {who}",
        "train {who} in the new system",
        "test {head} in {m} {unit}",
        "offer {good} to all {who}",
        "replace the old system in {m} {unit}",
    ),
    "test": (
        "equip another {m} {unit}",
        "open {good} to {who} abroad",
        "let {who} inspect {data}",
        "purchase {head} for {m} {unit}",
    ),
}
_WHEN = ("early {y}", "spring {y}", "summer {y}", "autumn {y}", "late {y}")
_CURRENCY = ("euros", "dollars", "pounds", "francs", "crowns")


@dataclass(frozen=True)
class Project:
    """Everything that can be told about one project; `slots` fills the sentence families."""

    sector: str
    slots: dict[str, str]


def _side(key: str) -> Split:
    """Which split owns a drawn name, date or amount: a stable hash, so that the pools never meet."""
    value = 0
    for character in key:
        value = (value * 131 + ord(character)) % 1_000_003
    return "test" if value % 4 == 0 else "train"


def _owned(rng: random.Random, split: Split, *parts: tuple[str, ...] | list[str], joint: str = "") -> str:
    while True:
        text = joint.join(rng.choice(part) for part in parts)
        if _side(text) == split:
            return text


def _date(rng: random.Random, split: Split) -> str:
    days, years = [str(day) for day in range(1, 29)], [str(year) for year in range(2015, 2026)]
    return _owned(rng, split, days, MONTHS, years, joint=" ")


def _budget(rng: random.Random, split: Split) -> str:
    while True:
        tenths = rng.randrange(11, 990)
        number = f"{tenths / 10:.1f}".removesuffix(".0")
        text = f"{number} million {rng.choice(_CURRENCY)}"
        if _side(text) == split:
            return text


def person(rng: random.Random, split: Split) -> str:
    """A full name of the split's own."""
    return f"{rng.choice(_FIRST)} {_owned(rng, split, _LAST_START, _LAST_END)}"


def place(rng: random.Random, split: Split) -> str:
    """A place name of the split's own."""
    return _owned(rng, split, _PLACE_START, _PLACE_END)


def firm(rng: random.Random, split: Split) -> str:
    """A company name of the split's own."""
    return f"{_owned(rng, split, _FIRM_START, _FIRM_END)} {rng.choice(_FIRM_KIND)}"


def draw_project(rng: random.Random, sector: Sector, split: Split) -> Project:
    """Draw one project of `sector`, its names from the pools of `split`."""

    def goal(verbs: tuple[str, ...], things: tuple[str, ...]) -> str:
        return f"{rng.choice(verbs)} {rng.choice(things)}" + rng.choice(("", f" for {rng.choice(sector.who)}"))

    head = rng.choice(sector.head)

    def compose(forms: tuple[str, ...]) -> str:
        return rng.choice(forms).format(
            bad=rng.choice(sector.bad), good=rng.choice(sector.good), who=rng.choice(sector.who), head=head,
            data=rng.choice(sector.data), unit=rng.choice(sector.unit), n=rng.randrange(3, 48), m=rng.randrange(3, 90),
        )  # fmt: skip

    goals = [goal(_LESS[split], sector.bad), goal(_MORE[split], sector.good)]
    rng.shuffle(goals)
    date = _date(rng, split)
    units = rng.sample(sector.unit, 2)
    scope = f"{rng.randrange(3, 90)} {units[0]}"
    if rng.random() < 0.5:
        scope += f" and {rng.randrange(3, 90)} {units[1]}"
    year = int(date[-4:]) + rng.randrange(2, 5)
    slots = {
        "org": rng.choice(sector.organisations).format(place=place(rng, split)),
        "prog": f"{_owned(rng, split, _TITLE, sector.nouns, joint=' ')}",
        "date": date,
        "goal_a": goals[0],
        "goal_b": goals[1],
        "reason": compose(_REASON[split]),
        "lead": person(rng, split),
        "role": rng.choice(_ROLE[split]),
        "budget": _budget(rng, split),
        "partner": firm(rng, split),
        "head": head,
        "action": rng.choice(sector.action),
        "scope": scope,
        "risk": compose(_RISK[split]),
        "result": compose(_RESULT[split]),
        "next": compose(_NEXT[split]),
        "when": rng.choice(_WHEN).format(y=year),
    }
    return Project(sector.key, slots)
