import os
import subprocess
import sys
from pathlib import Path

import pytest

from med_duallora.errors import CohortError
from med_duallora.support.locks import locked


@pytest.mark.parametrize("name", ["", "file"], ids=["a folder", "a file"])
def test_one_at_a_time(name: str, tmp_path: Path) -> None:
    """A second lock of this very process counts as another's."""
    busy = CohortError("wait for it")
    with locked(tmp_path / name, busy), pytest.raises(CohortError, match="wait for it"), locked(tmp_path / name, busy):
        pytest.fail("two hold it")
    with locked(tmp_path / name, busy):
        assert (tmp_path / name).exists()


WAITS = """
import sys
from pathlib import Path
from med_duallora.support.locks import locked
print("waits", flush=True)
with locked(Path(sys.argv[1])), Path(sys.argv[2]).open("a") as stream:
    stream.write("second")
"""


def test_whoever_waits_comes_after_the_holder(tmp_path: Path) -> None:
    place, order = tmp_path / "file", tmp_path / "order"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with locked(place):
        command = [sys.executable, "-c", WAITS, str(place), str(order)]
        other = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        assert other.stdout is not None and other.stdout.readline() == "waits\n"
        order.write_text("first ")
    assert other.communicate(timeout=60) and other.returncode == 0
    assert order.read_text() == "first second"


def test_what_the_work_raises_is_not_taken_for_a_lock(tmp_path: Path) -> None:
    with pytest.raises(BlockingIOError), locked(tmp_path, CohortError("busy")):
        raise BlockingIOError


def test_a_lock_file_is_its_owner_s(tmp_path: Path) -> None:
    with locked(tmp_path / "file"):
        assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600
