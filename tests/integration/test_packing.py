"""What a submitted job holds: every job folder is packed by FLARE's own function and opened again."""

import io
import shutil
import zipfile
from pathlib import Path

import pytest
from nvflare.fuel.utils.zip_utils import zip_directory_to_bytes

import med_duallora
from med_duallora.flare.jobs.export import BASELINES, JOBS, export_job
from med_duallora.flare.jobs.submission import prepare_submission
from tests.conftest import REPOSITORY

CONFIGURATION = {"meta.json", "app/config/config_fed_server.json", "app/config/config_fed_client.json"}
KINDS = [name for name in JOBS if not name.startswith(BASELINES)] + [f"{BASELINES}/fedsa-lora"]
"""Jobs that are packed in different ways; the baselines differ in values only."""
PACKAGE = Path(med_duallora.__file__).parent
ALLOWED_IN_PACKAGE = {".py", ".json", ".safetensors", ".html", ".csv", ".typed"}


def packed(folder: Path) -> dict[str, bytes]:
    """Return the files of a job as the server would unpack them, by their path inside the job."""
    with zipfile.ZipFile(io.BytesIO(zip_directory_to_bytes(str(folder.parent), folder.name))) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        return {name.partition("/")[2]: archive.read(name) for name in names}


@pytest.mark.parametrize("name", JOBS)
def test_a_committed_job_holds_its_configuration_and_nothing_else(name: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(REPOSITORY / "jobs" / name, tmp_path / name))
    assert set(packed(folder)) == CONFIGURATION


def test_every_job_folder_is_one_of_ours() -> None:
    found = {path.parent.relative_to(REPOSITORY / "jobs") for path in (REPOSITORY / "jobs").rglob("meta.json")}
    assert found == {Path(name) for name in JOBS}


@pytest.mark.parametrize("name", KINDS)
def test_an_exported_job_holds_the_package_and_no_key_data_or_test(name: str, tmp_path: Path) -> None:
    files = packed(export_job(JOBS[name], tmp_path / name))
    code = {path.removeprefix("app/custom/") for path in files if path.startswith("app/custom/")}
    assert set(files) - {f"app/custom/{path}" for path in code} == CONFIGURATION
    assert bool(code) == JOBS[name].with_code
    for path in code:
        assert path.startswith("med_duallora/")
        assert Path(path).suffix in ALLOWED_IN_PACKAGE, path
        assert (PACKAGE.parent / path).is_file(), f"{path} is not part of the package"
    assert not [path for path, content in files.items() if b"PRIVATE KEY-----\n" in content]


@pytest.mark.parametrize("name", KINDS)
def test_a_submission_holds_what_was_exported(name: str, tmp_path: Path) -> None:
    expected = packed(export_job(JOBS[name], tmp_path / "exported" / name))
    assert set(packed(prepare_submission(name, [], 4, tmp_path / "jobs"))) == set(expected)
