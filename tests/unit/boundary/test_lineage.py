import pytest

from med_duallora.boundary.lineage import MAX_RUNS, Lineage, Run

A, B = "a" * 32, "b" * 32


def test_every_training_has_a_name_of_its_own():
    assert len({Lineage.begin().run_id for _ in range(100)}) == 100


def test_a_resumed_run_names_the_one_it_continues():
    first = Lineage.begin()
    second = first.continued(2)
    third = second.continued(5)
    assert third.runs[:2] == second.runs
    assert [run.first_round for run in third.runs] == [0, 2, 5]
    assert len({run.run_id for run in third.runs}) == 3
    assert second.continued(5).run_id != third.run_id, "two jobs that go on from the same adapter do not meet"


def test_it_comes_back_from_plain_values():
    lineage = Lineage.begin().continued(3)
    assert Lineage.from_list(lineage.to_list()) == lineage


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (None, "nothing"),
        ("ab", "text"),
        ([], "no run"),
        ([[A]], "no pair"),
        ([A], "text instead of a pair"),
        ([[A, 1]], "the first run does not begin with round 0"),
        ([[A, 0], [B, 0]], "the second begins no later"),
        ([[A, 0], [B, 5], [A, 3]], "the third begins earlier"),
        ([[A, -1]], "a negative round"),
        ([[A, 0.0]], "no whole number"),
        ([[A, False]], "a truth value"),
        ([["../../etc", 0]], "a path"),
        ([[A.upper(), 0]], "capitals"),
        ([[A + "\n", 0]], "a line end"),
        ([[A[:-1], 0]], "too short"),
        ([[1, 0]], "a number"),
        ([[f"{index:032x}", index] for index in range(MAX_RUNS + 1)], "too many"),
    ],
)
def test_anything_else_is_refused(values, reason):
    with pytest.raises(ValueError, match=r"lineage|run"):
        Lineage.from_list(values)


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        (None, [(B, None), (A, 2)]),
        (5, [(B, 5), (A, 2)]),
        (1, [(B, 1), (A, 1)]),
    ],
)
def test_where_states_can_be(before, expected):
    assert list(Lineage((Run(A, 0), Run(B, 2))).places(before)) == expected
