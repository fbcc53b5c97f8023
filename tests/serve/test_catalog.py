"""What references mean on one server, while the registry moves on."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from loradeck_serve.catalog.catalog import Catalog
from tests.serve.deck import Deck


@pytest.mark.parametrize(("first", "second"), [("clf@prod", "clf"), ("clf", "clf@prod")])
async def test_bare_name_and_its_alias_mean_the_same_until_the_flip(deck: Deck, first: str, second: str) -> None:
    with ThreadPoolExecutor() as executor:
        catalog = Catalog(deck.registry, executor)
        assert (await catalog.meaning(first)).main.number == 1
        deck.registry.move_alias("clf", "prod", "2")
        # Asked for the first time after the move, which this server has not followed yet.
        assert (await catalog.meaning(second)).main.number == 1
        for pointer in catalog.pointers({"clf"}):
            catalog.flip(pointer, await catalog.read(pointer.reference))
        assert {(await catalog.meaning(text)).main.number for text in (first, second)} == {2}


async def test_other_aliases_of_a_name_keep_their_own_meaning(deck: Deck) -> None:
    with ThreadPoolExecutor() as executor:
        catalog = Catalog(deck.registry, executor)
        deck.registry.move_alias("clf", "next", "2")
        assert [(await catalog.meaning(text)).main.number for text in ("clf", "clf@next", "clf@prod")] == [1, 2, 1]
