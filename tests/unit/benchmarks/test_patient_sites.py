"""A cohort cut into a federation of simulated sites: every subject once, equal sizes, and nothing unsaid."""

import csv
import itertools
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from benchmarks.patient_sites import SCANNED, main

from med_duallora.cohorts.nifti import read_nifti
from med_duallora.cohorts.origin import origin_of
from med_duallora.cohorts.prepared import PreparedCohort, PreparedSubject, load_volume
from med_duallora.cohorts.sites import find_sites
from med_duallora.study.splits import deal
from med_duallora.support.files import sha256_of_file
from tests.conftest import write_tiny_cohort

N = 45
DISEASES = ("DCM", "HCM", "MINF")
REFERRAL, ACQUISITION = ("--by", "referral"), ("--by", "acquisition")


@pytest.fixture(scope="module")
def patients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one cohort: 23 healthy and 22 ill subjects of three diseases, spacings of two scanners."""
    root = tmp_path_factory.mktemp("patients")
    folder = write_tiny_cohort(root / "siemens", "siemens", 3, n_subjects=N, n_by_split=(N, 0, 0))
    table = folder / "cohort.csv"
    with table.open(newline="") as stream:
        reader = csv.DictReader(stream)
        columns, rows = list(reader.fieldnames or ()), list(reader)
    for index, row in enumerate(rows):
        row["pathology"] = DISEASES[index // 2 % 3] if row["label"] == "1" else "NOR"
        row["spacing_x"] = row["spacing_y"] = str(1.8 - 0.1 * (index % 7))
        row["spacing_z"] = "5" if index % 5 == 0 else "10"
    with table.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, [*columns, "dataset", "remarks"])
        writer.writeheader()
        writer.writerows({**row, "dataset": "acdc", "remarks": "seen before"} for row in rows)
    return root


@pytest.fixture
def cut(patients: Path, tmp_path: Path):
    """Cuts the cohort, and gives the subjects of each site."""

    def run(*options: str, out: str = "out") -> dict[str, tuple[PreparedSubject, ...]]:
        arguments = ["--data", str(patients), "--out", str(tmp_path / out), "--n-train", "6", *options]
        assert main(arguments) == 0
        return {name: PreparedCohort.read(folder).subjects for name, folder in find_sites(tmp_path / out).items()}

    return run


def names(sites: dict[str, tuple[PreparedSubject, ...]]) -> dict[str, list[str]]:
    return {site: sorted(subject.subject for subject in members) for site, members in sites.items()}


@pytest.mark.parametrize("options", [REFERRAL, ACQUISITION, (*REFERRAL, "--alpha", "0.001")], ids=" ".join)
@pytest.mark.parametrize("partition", ["0", "1", "7"])
def test_every_subject_is_at_one_site_and_sites_are_equal(cut, patients, tmp_path, options, partition) -> None:
    sites = cut(*options, "--partition", partition)
    assert len(sites) == 4
    everybody = PreparedCohort.read(patients / "siemens").subjects
    assert sorted(subject.subject for members in sites.values() for subject in members) == sorted(
        subject.subject for subject in everybody
    )
    assert sorted(map(len, sites.values())) == [11, 11, 11, 12]
    healthy = [sum(not subject.label for subject in members) for members in sites.values()]
    assert sorted(healthy) == [5, 6, 6, 6]
    for name in sites:
        dealt = deal(tmp_path / "out" / name, name, 6, None, 0)
        assert dealt.named("train")
        assert dealt.named("test")


def test_a_partition_is_its_number(cut) -> None:
    first = names(cut(*REFERRAL, out="a"))
    assert first == names(cut(*REFERRAL, "--partition", "0", out="b"))
    assert first != names(cut(*REFERRAL, "--partition", "1", out="c"))


def test_a_partition_does_not_hang_on_the_tables_order(patients, tmp_path, cut) -> None:
    turned = tmp_path / "turned" / "siemens"
    turned.mkdir(parents=True)
    lines = (patients / "siemens" / "cohort.csv").read_text().splitlines()
    (turned / "cohort.csv").write_text("\n".join([lines[0], *reversed(lines[1:])]) + "\n")
    for folder in (patients / "siemens").glob("siemens*"):
        (turned / folder.name).symlink_to(folder)
    for options in (REFERRAL, ACQUISITION):
        arguments = ["--data", str(turned), "--out", str(tmp_path / options[1]), "--n-train", "6", *options]
        assert main(arguments) == 0
        found = {
            name: PreparedCohort.read(folder).subjects for name, folder in find_sites(tmp_path / options[1]).items()
        }
        assert names(found) == names(cut(*options, out=f"plain-{options[1]}"))


def test_a_low_alpha_sends_a_disease_to_few_sites_and_a_high_one_to_all(cut) -> None:
    def skew(alpha: str) -> float:
        """Mean squared difference from an even deal, over five partitions."""
        found = []
        for partition in range(5):
            sites = cut(*REFERRAL, "--alpha", alpha, "--partition", str(partition), out=f"{alpha}-{partition}")
            counts = [Counter(subject.pathology for subject in members) for members in sites.values()]
            found += [(count[disease] - 22 / 12) ** 2 for count in counts for disease in DISEASES]
        return float(np.mean(found))

    assert skew("0.05") > 2 * skew("1000")


def test_finer_scans_come_first_within_each_class(cut) -> None:
    sites = cut(*ACQUISITION)
    assert list(sites) == ["res-1", "res-2", "res-3", "res-4"]
    for label in (0, 1):
        volumes = [[np.prod(one.spacing) for one in members if one.label == label] for members in sites.values()]
        assert all(max(finer) <= min(coarser) for finer, coarser in itertools.pairwise(volumes))


def test_without_scanners_a_site_points_at_the_same_volumes_and_is_private(cut, patients, tmp_path) -> None:
    sites = cut(*REFERRAL)
    for subject in (members[0] for members in sites.values()):
        assert subject.ed_path.resolve().parent == (patients / "siemens" / subject.subject).resolve()
        assert (subject.vendor, subject.remarks) == ("siemens", ("seen before",))
    out = tmp_path / "out"
    for path in [out, *out.rglob("*")]:
        if not path.is_symlink():
            assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path
    assert [path.name for path in tmp_path.iterdir()] == ["out"], "nothing half-written is left"


def test_the_record_says_what_was_done(cut, patients, tmp_path) -> None:
    cut(*REFERRAL, "--alpha", "0.5", "--partition", "3")
    record = json.loads((tmp_path / "out" / "federation.json").read_text())
    assert (record["by"], record["partition"], record["alpha"], record["scanners"]) == ("referral", 3, 0.5, None)
    digest = sha256_of_file(patients / "siemens" / "cohort.csv")
    assert record["source"] == {"cohort": "siemens", "table_sha256": digest, "n": N}
    assert "Bernard" in record["cite"][0]
    assert sum(site["n"] for site in record["sites"]) == N


def test_a_simulated_scanner_is_seeded_said_and_keeps_place_and_size(cut, patients, tmp_path) -> None:
    sites, again = cut(*REFERRAL, "--scanners"), cut(*REFERRAL, "--scanners", out="again")
    plain = {subject.subject: subject for subject in PreparedCohort.read(patients / "siemens").subjects}
    assert [members[0].vendor for members in sites.values()] == ["siemens", "philips", "ge", "canon"]
    for name, members in sites.items():
        subject, twin = members[0], again[name][0]
        found, before = load_volume(subject), load_volume(plain[subject.subject])
        assert (found.dtype, found.shape) == (before.dtype, before.shape)
        assert (found != before).mean() > 0.5
        assert np.array_equal(found, load_volume(twin))
        source = read_nifti(plain[subject.subject].ed_path)
        assert np.array_equal(read_nifti(subject.ed_path).affine, source.affine)
        assert subject.remarks[0].startswith(f"{SCANNED[False]}: {subject.vendor} over siemens (exponent")
        assert subject.remarks[1:] == ("seen before",)
        assert not subject.ed_path.is_symlink()
        assert subject.ed_path.stat().st_mode & 0o777 == 0o600
    scanners = json.loads((tmp_path / "out" / "federation.json").read_text())["scanners"]
    assert scanners["what"] == "real heart, simulated scanner"
    assert list(scanners["vendor_by_site"].values()) == ["siemens", "philips", "ge", "canon"]
    assert set(scanners["tables"]) == {"siemens", "philips", "ge", "canon"}
    origin = origin_of(find_sites(tmp_path / "out").values())
    assert (origin.phantoms, origin.datasets) == ("none", ("acdc",)), "real hearts, and whose they are"


def test_phantoms_stay_phantoms_wherever_their_sites_are(patients, tmp_path) -> None:
    data = tmp_path / "phantoms" / "siemens"
    data.mkdir(parents=True)
    (data / "preparation.json").write_text('{"synthetic": true}')
    for path in (patients / "siemens").iterdir():
        (data / path.name).symlink_to(path)
    out = tmp_path / "elsewhere" / "out"
    arguments = ["--data", str(data), "--out", str(out), *REFERRAL, "--scanners", "--n-train", "6"]
    assert main(arguments) == 0
    sites = find_sites(out)
    assert origin_of(sites.values()).phantoms == "all"
    assert PreparedCohort.read(sites["site-2"]).subjects[0].remarks[0].startswith(SCANNED[True])
    assert json.loads((out / "federation.json").read_text())["cite"] == []


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--n-sites", "6"), "there are 23 normal (NOR) subjects, and 6 sites need 24"),
        (("--n-sites", "5", "--scanners"), "--scanners has 4 vendors"),
        (("--n-train", "200"), "would train on all of its"),
    ],
    ids=["a class is too small", "more sites than scanners", "a study asks for too many"],
)
def test_what_cannot_be_cut_is_said(patients, tmp_path, capsys, options, says) -> None:
    assert main(["--data", str(patients), "--out", str(tmp_path / "out"), *REFERRAL, *options]) == 2
    assert says in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_path_is_said(tmp_path, capsys) -> None:
    assert main(["--data", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out"), *REFERRAL]) == 2
    assert "holds no prepared cohort" in capsys.readouterr().err


def test_several_cohorts_are_not_one(tiny_cohorts, tmp_path, capsys) -> None:
    data = next(iter(tiny_cohorts.values())).parent
    assert main(["--data", str(data), "--out", str(tmp_path / "out"), *REFERRAL]) == 2
    assert "holds several prepared cohorts" in capsys.readouterr().err


def test_a_place_with_content_is_left_alone(patients, tmp_path, capsys) -> None:
    (tmp_path / "note").write_text("mine")
    assert main(["--data", str(patients), "--out", str(tmp_path), *REFERRAL]) == 2
    assert "is not an empty folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["note"]


@pytest.mark.parametrize(
    ("cell", "options", "says"),
    [
        ({"spacing_z": ""}, ACQUISITION, "1 of 45 subjects have no spacing_x"),
        ({"vendor": "other"}, (*REFERRAL, "--scanners"), "not from 'other'"),
    ],
    ids=["no voxel size", "a vendor without a table"],
)
def test_a_table_that_does_not_do_is_said(patients, tmp_path, capsys, cell, options, says) -> None:  # noqa: PLR0917
    data = tmp_path / "data"
    data.mkdir()
    for path in (patients / "siemens").glob("siemens*"):
        (data / path.name).symlink_to(path)
    rows = list(csv.DictReader((patients / "siemens" / "cohort.csv").open(newline="")))
    rows[0] |= cell
    with (data / "cohort.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    assert main(["--data", str(data), "--out", str(tmp_path / "out"), "--n-train", "6", *options]) == 2
    assert says in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["data"], "a federation is whole or absent"


def test_a_link_and_a_place_inside_the_source_are_refused(patients, tmp_path, capsys) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "elsewhere")
    for out, says in ((link, "is a link"), (patients / "sub", "lies in --data")):
        assert main(["--data", str(patients), "--out", str(out), "--by", "referral"]) == 2
        assert says in capsys.readouterr().err
    assert link.is_symlink() and not (patients / "sub").exists()
