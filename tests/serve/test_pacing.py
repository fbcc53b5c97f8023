"""Coalescing: first token at once, later ones together where they come fast, none held longer than the window."""

import pytest

from loradeck_serve.handlers.pacing import Pacer

WINDOW = 0.010


def chunks(distance: float, tokens: int, window: float = WINDOW) -> list[tuple[float, list[float]]]:
    """When each chunk is sent and when its tokens came, for tokens that come `distance` apart from time 0 on."""
    arrivals = [1.0 + number * distance for number in range(tokens)]
    pacer = Pacer(window, tokens)
    sent: list[tuple[float, list[float]]] = []
    look = 0.0
    while arrivals:
        now = max(look, arrivals[0])
        ready = [time for time in arrivals if time <= now]
        del arrivals[: len(ready)]
        sent.append((now, ready))
        look = now + pacer.pause(now, len(ready))
    return sent


@pytest.mark.parametrize("distance", [0.0005, 0.001, 0.0023, 0.005, 0.008, 0.009, 0.0099, 0.012, 0.05])
def test_no_token_waits_longer_than_the_window(distance: float) -> None:
    for now, ready in chunks(distance, 64):
        assert now - ready[0] <= WINDOW + 1e-9


@pytest.mark.parametrize("distance", [0.0023, 0.012])
def test_first_token_and_last_token_are_not_held(distance: float) -> None:
    found = chunks(distance, 64)
    assert found[0] == (1.0, [1.0])
    now, ready = found[-1]
    assert now - ready[-1] < distance


def test_fast_tokens_share_chunks_and_slow_ones_do_not() -> None:
    assert len(chunks(0.0023, 64)) < 20
    assert len(chunks(0.008, 64)) < 40
    assert len(chunks(0.012, 64)) == 64
    assert len(chunks(0.0023, 64, window=0.0)) == 64


def test_everything_comes_in_order_and_once() -> None:
    times = [time for _, ready in chunks(0.003, 50) for time in ready]
    assert times == [1.0 + number * 0.003 for number in range(50)]
