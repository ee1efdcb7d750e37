import re
from pathlib import Path

import pytest

import med_duallora
from med_duallora.cohorts.subject import REASONS, ImageSource, RawSubject, check_name
from med_duallora.errors import SubjectRefused

PREPARES_OWN = ("cohort.csv", "preparation.json", "refused.csv", "Cohort.CSV")  # lie beside subjects' folders


@pytest.mark.parametrize(
    "text", [*("", ".", "..", "../x", "a/b", "a b", "-x", ".hidden", "a" * 101, "ä"), *PREPARES_OWN]
)
def test_names_that_cannot_be_folders_are_refused(text: str) -> None:
    with pytest.raises(SubjectRefused) as refused:
        check_name(text)
    assert refused.value.reason == "bad-metadata"


def test_sources_are_those_there_are_in_a_fixed_order() -> None:
    ed, es, cine = ImageSource(Path("ed"), 1), ImageSource(Path("es"), 2), ImageSource(Path("cine"))
    subject = RawSubject("s", "mnms", "NOR", "ge", "c", ed, es, None, ImageSource(Path("gt"), 2), cine=cine)
    assert [role for role, _ in subject.sources()] == ["ed", "es", "es_gt"]


def test_every_reason_is_explained_and_used() -> None:
    package = Path(med_duallora.__file__).parent
    used: set[str] = set()
    for file in package.rglob("*.py"):
        used |= set(
            re.findall(
                r'(?:SubjectRefused\(|str\(item\.ed\.path\), |str\(raw\.ed\.path\), )\s*"([a-z-]+)"', file.read_text()
            )
        )
    assert used == set(REASONS)
