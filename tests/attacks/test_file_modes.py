"""Attacks by modes: what other accounts of a site's machine may write in its ledger and its kit, or read."""

import json
import os
import stat
from pathlib import Path

import pytest

from med_duallora.cli import main
from med_duallora.errors import LedgerError
from med_duallora.site_kit import harden, inspect_kit
from tests.attacks.site_files import (
    ENTRY,
    ledger_of,
)
from tests.unit.site_kit.conftest import provisioned, site_kit

__all__ = ["provisioned", "site_kit"]


def test_a_ledger_that_others_can_write_is_closed_and_says_so(tmp_path: Path, capsys):
    ledger = ledger_of(tmp_path)
    ledger.append(ENTRY)
    ledger.path.chmod(0o666)
    assert main(["ledger", "verify", str(ledger.path), "--state-dir", str(tmp_path / "state")]) == 1
    assert "other accounts can write it (mode 666): chmod 600" in capsys.readouterr().err
    ledger.append(ENTRY)
    lines = [json.loads(line) for line in ledger.path.read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["tensors", "ledger", "tensors"]
    assert "mode 666" in lines[1]["reason"]
    assert stat.S_IMODE(ledger.path.stat().st_mode) == 0o600
    assert main(["ledger", "verify", str(ledger.path), "--state-dir", str(tmp_path / "state")]) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only the administrator can give a file away")
def test_a_ledger_of_another_account_takes_no_line(tmp_path: Path):
    ledger = ledger_of(tmp_path)
    ledger.append(ENTRY)
    os.chown(ledger.path, 12345, 12345)
    before = ledger.path.read_bytes()
    with pytest.raises(LedgerError, match="belongs to another account"):
        ledger.append(ENTRY)
    assert ledger.path.read_bytes() == before


KIT_MODES: list[tuple[str, str, int, str]] = [
    ("local/ of the kit that everybody can write", "local", 0o777, "the kit changed by other accounts"),
    ("startup/ of the kit that a group can write", "startup", 0o775, "the kit changed by other accounts"),
    ("a policy that everybody can write", "local/privacy.json", 0o666, "the kit changed by other accounts"),
    ("a kit that everybody can write", ".", 0o777, "the kit changed by other accounts"),
    ("a start script that everybody can write", "startup/sub_start.sh", 0o777, "the kit changed by other accounts"),
    ("the site's private key that everybody can read", "startup/client.key", 0o644, "private keys of the kit read"),
]
SITE_MODES: list[tuple[str, str, int, str]] = [
    ("prepared images that everybody can read", "data_dir", 0o755, "prepared images read by other accounts"),
    ("prepared images that a group can list", "data_dir", 0o740, "prepared images read by other accounts"),
    ("states that everybody can read", "state_dir", 0o755, "local states and predictions read by other accounts"),
    ("trunk features that everybody can read", "cache_dir", 0o711, "trunk features read by other accounts"),
    ("a ledger's folder that everybody can write", "audit", 0o777, "the ledger changed by other accounts"),
]


@pytest.fixture
def closed_kit(site_kit: Path, tmp_path: Path) -> Path:
    """A closed kit whose site configuration names private folders."""
    harden(site_kit)
    path = site_kit / "local" / "med_duallora_site.json"
    values = json.loads(path.read_text())
    for name in ("data_dir", "state_dir", "cache_dir", "audit"):
        (tmp_path / name).mkdir(mode=0o700)
        values |= {name: str(tmp_path / name)} if name != "audit" else {"ledger": str(tmp_path / name / "ledger.jsonl")}
    path.write_text(json.dumps(values))
    return site_kit


def opened(kit: Path) -> dict[str, str]:
    """Return what is open, with what closes it."""
    return {channel.name: channel.fix for channel in inspect_kit(kit) if channel.is_open}


@pytest.mark.parametrize(("trick", "path", "mode", "channel"), KIT_MODES, ids=[row[0] for row in KIT_MODES])
def test_the_preflight_finds_an_open_kit_and_site_kit_closes_it(
    trick: str, path: str, mode: int, channel: str, closed_kit: Path
):
    assert opened(closed_kit) == {}
    place = closed_kit / path
    place.chmod(mode)
    ((name, fix),) = opened(closed_kit).items()
    assert name.startswith(channel), trick
    assert fix.startswith("chmod ") and str(place) in fix
    changes = harden(closed_kit)
    assert [(change.setting, change.before) for change in changes] == [("mode", f"{mode:o}")]
    assert opened(closed_kit) == {} and harden(closed_kit) == []


@pytest.mark.parametrize("row", SITE_MODES, ids=[row[0] for row in SITE_MODES])
def test_the_preflight_finds_open_folders_and_its_command_closes_them(row, closed_kit: Path, tmp_path: Path):
    trick, name, mode, channel = row
    (tmp_path / name).chmod(mode)
    ((found, fix),) = opened(closed_kit).items()
    assert found.startswith(channel), trick
    assert os.system(fix) == 0
    assert opened(closed_kit) == {}


def test_the_preflight_finds_a_ledger_that_is_a_link(closed_kit: Path, tmp_path: Path):
    (tmp_path / "audit" / "ledger.jsonl").symlink_to(tmp_path / "nowhere")
    assert list(opened(closed_kit)) == ["something that left without a record"]
