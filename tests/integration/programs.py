"""Programs that tests start: the command line as people use it, read while it runs and ended with the test."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

UNANSWERED = "CONNECTION_FAILED"
"""What FLARE's own command says about a server that did not answer at once."""
N_TRIES = 5


def med_duallora(*arguments: object) -> list[str]:
    """Return the command ``med-duallora`` of the Python that runs the tests."""
    return [sys.executable, "-m", "med_duallora", *map(str, arguments)]


def nvflare(*arguments: str) -> list[str]:
    """Return FLARE's own command of the Python that runs the tests."""
    return [str(Path(sys.executable).parent / "nvflare"), *arguments]


def answered(program: list[str], refusal: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command of FLARE's own until the server answers: it asks once, and waits for five seconds.

    FLARE calls some refusals an unanswered question too; one that says ``refusal`` is an answer.
    """
    for _ in range(N_TRIES):
        done = subprocess.run(program, capture_output=True, text=True, check=False)
        said = done.stdout + done.stderr
        if not done.returncode or UNANSWERED not in said or (refusal and refusal in said):
            break
    return done


def repeated(option: str, values: tuple[str, ...]) -> list[str]:
    """Return an option once per value."""
    return [argument for value in values for argument in (option, value)]


def output_of(program: list[str], environment: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Exit code and text of a program; one that takes too long is asked to end, so that it can end its own children."""
    with running(program, environment) as started:
        try:
            text = started.communicate(timeout=500)[0]
        except subprocess.TimeoutExpired:
            started.send_signal(signal.SIGINT)
            text = started.communicate()[0]
    return started.returncode, text


@contextlib.contextmanager
def running(program: list[str], environment: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """Start a program whose output can be read; it does not outlive the block, whatever happens in it."""
    everything = {**os.environ, **(environment or {})}
    with subprocess.Popen(
        program, env=everything, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as started:
        try:
            yield started
        finally:
            started.kill()


def read_until(program: subprocess.Popen[str], text: str) -> str:
    """Read a program's output until a line holds a text."""
    assert program.stdout is not None
    seen = ""
    for line in program.stdout:
        seen += line
        if text in line:
            return seen
    raise AssertionError(f"it ended before it said {text!r}:\n{seen}")
