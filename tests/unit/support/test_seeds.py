import pytest
from hypothesis import given
from hypothesis import strategies as st

from med_duallora.support.seeds import derived_seed, generator


@pytest.mark.parametrize(
    ("one", "other", "reason"),
    [
        ((0, "order", "ge", 1), (1, "order", "ge", 1), "the experiment's seed"),
        ((0, "order", "ge", 1), (0, "torch", "ge", 1), "the purpose"),
        ((0, "order", "ge", 1), (0, "order", "canon", 1), "the site"),
        ((0, "order", "ge", 1), (0, "order", "ge", 2), "the round"),
        ((0, "view", "ab", "c"), (0, "view", "a", "bc"), "parts must not run into each other"),
        ((0, "view", 1, 23), (0, "view", 12, 3), "nor must numbers"),
        ((0, "view"), (0, "view", ""), "an empty part is a part"),
    ],
)
def test_streams_of_different_purposes_differ(one, other, reason):
    assert derived_seed(*one) != derived_seed(*other), reason
    assert generator(*one).random() != generator(*other).random(), reason


def test_a_seed_is_a_fixed_function_of_its_purpose():
    # made by: printf '0\x1fshuffle\x1fsiemens\x1f3' | sha256sum, the first 16 digits as a number, halved
    assert derived_seed(0, "shuffle", "siemens", 3) == 5278657601810522013


@given(st.integers(0, 2**31 - 1), st.text(max_size=8), st.integers(0, 100))
def test_seeds_repeat_and_fit_torch(seed, purpose, number):
    found = derived_seed(seed, purpose, number)
    assert found == derived_seed(seed, purpose, number)
    assert 0 <= found < 2**63
    assert generator(seed, purpose, number).random() == generator(seed, purpose, number).random()
