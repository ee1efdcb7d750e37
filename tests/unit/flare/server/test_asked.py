"""What a running job answers on FLARE's console."""

from typing import Any

from nvflare.apis.event_type import EventType
from nvflare.private.fed.server.server_commands import ServerCommands

from med_duallora.boundary.contract import EgressContract
from med_duallora.flare.server.persistor import SafetensorsPersistor
from med_duallora.flare.wire.running_adapter import AFTER, TOPIC, RunningAdapter, unpacked
from med_duallora.server.rundir import add_round
from tests.unit.flare.server.test_persistor import saved_by
from tests.unit.flare.standin import Engine
from tests.unit.tiny import random_payload


def asked(engine: Engine, after: object) -> dict[str, Any]:
    handler = engine.commands[TOPIC]
    return dict(handler(TOPIC, {AFTER: after}, engine.context("server")))


def test_a_running_job_answers_with_its_last_adapter(engine: Engine, contract: EgressContract) -> None:
    persistor = SafetensorsPersistor()
    persistor.handle_event(EventType.START_RUN, engine.context("server"))
    assert asked(engine, -1) == {}
    path = saved_by(persistor, engine, 0, random_payload(contract))
    add_round(path.parent, {"round": 0})
    files = (path.read_bytes(), path.with_suffix(".json").read_bytes())
    assert unpacked(asked(engine, -1)) == RunningAdapter(*files, [{"round": 0}])
    assert asked(engine, 0) == {}
    assert asked(engine, "nonsense") != {}, "whoever has none asks for all"


def test_a_second_job_in_one_process_is_no_error(engine: Engine) -> None:
    """FLARE's register belongs to the process, and refuses the same name twice."""
    vars(engine)["register_app_command"] = ServerCommands.register_app_command
    try:
        for _ in range(2):
            SafetensorsPersistor().handle_event(EventType.START_RUN, engine.context("server"))
        assert ServerCommands.get_app_command(TOPIC)
    finally:
        ServerCommands.app_cmd_registry.pop(TOPIC, None)
