import subprocess
import sys

import pytest

from med_duallora.cohorts.readers import LAYOUTS
from med_duallora.cohorts.vocabulary import STANDARD
from med_duallora.errors import CohortError


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_every_layout_has_a_reader_that_says_what_it_misses(layout, tmp_path):
    with pytest.raises(CohortError):
        layout.read(tmp_path / "nothing", STANDARD)


def test_the_names_of_layouts_cost_nothing():
    code = "import sys, med_duallora.cohorts.readers; sys.exit('numpy' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
