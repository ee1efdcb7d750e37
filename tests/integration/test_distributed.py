"""The guides' way to a federation: every party makes its own key, nobody shares a login, only certificates travel."""

import json
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from nvflare.cli import main as nvflare_main

from med_duallora.cli import main
from med_duallora.flare.local import processes
from med_duallora.flare.local.rehearsal.admin import Console, console
from med_duallora.flare.local.rehearsal.following import fetch, follow
from med_duallora.flare.local.rehearsal.record import Federation
from med_duallora.flare.local.rehearsal.registration import wait_for_sites
from med_duallora.flare.local.rehearsal.rehearsal import down, start_one
from med_duallora.flare.local.rehearsal.verdict import COMPLETED
from med_duallora.report import read_run
from med_duallora.support.files import write_json
from tests.conftest import REPOSITORY
from tests.integration.harness import PATIENCE_S, SETTINGS
from tests.integration.programs import repeated

pytestmark = pytest.mark.flare

POC = REPOSITORY / "poc"
SITES = {"siemens": "hospital_siemens", "ge": "hospital_ge"}
LEAD = "lead@research.example.org"
KEEPER = "keeper@coordination.example.org"
"""The project admin's own console user, who is org_admin of the server's organisation."""
NAMES = {"server": "localhost", "lead": LEAD, "keeper": KEEPER}


class Office:
    """A desk of one person: a folder that nobody else reads, and FLARE's command line."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.monkeypatch = monkeypatch
        folder.mkdir()

    def nvflare(self, *arguments: object) -> None:
        code = self.code_of(*arguments)
        assert not code, f"nvflare {arguments}: {code}"

    def until_answered(self, *arguments: object) -> None:
        """Run a command that asks the server, which FLARE's command line gives five seconds and one try."""
        processes.wait_until(f"nvflare {arguments}", lambda: not self.code_of(*arguments), PATIENCE_S)

    def code_of(self, *arguments: object) -> object:
        """Run FLARE's command line and return its exit code."""
        self.monkeypatch.setattr(sys, "argv", ["nvflare", *map(str, arguments)])
        self.monkeypatch.setenv("HOME", str(self.folder))
        self.monkeypatch.chdir(self.folder)
        try:
            nvflare_main()
        except SystemExit as stopped:
            return stopped.code
        return 0

    def request(self, kind: str, **changes: str) -> Path:
        """Fill in a participant template, make the key and return what is sent to the project admin."""
        values = yaml.safe_load((POC / "participants" / f"{kind}.yml").read_text())
        values["participants"][0] |= changes
        (self.folder / "me.yml").write_text(yaml.safe_dump(values))
        self.nvflare("cert", "request", "-p", "me.yml", "--out", "request")
        (found,) = (self.folder / "request").glob("*.request.zip")
        return found

    def kit(self, signed: Path, fingerprint: str) -> Path:
        """Put the startup kit together from the own key and what the project admin signed."""
        self.nvflare("package", signed, "--request-dir", "request", "-w", "kits", "--fingerprint", fingerprint)
        (found,) = (self.folder / "kits" / "med-duallora" / "prod_00").iterdir()
        return found


@pytest.fixture
def offices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Office]:
    return {name: Office(tmp_path / name, monkeypatch) for name in ("admin", "server", *SITES, "lead", "keeper")}


