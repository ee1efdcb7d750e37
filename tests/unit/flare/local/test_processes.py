import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from med_duallora.errors import FederationError
from med_duallora.flare.local import processes
from med_duallora.flare.local.rehearsal.record import StartedProcess
from med_duallora.settings.config import SITE_CONFIG_VARIABLE

MakeKit = Callable[..., Path]


def started(kit: Path, identity: str, n_members: int = 2) -> StartedProcess:
    process = processes.start(kit, kit.parent / "logs" / "log.txt", identity)
    processes.wait_until("starting", lambda: len(processes.members(identity)) == n_members, 60, 0.02)
    return process


def test_a_kit_runs_in_its_own_session_and_is_recognised(sleeping_kit: MakeKit, identity: str) -> None:
    process = started(sleeping_kit(), identity)
    assert process.name == "siemens"
    assert processes.is_running(process, identity)
    assert os.getsid(process.pid) == process.pid


def test_a_process_that_replaces_its_program_runs_all_the_while(sleeping_kit: MakeKit, identity: str) -> None:
    again = 'n=$((${n:-0} + 1)); export n\n[ $n -lt 200 ] && exec bash "$0" --once\n'
    again += "echo ready; while true; do sleep 1; done\n"
    process = processes.start(kit := sleeping_kit(script=again), log := kit / "log.txt", identity)
    n_looks = 0
    while "ready" not in log.read_text():
        assert processes.is_running(process, identity), f"look {n_looks}: its environment is empty for a moment"
        n_looks += 1
    assert n_looks > 20
    processes.stop(identity)


def test_stopping_ends_orphans_in_sessions_of_their_own(sleeping_kit: MakeKit, identity: str) -> None:
    process = started(sleeping_kit(), identity)
    os.kill(process.pid, signal.SIGKILL)
    processes.wait_until("dying", lambda: not processes.is_running(process, identity), 60, 0.02)
    (orphan,) = processes.members(identity)
    assert processes.stop(identity) == [orphan.pid]
    assert processes.members(identity) == []


def test_what_does_not_listen_is_killed(sleeping_kit: MakeKit, identity: str) -> None:
    deaf = "trap '' TERM\necho ready\nwhile true; do sleep 1; done\n"
    process = processes.start(kit := sleeping_kit(script=deaf), kit / "log.txt", identity)
    processes.wait_until("starting", lambda: "ready" in (kit / "log.txt").read_text(), 60, 0.02)
    assert process.pid in processes.stop(identity, grace_s=0.2)
    assert not processes.is_running(process, identity)


def test_another_federation_is_left_alone(sleeping_kit: MakeKit, identity: str) -> None:
    other = processes.new_identity()
    process = started(sleeping_kit(), identity)
    assert processes.members(other) == []
    assert processes.stop(other) == []
    assert processes.is_running(process, identity)
    assert not processes.is_running(process, other)


def test_a_reused_process_id_is_not_taken_for_ours(sleeping_kit: MakeKit, identity: str) -> None:
    process = started(sleeping_kit(), identity)
    older = replace(process, started=process.started - 60)
    assert not processes.is_running(older, identity)
    assert processes.is_running(process, identity)


def test_this_program_is_never_a_member(identity: str) -> None:
    me = psutil.Process()
    assert not processes.is_running(StartedProcess("me", me.pid, me.create_time()), identity)


def test_a_kit_without_start_script_is_refused(tmp_path: Path, identity: str) -> None:
    with pytest.raises(FederationError, match=r"not a startup kit of a server or site: .*sub_start\.sh is missing"):
        processes.start(tmp_path, tmp_path / "log", identity)


def test_the_log_is_extended(sleeping_kit: MakeKit, identity: str) -> None:
    kit = sleeping_kit(script="echo again; exec sleep 300\n")
    log = kit / "log.txt"
    log.write_text("before\n")
    processes.start(kit, log, identity)
    processes.wait_until("printing", lambda: log.read_text() == "before\nagain\n", 60, 0.02)


def test_a_kit_s_process_gets_its_configuration_from_the_kit_only(
    sleeping_kit: MakeKit, identity: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SITE_CONFIG_VARIABLE, "elsewhere.json")
    processes.start(kit := sleeping_kit(script="env\necho ready\nexec sleep 300\n"), log := kit / "log.txt", identity)
    processes.wait_until("starting", lambda: "ready" in log.read_text(), 60, 0.02)
    lines = log.read_text().splitlines()
    assert not any(line.startswith(f"{SITE_CONFIG_VARIABLE}=") for line in lines)
    assert "NVFLARE_SECURE_LOGGING=1" in lines


def test_a_free_port_is_free() -> None:
    processes.check_port(processes.free_port())


@pytest.mark.parametrize("host", ["", "127.0.0.1"])
def test_a_taken_port_is_refused(host: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # as gRPC does
        taken.bind((host, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(FederationError, match=f"port {port} is in use .*--port"):
            processes.check_port(port)


def test_the_connections_of_a_server_that_ended_do_not_hold_its_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            connection, _ = server.accept()
            connection.close()  # who closes first keeps the port in TIME_WAIT
            assert client.recv(1) == b""
    processes.check_port(port)


def test_waiting_ends_with_what_was_waited_for() -> None:
    with pytest.raises(FederationError, match="spring took longer than 0 s"):
        processes.wait_until("spring", lambda: False, 0.05, 0.01)


PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
print(child.pid, flush=True)
time.sleep(float(sys.argv[1]))
"""
"""Its child moves to a session of its own, as FLARE's processes do."""


def parent(seconds: float) -> list[str]:
    return [sys.executable, "-c", PARENT, str(seconds)]


def child_of(log: Path) -> psutil.Process:
    processes.wait_until("the program's start", lambda: log.is_file() and log.read_text().endswith("\n"), 60, 0.02)
    return psutil.Process(int(log.read_text()))


def gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_a_program_s_exit_code_and_output_are_kept(tmp_path: Path) -> None:
    program = [sys.executable, "-c", "import os, sys; print(os.environ['WHO']); sys.exit(3)"]
    (tmp_path / "log").write_text("of an earlier run\n")
    with processes.supervised(program, {"WHO": "me"}, tmp_path / "log") as started:
        assert started.wait(60) == 3
    assert (tmp_path / "log").read_text() == "me\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_ends_the_program_and_all_that_it_started(number: int, tmp_path: Path) -> None:
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), processes.supervised(parent(60), {}, tmp_path / "log"):
        child = child_of(tmp_path / "log")
        os.kill(os.getpid(), number)
        time.sleep(5)
    assert gone(child), "a descendant in a session of its own was left"
    assert signal.getsignal(number) == before


def test_what_outlives_the_program_is_ended(tmp_path: Path) -> None:
    with processes.supervised(parent(1), {}, tmp_path / "log") as started:
        child = child_of(tmp_path / "log")
        assert started.wait(60) == 0
        assert not gone(child)
    assert gone(child)


def test_an_orphan_that_nobody_saw_start_is_ended(tmp_path: Path) -> None:
    """Its parent has ended before anybody looked, so that it is nobody's descendant any more."""
    with processes.supervised(parent(0), {}, tmp_path / "log") as started:
        assert started.wait(60) == 0
        child = child_of(tmp_path / "log")
        assert not gone(child)
    assert gone(child)


def test_a_program_is_supervised_outside_the_main_thread_too(tmp_path: Path) -> None:
    codes: list[int] = []

    def work() -> None:
        with processes.supervised([sys.executable, "-c", "pass"], {}, tmp_path / "log") as started:
            codes.append(started.wait(60))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(30)
    assert codes == [0]
