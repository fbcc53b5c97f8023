"""Scoring candidates over a trie of shared prefixes."""

import math

import pytest

from loradeck_serve.engine.scoring import MAX_IDS, next_tokens, score_candidates


class Model:
    """A made-up next-token function that records its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[tuple[int, ...], tuple[int, ...]]] = []

    def value(self, prefix, token) -> float:
        return -math.log(2 + token + 10 * sum(prefix) + len(prefix))

    async def __call__(self, prefix, tokens):
        self.calls.append((prefix, tuple(tokens)))
        return {token: self.value(prefix, token) for token in tokens}


async def test_every_token_of_every_candidate_gets_its_own_value() -> None:
    model = Model()
    candidates = [(1, 2, 3), (1, 2, 4), (1, 5), (6,), (1, 2, 3)]
    found = await score_candidates(candidates, model)
    for candidate, values in zip(candidates, found, strict=True):
        assert values == tuple(model.value(candidate[:i], token) for i, token in enumerate(candidate))


async def test_each_shared_prefix_is_computed_once_and_the_prompt_first() -> None:
    model = Model()
    await score_candidates([(1, 2, 3), (1, 2, 4), (1, 5), (6,)], model)
    assert model.calls[0] == ((), (1, 6))
    assert sorted(model.calls[1:]) == [((1,), (2, 5)), ((1, 2), (3, 4))]


async def test_single_tokens_take_one_pass() -> None:
    model = Model()
    await score_candidates([(token,) for token in range(MAX_IDS)], model)
    assert len(model.calls) == 1


async def test_more_tokens_than_one_pass_returns_are_split() -> None:
    model = Model()
    found = await score_candidates([(token,) for token in range(MAX_IDS + 5)], model)
    assert [len(tokens) for _, tokens in model.calls] == [MAX_IDS, 5]
    assert len(found) == MAX_IDS + 5


async def test_candidates_without_a_token_get_no_value() -> None:
    assert await score_candidates([(), ()], Model()) == ((), ())


async def test_a_failing_pass_fails_the_call() -> None:
    async def fail(prefix, tokens):
        if prefix:
            raise RuntimeError("no")
        return dict.fromkeys(tokens, 0.0)

    with pytest.raises(ExceptionGroup):
        await score_candidates([(1, 2)], fail)


def test_trie_lists_shorter_prefixes_first() -> None:
    assert list(next_tokens([(1, 2, 3), (4, 5)])) == [(), (1,), (4,), (1, 2)]
