import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from med_duallora.campaign.hooks import Hooks
from med_duallora.errors import InputError

EVENT = {"event": "round", "round": 3}


@pytest.fixture
def received() -> Iterator[tuple[str, list[dict[str, object]]]]:
    """An address, and what was sent there."""
    bodies: list[dict[str, object]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204 if self.path == "/good" else 500)
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
    assert Hooks("/no/such/program").tell(EVENT)
    assert Hooks(address="http://127.0.0.1:1/").tell(EVENT)


@pytest.mark.parametrize(
    "hooks",
    [{"command": "'open"}, {"command": "  "}, {"address": "file:///etc/passwd"}, {"address": "example.org"}],
)
def test_what_cannot_be_told_is_refused_at_the_start(hooks: dict[str, str]) -> None:
    with pytest.raises(InputError):
        Hooks(**hooks)
