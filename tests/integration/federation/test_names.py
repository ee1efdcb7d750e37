"""A member with its own kit speaks in the name of others, in a provisioned federation over mutual TLS."""

import json
import sys

import pytest

from tests.integration import hostile_member
from tests.integration.captured import ledger_of
from tests.integration.harness import SITES, RunningFederation
from tests.integration.programs import output_of

pytestmark = pytest.mark.flare


def test_a_member_cannot_speak_as_the_server_nor_turn_a_site_s_messages_to_itself(
    federation: RunningFederation,
) -> None:
    victim, attacker = SITES
    record, earlier = federation.federation, heard(federation, victim)
    program = [sys.executable, "-m", hostile_member.__name__, str(record.kit(attacker)), str(record.port), victim]
    code, said = output_of(program)
    assert code == 0, said
    found = json.loads(said.splitlines()[-1])
    assert found["learnt"], "FLARE's server tells everybody what it proves itself with"
    assert found["told"] == "timeout", "the server answered as to one of its own processes"
    assert found["heard"] == [], "the site spoke to a listener of the attacker"
    assert heard(federation, victim) == earlier, "the site heard the forged command"
    assert "does not fit the connection" in record.log(record.server).read_text()


def heard(federation: RunningFederation, site: str) -> int:
    """How often a site's ledger names the topic that is forged here; other tests may have sent it in another way."""
    ledger = ledger_of(federation, site)
    lines = ledger.read_text().splitlines() if ledger.exists() else []
    return sum(hostile_member.FORGED_TOPIC in line for line in lines)
