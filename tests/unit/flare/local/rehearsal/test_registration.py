import os
import signal
import time
from types import SimpleNamespace
from typing import cast

import pytest

from med_duallora.errors import FederationError
from med_duallora.flare.local import processes
from med_duallora.flare.local.rehearsal import registration
from med_duallora.flare.local.rehearsal.admin import Console
from med_duallora.flare.local.rehearsal.record import Federation
from med_duallora.flare.local.rehearsal.registration import registered_sites, wait_for_sites


def test_a_site_is_registered_once_the_server_heard_from_its_present_process(asleep: Federation) -> None:
    heard = {"stranger": time.time()}
    person = cast(Console, SimpleNamespace(last_contacts=lambda: heard))
    (site,) = [process for process in asleep.processes if process.name == "siemens"]
    assert registered_sites(asleep, person) == set()
    for since_start, expected in ((-5.0, set()), (5.0, {"siemens"})):
        heard["siemens"] = site.started + since_start
        assert registered_sites(asleep, person) == expected
    os.kill(site.pid, signal.SIGKILL)
    processes.wait_until("dying", lambda: not processes.is_running(site, asleep.identity), 60, 0.02)
    assert registered_sites(asleep, person) == set(), "the server lists a dead site for ten minutes"


def test_a_process_that_ended_is_named_with_its_log(asleep: Federation) -> None:
    asleep.log("siemens").write_text("one\nthe reason\n")
    (site,) = [process for process in asleep.processes if process.name == "siemens"]
    os.kill(site.pid, signal.SIGKILL)
    processes.wait_until("dying", lambda: not processes.is_running(site, asleep.identity), 60, 0.02)
    with pytest.raises(FederationError, match=r"(?s)siemens \(process \d+\) ended; its log .*siemens\.txt.*the reason"):
        wait_for_sites(asleep, 5.0)


def test_a_server_that_never_answers_is_given_up(asleep: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_answer(*_arguments: object) -> None:
        raise FederationError("no answer from the server")

    monkeypatch.setattr(registration, "console", no_answer)
    asleep.log("server").write_text("")
    with pytest.raises(FederationError, match=r"(?s)no answer from the server; its log .*\(nothing\)"):
        wait_for_sites(asleep, 0.1)
