from typing import NoReturn

import pytest
from nvflare.fuel.flare_api.api_spec import InternalError

from med_duallora.errors import FederationError
from med_duallora.flare.local.rehearsal import admin
from med_duallora.flare.local.rehearsal.record import Federation


def test_a_server_that_ends_before_it_answers_the_login_gave_no_answer(
    asleep: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(*_arguments: object, **_options: object) -> NoReturn:
        raise InternalError("Communication Error - please try later")

    monkeypatch.setattr(admin, "new_secure_session", ended)
    (asleep.kits / "admin@x" / "startup").mkdir(parents=True)
    said = f"no answer from the server at localhost:{asleep.port}: Communication Error"
    with pytest.raises(FederationError, match=said), admin.console(asleep, "project_admin"):
        pytest.fail("nobody is logged in")
