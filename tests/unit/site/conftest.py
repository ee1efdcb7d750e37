import pytest

from med_duallora.cohorts.prepared import PreparedCohort


@pytest.fixture(scope="module")
def subjects(tiny_cohorts):
    """What a trainee is trained on, see ``trainee``."""
    return PreparedCohort.read(tiny_cohorts["philips"]).split("train")
