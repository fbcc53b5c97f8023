"""A setting that can change while the server runs."""

from typing import Generic, TypeVar

T = TypeVar("T")


class Live(Generic[T]):
    """Holds what is valid now. Read `now` for each request, and keep no part of it longer than that."""

    def __init__(self, now: T) -> None:
        self.now = now
