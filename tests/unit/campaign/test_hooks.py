import json
import os
import shlex
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import psutil
import pytest

from med_duallora.campaign import hooks as campaign_hooks
from med_duallora.campaign.hooks import Hooks, Messenger
from med_duallora.errors import InputError

EVENT = {"event": "round", "round": 3}


@pytest.fixture
def received() -> Iterator[tuple[str, list[dict[str, object]]]]:
    """An address, and what was sent there."""
    bodies: list[dict[str, object]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            if self.path == "/nonsense":
                self.wfile.write(b"what is this?\r\n\r\n")
                return
            self.send_response({"/good": 204, "/elsewhere": 302}.get(self.path, 500))
            if self.path == "/elsewhere":
                self.send_header("Location", "/good")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", bodies
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_command_gets_the_event(tmp_path: Path) -> None:
    code = "import os, sys; open(sys.argv[1], 'w').write(os.environ['MED_DUALLORA_EVENT'] + sys.stdin.read())"
    assert Hooks(f'{sys.executable} -c "{code}" {tmp_path / "told"}').tell(EVENT) == []
    assert (tmp_path / "told").read_text() == "round" + json.dumps(EVENT)


def test_an_address_gets_the_event(received: tuple[str, list[dict[str, object]]]) -> None:
    address, bodies = received
    assert Hooks(address=f"{address}/good").tell(EVENT) == []
    assert bodies == [EVENT]


def test_a_failure_is_a_sentence_and_nothing_more(received: tuple[str, list[dict[str, object]]]) -> None:
    address, _ = received
    said = Hooks(f"{sys.executable} -c 'raise SystemExit(3)'", f"{address}/bad").tell(EVENT)
    assert len(said) == 2
    assert "exit code 3" in said[0] and "500" in said[1]
    assert Hooks(address="http://127.0.0.1:1/").tell(EVENT)


@pytest.mark.parametrize(("path", "word"), [("nonsense", "BadStatusLine"), ("elsewhere", "302")])
def test_an_address_that_answers_otherwise_has_failed(
    path: str, word: str, received: tuple[str, list[dict[str, object]]]
) -> None:
    """One speaks no HTTP; one sends the caller elsewhere, where it would ask and tell nothing."""
    address, bodies = received
    (said,) = Hooks(address=f"{address}/{path}").tell(EVENT)
    assert word in said
    assert bodies == [EVENT]


def test_a_program_that_is_gone_by_now_is_a_sentence(tmp_path: Path) -> None:
    program = script(tmp_path, "true")
    hooks = Hooks(shlex.quote(str(program)))
    assert hooks.tell(EVENT) == []
    program.unlink()
    assert "No such file" in hooks.tell(EVENT)[0]


def script(folder: Path, text: str) -> Path:
    """A program, in a folder whose name needs quotes."""
    path = folder / "my programs; $(x)" / "tell"
    path.parent.mkdir(parents=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o700)
    return path


def test_an_event_is_never_a_part_of_a_command(tmp_path: Path) -> None:
    program = script(tmp_path, f'cat > "{tmp_path}/$1"')
    event = {"event": "$(touch gone); `id`", "text": "'; rm -rf /\n"}
    assert Hooks(f"{shlex.quote(str(program))} 'a b'").tell(event) == []
    assert json.loads((tmp_path / "a b").read_text()) == event


def test_a_program_that_hangs_is_killed_with_what_it_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaign_hooks, "COMMAND_S", 3.0)
    program = script(tmp_path, f"sleep 1000 & echo $! > '{tmp_path}/child'\nwait")
    (said,) = Hooks(shlex.quote(str(program))).tell(EVENT)
    assert "was killed" in said
    assert ended(int((tmp_path / "child").read_text()))


def test_a_program_that_the_end_kills_is_no_failure(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    hooks = Hooks(shlex.quote(str(script(tmp_path, f"echo > '{pipe}'; sleep 1000"))))
    with ThreadPoolExecutor(1) as pool:
        failures = pool.submit(hooks.tell, EVENT)
        assert pipe.read_text() == "\n", "it has started"
        hooks.close()
        assert failures.result() == []


def ended(pid: int) -> bool:
    """Return whether a process ends; whoever adopted it may not have taken note of its end yet."""
    try:
        process = psutil.Process(pid)
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            process.wait(10)
    except psutil.NoSuchProcess:
        pass
    return True


def test_a_program_that_hangs_does_not_delay_whoever_tells(tmp_path: Path) -> None:
    """It is held at a pipe that nobody reads from, whatever the machine's speed."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    messenger = Messenger(Hooks(shlex.quote(str(script(tmp_path, f"cat > '{pipe}'")))))
    for number in range(3):
        messenger.tell({"event": "round", "round": number})
    assert messenger.failures() == []
    assert messenger.finish(0.0) == ["3 events are not told: the hooks are too slow"]


def test_nothing_is_told_after_the_end(tmp_path: Path) -> None:
    """Else the program of an event that waited would begin when the one that hung is killed, and stay."""
    hooks = Hooks(shlex.quote(str(script(tmp_path, f"touch '{tmp_path}/told'"))), "http://127.0.0.1:1/")
    hooks.close()
    assert hooks.tell(EVENT) == []
    assert not (tmp_path / "told").exists()


def test_events_are_told_in_order_before_the_end(tmp_path: Path) -> None:
    messenger = Messenger(Hooks(f"{shlex.quote(str(script(tmp_path, f'cat >> {tmp_path}/told; exit 7')))}"))
    for number in range(3):
        messenger.tell({"n": number})
    assert [failure[-1] for failure in messenger.finish()] == ["7"] * 3
    assert (tmp_path / "told").read_text() == '{"n": 0}{"n": 1}{"n": 2}'


@pytest.mark.parametrize(
    "hooks",
    [
        {"command": "'open"},
        {"command": "  "},
        {"command": "/no/such/program --x"},
        {"command": "/"},
        {"address": "file:///etc/passwd"},
        {"address": "example.org"},
        {"address": "http://:80/"},
        {"address": "http://example.org:port/"},
        {"address": "http://example.org/a b"},
        {"address": "http://example.org/\r\nHost: other"},
        {"address": "http://me:secret@example.org/"},
    ],
)
def test_what_cannot_be_told_is_refused_at_the_start(hooks: dict[str, str]) -> None:
    with pytest.raises(InputError) as refused:
        Hooks(**hooks)
    assert "secret" not in str(refused.value)
