from pathlib import Path

from med_duallora.flare.server.directory import server_directory
from tests.unit.flare.standin import Engine


def test_the_server_s_directory_is_flare_s(engine: Engine, tmp_path: Path) -> None:
    assert server_directory(engine.context("server")) == tmp_path
