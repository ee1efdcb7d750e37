import numpy as np
import pytest

from med_duallora.cohorts.phantom.streams import STREAMS, stream, truncated_normal


def test_a_stream_repeats() -> None:
    assert stream(3, 1, 7, "body").uniform() == stream(3, 1, 7, "body").uniform()


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ((4, 1, 7, "body"), "another seed"),
        ((3, 2, 7, "body"), "another pool"),
        ((3, 1, 8, "body"), "another subject"),
        ((3, 1, 7, "pose"), "another stream"),
    ],
)
def test_streams_are_apart(other: tuple[int, int, int, str], reason: str) -> None:
    assert stream(3, 1, 7, "body").uniform() != stream(*other).uniform(), reason


def test_every_stream_is_its_own() -> None:
    assert len({stream(0, 0, 0, name).uniform() for name in STREAMS}) == len(STREAMS)


def test_an_unknown_stream_is_refused() -> None:
    with pytest.raises(ValueError, match="'class' is none of anatomy"):
        stream(0, 0, 0, "class")


def test_truncation_consumes_one_draw_whatever_it_cuts() -> None:
    wide, narrow = np.random.default_rng(1), np.random.default_rng(1)
    truncated_normal(wide, 0, 1, -9, 9)
    assert truncated_normal(narrow, 0, 1, 5, 6) == 5
    assert wide.uniform() == narrow.uniform()
