"""Rules that hold for the whole repository."""

import re
import subprocess
from pathlib import Path

import pytest

import med_duallora
from med_duallora.cli import COMMANDS

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGE = REPOSITORY / "custom" / "med_duallora"
MODULES = sorted(PACKAGE.rglob("*.py"))
TEXTS = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "LICENSE")
REQUIRED = (*TEXTS, "meta.json", "app", "jobs", "custom", "poc", "tests", "docs")
MACHINE_PATHS = re.compile(r"(?<![\w.])/(?:root|home|Users|work|farm|tmp)/\w")
LARGEST_BYTES = 9_000_000


def relative(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


@pytest.fixture(scope="module")
def tracked() -> list[Path]:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if listing.returncode:
        pytest.skip("this is not a git checkout, so there is no list of tracked files")
    return [path for name in listing.stdout.split("\0") if name and (path := REPOSITORY / name).is_file()]


def test_the_package_under_test_is_this_one() -> None:
    assert Path(med_duallora.__file__).parent == PACKAGE


@pytest.mark.parametrize("name", REQUIRED)
def test_the_top_level_is_complete(name: str) -> None:
    assert (REPOSITORY / name).exists()


def test_commands_and_their_files_agree() -> None:
    parts = {"__init__", "options", "federation_jobs"}
    files = {path.stem for path in (PACKAGE / "commands").glob("*.py")} - parts
    assert {name.replace("-", "_") for name in COMMANDS} == files


def test_no_tracked_file_holds_a_path_of_one_machine(tracked: list[Path]) -> None:
    found = []
    for path in tracked:
        if path != Path(__file__) and (text := _text(path)) is not None:
            found += [f"{relative(path)}: {match.group()}" for match in MACHINE_PATHS.finditer(text)]
    assert found == []


def test_no_tracked_file_is_huge_or_private(tracked: list[Path]) -> None:
    assert [relative(path) for path in tracked if path.stat().st_size > LARGEST_BYTES] == []
    assert [relative(path) for path in tracked if path.suffix in (".key", ".pem", ".pfx", ".pkl", ".pt", ".pth")] == []


@pytest.mark.parametrize(
    "path",
    [
        "workspace/med-duallora/prod_00/siemens/startup/client.key",
        "workspace/med-duallora/state/cert.json",
        "poc/workspace/any",
        "poc/participants/request/siemens.key",
        "kits/rootCA.pem",
        "request/siemens.crt",
        "jobs/production/.__nvfl_submitter.crt",
    ],
)
def test_git_ignores_kits_and_keys(path: str, tracked: list[Path]) -> None:
    del tracked  # skips where there is no checkout
    assert subprocess.run(["git", "check-ignore", "-q", path], cwd=REPOSITORY, check=False).returncode == 0


def test_git_ignores_nothing_that_it_tracks(tracked: list[Path]) -> None:
    names = "\0".join(relative(path) for path in tracked)
    command = ["git", "check-ignore", "--no-index", "-z", "--stdin"]
    found = subprocess.run(command, cwd=REPOSITORY, input=names, capture_output=True, text=True, check=False)
    assert found.stdout == "", "a copy of the checkout would lack these"


def test_the_readme_names_every_command_and_only_files_that_exist() -> None:
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    for name in COMMANDS:
        assert f"med-duallora {name}" in text, f"README does not name med-duallora {name}"
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert target.startswith("http") or (REPOSITORY / target).exists(), f"README links to {target}"


def test_every_constraint_is_one_exact_version() -> None:
    lines = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert len(pins) > 50
    for line in pins:
        assert re.fullmatch(r"[\w.-]+==[\w.]+( ; python_version (<|>=) \"3\.\d+\")?", line), line


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return None


def test_json_is_read_by_the_one_function_that_bounds_it() -> None:
    found = {path: _n_json_readers(path) for path in MODULES}
    assert {path: n for path, n in found.items() if n} == {PACKAGE / "support" / "files.py": 1}


def _n_json_readers(path: Path) -> int:
    text = path.read_text(encoding="utf-8").replace("json.loads(json.dumps(", "")
    return len(re.findall(r"json\.loads?\(", text))
