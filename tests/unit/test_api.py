import subprocess
import sys

import pytest

import med_duallora


@pytest.mark.parametrize("name", med_duallora._PLACES)
def test_what_the_package_offers_is_there(name):
    assert name in dir(med_duallora)
    assert getattr(med_duallora, name).__doc__


def test_what_it_does_not_offer_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"med_duallora.*has no attribute 'predict_everything'"):
        _ = med_duallora.predict_everything


def test_importing_the_package_costs_nothing():
    code = "import sys, med_duallora; sys.exit(bool({'torch', 'numpy', 'nvflare'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True)
