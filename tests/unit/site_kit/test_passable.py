import shlex
import sys
from pathlib import Path

import pytest

from med_duallora.errors import InputError
from med_duallora.site_kit.passable import check_passable, check_python, not_passed_on

PLAIN = (
    "/srv/ws1",
    "/srv/a-b_c.d",
    "/srv/-dash",
    "/srv/grün",
    "/srv/$HOME",
    "/srv/a=b,c@d+e",
    "/srv/東京",
    "/srv/(1)&;|~",
)
LOST = ("/srv/ws 1", "/srv/a'b", '/srv/a"b', "/srv/a\\b", "/srv/a#b", "/srv/a\tb", "/srv/a\nb")


@pytest.mark.parametrize("place", PLAIN)
def test_what_shlex_leaves_whole_is_passed_on(place: str) -> None:
    assert shlex.split(f"-m {place}", comments=True) == ["-m", place]
    assert not_passed_on(Path(place)) == ""


@pytest.mark.parametrize("place", LOST)
def test_what_shlex_takes_apart_is_refused(place: str) -> None:
    try:
        words = shlex.split(f"-m {place}", comments=True)
    except ValueError:
        words = []
    assert words != ["-m", place]
    with pytest.raises(InputError, match=r"--workspace .* has .* in it, which FLARE does not pass on"):
        check_passable(Path(place), "--workspace")


@pytest.mark.parametrize("place", ["/a:b", "/{site}", "/a*", "/a?", "/[a]", "/\udcff", "/\x1b"])
def test_what_else_is_expanded_or_cannot_be_printed_is_refused(place: str) -> None:
    assert not_passed_on(Path(place))


def test_blanks_are_named_in_words() -> None:
    assert not_passed_on(Path("/a b/c")) == "a blank"
    assert not_passed_on(Path("/a\u00a0b")) == "'\\xa0'"


def test_python_s_own_path_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    check_python()
    monkeypatch.setattr(sys, "executable", "/srv/my project/.venv/bin/python")
    with pytest.raises(InputError, match="the Python that runs this, '/srv/my project"):
        check_python()
