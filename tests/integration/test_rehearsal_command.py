"""The commands of poc/README.md on a federation of their own, from ``run`` in a new directory to ``down``.

The site is a hospital that no project file names: the command adds it.
``submit --wait`` is the job of all other tests here (see conftest.py).
"""

import contextlib
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from med_duallora.cli import main
from med_duallora.flare.local import processes
from med_duallora.flare.local.rehearsal.record import RECORD, Federation
from tests.integration.harness import PATIENCE_S, SETTINGS, SITE_SETTINGS
from tests.integration.programs import med_duallora, output_of, repeated

pytestmark = pytest.mark.flare

SITE = "st-olav_3"


@dataclass
class Told:
    """What a command answered, and whose processes were there after it."""

    code: int
    text: str
    n_processes: int


@dataclass
class Story:
    """Every command in the order in which it was given, and the federation that they were about."""

    directory: Path
    told: dict[str, Told] = field(default_factory=dict)

    @property
    def federation(self) -> Federation:
        return Federation.read(self.directory)

    def note(self, name: str, code: int, text: str) -> None:
        n_processes = len(processes.members(self.federation.identity))
        self.told[name] = Told(code, text, n_processes)

    def give(self, name: str, action: str, *arguments: object) -> None:
        """Give a command that starts nothing; it need not be a program of its own."""
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = main(["federation", action, "--workspace", str(self.directory), *map(str, arguments)])
        self.note(name, code, said.getvalue())


@pytest.fixture(scope="module")
def story(
    tiny_cohorts: dict[str, Path], tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Story]:
    directory = tmp_path_factory.mktemp("command-line") / "federation"
    data = tmp_path_factory.mktemp("hospitals")
    (data / SITE).symlink_to(tiny_cohorts["siemens"])
    start = ["--workspace", directory, "--data", data, "--sites", SITE]
    start += ["--backbone-checkpoint", tiny_checkpoint, "--timeout", PATIENCE_S, *repeated("--site-set", SITE_SETTINGS)]
    story = Story(directory)
    try:
        job = repeated("--set", (*SETTINGS, "train.n_rounds=1"))
        story.note("run", *output_of(med_duallora("federation", "run", *start, *job)))
        story.note("up", *output_of(med_duallora("federation", "up", *start)))
        story.give("status", "status")
        story.give("monitor", "monitor")
        story.give("up twice", "up", *start[2:])
        story.give("down", "down")
        story.give("status after down", "status")
        story.give("down twice", "down")
        yield story
    finally:
        if (directory / RECORD).is_file():
            processes.stop(story.federation.identity)


def test_run_does_everything_and_leaves_nothing_running(story: Story) -> None:
    run = story.told["run"]
    assert (run.code, run.n_processes) == (0, 0), run.text
    moments = ["provisioned ", f"started {SITE}", " submitted by lead@", "finished", "result: ", "report: ", "down; "]
    places = [run.text.index(moment) for moment in moments]
    assert places == sorted(places), run.text
    (page,) = re.findall(r"^report: (.*)$", run.text, re.MULTILINE)
    assert SITE in Path(page).read_text()


def test_up_goes_on_with_the_directory(story: Story) -> None:
    up = story.told["up"]
    assert up.code == 0, up.text
    assert f": {SITE} registered\n" in up.text
    assert "provisioned" not in up.text, "the kits are those of the first start"
    assert up.n_processes == 2, "the command has ended, the server and the site go on"


def test_status_knows_the_processes_the_site_and_the_older_job(story: Story) -> None:
    status = story.told["status"]
    assert status.code == 0, status.text
    assert len(re.findall(r"process \d+ +runs$", status.text, re.MULTILINE)) == 2
    assert re.search(rf"^{SITE} +registered$", status.text, re.MULTILINE)
    assert re.search(r"^job \S+  med-duallora-production  FINISHED:COMPLETED  ", status.text, re.MULTILINE)


def test_monitor_of_the_latest_job_says_that_it_has_finished(story: Story) -> None:
    monitor = story.told["monitor"]
    assert (monitor.code, monitor.text) == (0, "FINISHED:COMPLETED: finished\n")


def test_up_twice_is_refused_with_one_line_and_disturbs_nothing(story: Story) -> None:
    twice = story.told["up twice"]
    assert (twice.code, twice.n_processes) == (1, 2)
    assert re.fullmatch(
        r"med-duallora federation: .* runs already \(process \d+\); `.* down .*` stops it\n", twice.text
    )


def test_down_leaves_nothing_running(story: Story) -> None:
    down = story.told["down"]
    assert (down.code, down.n_processes) == (0, 0)
    assert down.text == "federation down; nothing of it runs (0 processes ended by a signal)\n"


def test_a_federation_that_is_down_says_so(story: Story) -> None:
    status = story.told["status after down"]
    assert status.code == 1
    assert len(re.findall(r"does not run$", status.text, re.MULTILINE)) == 2
    assert story.told["down twice"].code == 0
