import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from med_duallora.errors import ConfigError, FederationError
from med_duallora.flare.local.rehearsal.provision import Project, provision, read_project, rehearsed, with_own_sites
from tests.conftest import REPOSITORY, SITES

MINIMAL = """
api_version: 3
name: small
participants:
  - {name: localhost, type: server, org: here, fed_learn_port: 8002}
  - {name: site, type: client, org: here}
builders:
  - path: nvflare.lighter.impl.cert.CertBuilder
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "project.yml"
    path.write_text(text)
    return path


def test_the_project_has_every_vendor_and_every_role(project: Project) -> None:
    assert project.sites == SITES
    roles = list(project.people.values())
    assert {role: roles.count(role) for role in set(roles)} == {
        "project_admin": 1,
        "org_admin": 4,
        "lead": 1,
        "member": 1,
    }


def test_every_hospital_has_its_own_administrator(project: Project) -> None:
    members = project.values["participants"]
    hospitals = {item["org"] for item in members if item["type"] == "client"}
    assert {item["org"] for item in members if item.get("role") == "org_admin"} == hospitals
    assert len(hospitals) == len(project.sites)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("participants: [", "cannot be read", id="no YAML"),
        pytest.param("- a\n- b\n", "cannot be read", id="a list"),
        pytest.param("name: x\n", "list of participants", id="nobody takes part"),
        pytest.param(MINIMAL.replace("type: client", "type: relay"), "0 clients", id="no site"),
        pytest.param(MINIMAL.replace("type: server", "type: client"), "0 servers", id="no server"),
        pytest.param(MINIMAL.replace("type: client", "type: server"), "2 servers", id="two servers"),
    ],
)
def test_a_wrong_project_file_is_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        read_project(write(tmp_path, text))


def test_a_missing_project_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yml cannot be read"):
        read_project(tmp_path / "nowhere.yml")


def test_a_rehearsal_changes_only_places_and_sites(project: Project) -> None:
    here = rehearsed(project, ["canon"], 8123)
    assert here.sites == ("canon",)
    assert project.sites == SITES, "the project itself is left alone"
    server = next(item for item in here.values["participants"] if item["type"] == "server")
    assert (server["default_host"], server["fed_learn_port"], server["admin_port"]) == ("localhost", 8123, 8123)
    assert here.people == project.people


def test_an_unknown_site_is_refused(project: Project) -> None:
    with pytest.raises(ConfigError, match="no site 'toshiba'; it has siemens"):
        rehearsed(project, ["toshiba"], 8123)


def test_every_connection_is_authenticated_on_both_sides(kits: Path) -> None:
    server = json.loads((kits / "fl-server.example.org" / "startup" / "fed_server.json").read_text())
    assert server["servers"][0]["connection_security"] == "mtls"
    for site in ("siemens", "ge"):
        client = json.loads((kits / site / "startup" / "fed_client.json").read_text())
        assert client["client"]["connection_security"] == "mtls"
        assert client["servers"][0]["service"]["target"] == "localhost:8123"


def test_only_the_chosen_sites_get_kits(kits: Path) -> None:
    names = {path.name for path in kits.iterdir()}
    assert {"siemens", "ge", "fl-server.example.org"} < names
    assert not {"philips", "canon"} & names


OWN = ("ge", "a-b", "a_b", "Oslo", "oslo", "site-1", "7", "x" * 64)


def test_sites_of_other_names_get_kits_without_any_yaml(project: Project, tmp_path: Path) -> None:
    """With hospitals of their own, although no organisation and no mail address is written like every site."""
    own = with_own_sites(project, OWN)
    assert own.sites == OWN
    members = own.values["participants"]
    hospitals = [item["org"] for item in members if item["type"] == "client"]
    assert len(set(hospitals)) == len(OWN)
    assert sorted(item["org"] for item in members if item.get("role") == "org_admin") == sorted(hospitals)
    assert set(own.people) == {item["name"] for item in members if item["type"] == "admin"}
    assert "admin@ge.example.org" in own.people, "a hospital of the file keeps its administrator"
    assert "admin@siemens.example.org" not in own.people, "one without a site has none"
    kits = provision(rehearsed(own, OWN, 8123), tmp_path / "kits")
    for site in OWN:
        assert json.loads((kits / site / "startup" / "fed_client.json").read_text())["client"]["fqsn"] == site


def test_sites_of_the_file_stay_as_they_are(project: Project) -> None:
    assert with_own_sites(project, SITES).values == project.values


def test_a_site_that_flare_cannot_run_is_refused_by_name(project: Project) -> None:
    with pytest.raises(ConfigError, match=r"'my hospital' cannot be the name of a site"):
        with_own_sites(project, ["ge", "my hospital"])


def test_a_project_file_of_one_s_own_says_what_to_add(project: Project) -> None:
    """What it says is YAML that FLARE accepts."""
    with pytest.raises(ConfigError, match=r"no site 'st_olav'; it has siemens.* leave out --project") as refused:
        rehearsed(project, ["ge", "st_olav"], 8123)
    added = re.findall(r"\{.*?\}", str(refused.value))
    members = [*project.values["participants"], *(yaml.safe_load(line) for line in added)]
    mended = Project({**project.values, "participants": members}, project.server, ("ge", "st_olav"), {})
    assert [item["name"] for item in members[-2:]] == ["st_olav", "admin@st-olav.example.org"]
    assert rehearsed(mended, ["ge", "st_olav"], 8123).sites == ("ge", "st_olav")


def test_private_keys_are_private(kits: Path) -> None:
    keys = list(kits.rglob("*.key"))
    assert len(keys) == 3 + 7, "server, two sites, seven people"
    assert {oct(key.stat().st_mode & 0o777) for key in keys} == {"0o600"}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        pytest.param("org: here}", "org: not-here}", "not-here", id="FLARE allows no dash in an organisation"),
        pytest.param("api_version: 3", "api_version: 2", "API version", id="too old for FLARE 2.9"),
    ],
)
def test_what_flare_does_not_accept_is_refused(old: str, new: str, message: str, tmp_path: Path) -> None:
    wrong = read_project(write(tmp_path, MINIMAL.replace(old, new)))
    with pytest.raises(ConfigError, match=message):
        provision(wrong, tmp_path / "kits")


def test_a_failing_builder_is_said(tmp_path: Path) -> None:
    """A certificate builder alone has no folder to write to."""
    with pytest.raises(FederationError, match=r"provisioning small in \S+ failed: "):
        provision(read_project(write(tmp_path, MINIMAL)), tmp_path / "kits")


def test_git_ignores_everything_that_provisioning_leaves() -> None:
    names = ["workspace/med-duallora/prod_00/siemens/startup/client.key", "siemens.signed.zip", "ca/rootCA.key"]
    names += ["siemens/siemens.csr", "guide/client.crt", "med-duallora/state/cert.json"]
    answer = subprocess.run(
        ["git", "check-ignore", *(f"poc/{name}" for name in names), "jobs/production/.__nvfl_submitter.crt"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode == 128:
        pytest.skip("this is not a git checkout")
    assert len(answer.stdout.splitlines()) == len(names) + 1
