"""Which tokens a probe compares."""

from loradeck_tasks.probe import CANDIDATES, choose_candidates


def test_half_of_the_candidates_are_the_bases_own_tokens() -> None:
    moved = [0.0] * 100 + [10.0 + number for number in range(20)]
    moved[7], moved[30], moved[31] = 0.5, 0.2, 0.1
    chosen = choose_candidates(moved, 100)
    assert len(set(chosen)) == CANDIDATES
    assert sum(token < 100 for token in chosen) == CANDIDATES // 2
    assert {7, 30, 31, *range(112, 120)} <= set(chosen)


def test_no_place_is_kept_for_added_tokens() -> None:
    assert all(token < 100 for token in choose_candidates([float(120 - token) for token in range(120)], 100))


def test_fewer_tokens_than_places() -> None:
    assert sorted(choose_candidates([1.0] * 5, 4)) == [0, 1, 2, 3, 4]
