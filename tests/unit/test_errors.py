import inspect
import re

import pytest

from med_duallora import errors
from med_duallora.errors import InputError, MedDualLoRAError, SubjectRefused

CLASSES = [item for _, item in inspect.getmembers(errors, inspect.isclass) if item.__module__ == errors.__name__]


def test_the_docstring_draws_the_whole_tree() -> None:
    """Depth and order are read from the drawing: an error that moves or appears must be drawn."""
    drawn, parents = {}, [MedDualLoRAError.__base__]
    for indent, name in re.findall(r"^([│├└─ ]*)(\w+) {2,}", errors.__doc__ or "", flags=re.MULTILINE):
        depth = len(indent) // 4
        parents[depth + 1 :] = [vars(errors)[name]]
        drawn[name] = parents[depth]
    assert drawn == {item.__name__: item.__base__ for item in CLASSES}


@pytest.mark.parametrize("error", CLASSES, ids=lambda item: item.__name__)
def test_bad_input_exits_with_2_and_everything_else_with_1(error: type[MedDualLoRAError]) -> None:
    assert error.exit_code == (2 if issubclass(error, InputError) else 1)


def test_a_refusal_carries_its_reason_for_counting() -> None:
    refusal = SubjectRefused("missing-file", "patient001_frame01.nii.gz is not there")
    assert (refusal.reason, refusal.detail) == ("missing-file", "patient001_frame01.nii.gz is not there")
    assert str(refusal) == "missing-file: patient001_frame01.nii.gz is not there"
