"""What a publication states, as a data file: table or figure, row, column, value."""

from pydantic import Field

from loradeck_bench.study.format.strict import Strict, Text


class PublishedValue(Strict):
    """A value with something to say about it."""

    value: float | str | None = Field(default=None, description="null: not stated")
    note: str = ""
    wrong: str = Field(default="", description="why it cannot be right")


class PublishedPart(Strict):
    """A table or a figure of the publication."""

    title: str = ""
    missing: bool = Field(default=False, description="a picture that our copy lacks: shown as `not in our copy`")
    rows: dict[Text, dict[Text, float | str | None | PublishedValue]] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def value(self, row: str, column: str) -> PublishedValue | None:
        """The value there, None if the part says nothing of it."""
        if row not in self.rows or column not in self.rows[row]:
            return None
        found = self.rows[row][column]
        return found if isinstance(found, PublishedValue) else PublishedValue(value=found)


class Published(Strict):
    """All that a publication states and a study refers to, by the ids of tables and figures."""

    source: Text = Field(description="authors, title, year")
    parts: dict[Text, PublishedPart]
