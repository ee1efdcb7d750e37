import pytest

from med_duallora.server.timing import PARTS, RoundClock


def test_the_parts_and_the_computing_are_the_whole_round() -> None:
    clock = RoundClock(3, 100.0, {"ge": 100.5, "canon": 101.0}, {"ge": 104.0, "canon": 109.0})
    times = clock.times(109.5, {"ge": 3.0, "canon": 7.5})
    assert times == {
        "round": 3,
        "seconds": 9.5,
        "site": "canon",
        "waiting": 1.0,
        "computing": 7.5,
        "transfer": 0.5,
        "server": 0.5,
    }
    assert sum(times[part] for part in (*PARTS, "computing")) == pytest.approx(times["seconds"])


def test_a_site_that_does_not_tell_its_computing_counts_it_as_transfer() -> None:
    times = RoundClock(0, 0.0, {"ge": 1.0}, {"ge": 4.0}).times(5.0, {})
    assert (times["computing"], times["transfer"]) == (None, 3.0)


@pytest.mark.parametrize("given", [{}, {"west": 1.0}], ids=["no site was given work", "another site was"])
def test_a_round_without_an_answer_has_no_parts(given: dict[str, float]) -> None:
    assert RoundClock(1, 2.0, given, {"ge": 3.0}).times(4.0, {}) == {"round": 1, "seconds": 2.0}