def test_two_hospitals_without_a_shared_login(
    offices: dict[str, Office], tiny_cohorts: dict[str, Path], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    port = processes.free_port()
    admin = offices["admin"]
    profile = yaml.safe_load((POC / "profile.yml").read_text())
    profile["server"] = {"host": "localhost", "fed_learn_port": port, "admin_port": port}
    (admin.folder / "profile.yml").write_text(yaml.safe_dump(profile))
    admin.nvflare("cert", "init", "--profile", "profile.yml", "-o", "ca")
    fingerprint = json.loads((admin.folder / "ca" / "ca.json").read_text())["rootCA_fingerprint"]

    requests = {
        "server": offices["server"].request("server", name="localhost"),
        "lead": offices["lead"].request("person"),
        "keeper": offices["keeper"].request("person", name=KEEPER, org="coordination", role="org_admin"),
        **{site: offices[site].request("site", name=site, org=org) for site, org in SITES.items()},
    }
    kits = {}
    for name, request in requests.items():
        signed = admin.folder / f"{name}.signed.zip"
        admin.nvflare("cert", "approve", "-c", "ca", "--profile", "profile.yml", "--out", signed, request)
        for travels in (request, signed):
            with zipfile.ZipFile(travels) as archive:
                assert not [member for member in archive.namelist() if member.endswith(".key")]
        kits[name] = offices[name].kit(signed, fingerprint)

    assert main(["server-kit", "--startup-kit", str(kits["server"]), "--storage", str(tmp_path / "store")]) == 0
    for site in SITES:
        assert main(["site-kit", "--startup-kit", str(kits[site])]) == 0
        config = kits[site] / "local" / "med_duallora_site.json"
        places = {
            "data_dir": tiny_cohorts[site],
            "state_dir": tmp_path / site / "state",
            "cache_dir": tmp_path / site / "cache",
        }
        places["backbone_checkpoint"] = tiny_checkpoint
        values = json.loads(config.read_text()) | {name: str(place) for name, place in places.items()}
        values["policy"] |= {"min_subjects": 3, "min_train_subjects": 6}  # tiny cohorts
        write_json(config, values, mode=0o600)
        assert main(["preflight", "--startup-kit", str(kits[site])]) == 0

    together = tmp_path / "together"
    together.mkdir()
    for name, kit in kits.items():
        (together / NAMES.get(name, name)).symlink_to(kit)
    federation = Federation(
        directory=tmp_path,
        identity=processes.new_identity(),
        project="med-duallora",
        port=port,
        kits=together,
        server="localhost",
        sites=tuple(SITES),
        people={LEAD: "lead"},
    )
    export = ["jobs", "export", "--out", str(tmp_path / "jobs"), "--job", "production"]
    assert main([*export, *repeated("--set", (*SETTINGS, "train.n_rounds=1", f"workflow.min_sites={len(SITES)}"))]) == 0
    try:
        for name in federation.participants():
            federation = start_one(federation, name)
        wait_for_sites(federation, PATIENCE_S)
        with console(federation) as lead:
            assert set(lead.last_contacts()) == set(SITES)
            check_a_job_runs(federation, lead, tmp_path / "jobs" / "production")
            check_a_site_is_kept_out(offices, kits, lead)
    finally:
        down(federation, polite=False)


def check_a_job_runs(federation: Federation, lead: Console, folder: Path) -> None:
    """A site's floor is the strict one of its kit: nothing that was computed from two subjects leaves."""
    job_id = lead.submit(folder)
    assert follow(lead, job_id, lambda _: None, PATIENCE_S).status == COMPLETED
    run = read_run(fetch(federation, lead, job_id))
    (found,) = run.rounds
    assert set(found.sites) == set(run.evaluation.sites) == set(SITES)
    for site in SITES:
        assert "train_loss" in found.sites[site].metrics and "val_loss" not in found.sites[site].metrics
        assert not [name for name in run.evaluation.sites[site] if "balanced_accuracy" in name]


def check_a_site_is_kept_out(offices: dict[str, Office], kits: dict[str, Path], lead: Console) -> None:
    """As the project admin's guide says, and by the project admin alone."""
    assert offices["lead"].code_of("system", "disable-client", "ge", "--force", "--startup-kit", kits["lead"])
    assert set(lead.last_contacts()) == set(SITES)
    kept_out = ("ge", "--force", "--startup-kit", kits["keeper"])
    offices["keeper"].until_answered("system", "disable-client", *kept_out)
    processes.wait_until("keeping ge out", lambda: set(lead.last_contacts()) == {"siemens"}, PATIENCE_S)
    offices["keeper"].until_answered("system", "enable-client", *kept_out)
    processes.wait_until("letting ge in", lambda: set(lead.last_contacts()) == set(SITES), PATIENCE_S)
