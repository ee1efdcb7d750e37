import json
from dataclasses import replace
from pathlib import Path

import pytest

from med_duallora.report import tables
from med_duallora.report.collect import read_run
from med_duallora.server.timing import RoundClock, add_times
from tests.unit.report.conftest import rewrite, round_record


def test_result_tables_have_a_row_per_variant_and_a_column_per_site(server: Path) -> None:
    accuracy, sensitivity, _, auroc = tables.result_tables(read_run(server))
    assert accuracy.header == ["variant", "macro", "pooled", "worst site", "spread", "siemens", "philips"]
    assert [row[0] for row in accuracy.rows] == [
        "backbone + head",
        "global adapter only",
        "local adapter only",
        "both adapters",
    ]
    assert accuracy.rows[3] == ["both adapters", "0.88", "0.83", "0.75 (philips)", "0.25", "1.00", "0.75"]
    assert accuracy.strong_rows == [3]
    assert sensitivity.caption == "Test sensitivity"
    assert [row[2] for row in auroc.rows] == ["–"] * 4
    assert "No pooled AUROC" in auroc.note


def test_a_method_without_a_local_adapter_has_fewer_rows(server: Path) -> None:
    run = read_run(server)
    kept = {
        site: {name: value for name, value in scores.items() if not name.startswith(("local.", "both."))}
        for site, scores in run.evaluation.sites.items()
    }
    rewrite(server / "evaluation.json", sites=kept)
    assert tables.variants(read_run(server).evaluation) == ["backbone", "global"]


def test_intervals_show_the_counts(server: Path) -> None:
    table = tables.interval_table(read_run(server), "both")
    assert table.header[1:] == ["trained on", "NOR recognised (specificity)", "disease found (sensitivity)"]
    assert [[row[0], *row[2:]] for row in table.rows] == [
        ["siemens", "2 of 2  (34–100 %)", "4 of 4  (51–100 %)"],
        ["philips", "2 of 4  (15–85 %)", "2 of 2  (34–100 %)"],
        ["all sites", "4 of 6  (30–90 %)", "6 of 6  (61–100 %)"],
    ]


def test_the_sizes_of_training_are_those_that_the_sites_told_last(server: Path) -> None:
    run = read_run(server)
    told: dict[str, list[dict[str, float]]] = {
        "siemens": [{"n_subjects": 9.0}, {"n_subjects": 24.0}, {}],
        "philips": [{}, {}, {}],
    }
    rounds = [
        replace(item, sites={name: replace(item.sites[name], metrics=metrics[i]) for name, metrics in told.items()})
        for i, item in enumerate(run.rounds)
    ]
    sizes = [row[1] for row in tables.interval_table(replace(run, rounds=rounds), "both").rows]
    assert sizes == ["24", "–", "24"]


def test_a_class_without_subjects_is_said(server: Path) -> None:
    sites = {"ge": {"both.specificity": 1.0, "n_positive": 0, "n_negative": 2, "n_test_subjects": 2}}
    rewrite(server / "evaluation.json", sites=sites)
    assert tables.interval_table(read_run(server), "both").rows[0][3] == "no subject"


def test_payload_stands_beside_its_tensors_alone(server: Path) -> None:
    table = tables.payload_table(read_run(server))
    assert table.header[1:] == ["rounds", "smallest", "largest", "tensors alone", "largest / tensors", "sent in total"]
    assert table.rows == [
        ["siemens", "3", "2.0", "2.0", "2.0", "1.000", "6.0"],
        ["philips", "3", "2.5", "2.5", "2.0", "1.250", "7.5"],
    ]


def test_a_site_that_never_contributed_has_no_payload(server: Path) -> None:
    records = [round_record(index) for index in range(2)]
    for record in records:
        record["sites"].pop("philips")  # type: ignore[attr-defined]
    (server / "round_metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    assert tables.payload_table(read_run(server)).rows[1] == ["philips", "0", *["–"] * 5]


def test_who_counted_for_less_and_how_far(server: Path) -> None:
    assert tables.limits_table(read_run(server)).rows == []
    changes = (
        {"clipped": {"siemens": 0.9}},
        {"clipped": {"siemens": 0.105}, "capped": {"siemens": 8.4, "philips": 1}},
        {},
    )
    text = "".join(json.dumps(round_record(n, **each)) + "\n" for n, each in enumerate(changes))
    (server / "round_metrics.jsonl").write_text(text)
    table = tables.limits_table(read_run(server))
    assert table.rows == [["siemens", "2", "0.105", "1", "8.4"], ["philips", "0", tables.NONE, "1", "1"]]
    assert "in 3 rounds" in table.caption


def test_time_is_split_into_training_and_everything_else(server: Path) -> None:
    table = tables.time_table(read_run(server))
    assert table.rows[0] == ["1", "2", "6.0", "4.0", "2.0", "0"]
    assert table.rows[-1] == ["all", "", "18.0", "12.0", "6.0", "0"]


def test_where_the_time_beside_computing_goes(server: Path) -> None:
    assert read_run(server).times == (), "a run of an earlier version has no clock"
    clocks = [RoundClock(k, 0.0, {"ge": 0.5 + k}, {"ge": 5.0 + k}).times(5.25 + k, {"ge": 4.0}) for k in range(3)]
    for times in (*clocks, RoundClock(3, 0.0).times(9.0, {})):
        add_times(server, times)
    table = tables.times_table(read_run(server))
    assert table.rows == [
        ["waiting for work", "1.50", "0.50", "2.50"],
        ["transfer and filters", "0.50", "0.50", "0.50"],
        ["aggregation and writing", "0.25", "0.25", "0.25"],
    ]


@pytest.mark.parametrize(
    ("site_seconds", "expected", "reason"),
    [
        ([2.0, 3.0], 3.0, "the slowest site decides"),
        ([99.0], 6.0, "a site's clock cannot make everything else negative"),
        ([], 0.0, "nobody contributed"),
        ([None], 0.0, "the site's policy lets no time out"),
    ],
)
def test_training_time_is_the_slowest_sites(
    server: Path, site_seconds: list[float | None], expected: float, reason: str
) -> None:
    sites = {
        f"s{n}": {"metrics": {} if value is None else {"seconds": value}, "payload_bytes": 1, "weight": 1.0}
        for n, value in enumerate(site_seconds)
    }
    (server / "round_metrics.jsonl").write_text(json.dumps(round_record(0, sites=sites)))
    assert tables.training_seconds(read_run(server).rounds[0]) == expected, reason


def test_settings_are_named_as_set_takes_them(server: Path) -> None:
    rows = dict(tables.configuration_table(read_run(server)).rows)
    assert rows["train.n_rounds"] == "3"
    assert rows["lora.targets"] == "q, kv"


def test_provenance_flattens_the_manifest_and_leaves_out_the_settings(server: Path) -> None:
    rows = dict(tables.provenance_table(read_run(server)).rows)
    assert rows["versions.python"] == "3.11"
    assert rows["backbone_sha256"] == "f" * 64
    assert len(rows["job.json sha256"]) == 64
    assert rows["started"] == "31 Jan 2026, 22:59 UTC"
    settings = dict(tables.configuration_table(read_run(server)).rows)
    assert not set(rows) & set(settings) - {"backbone_sha256"}
    assert not any(name.startswith(("lora", "job.")) and name != "job.json sha256" for name in rows)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (7260, "2 h 1 min")]
)
def test_durations_are_written_in_their_largest_units(seconds: float, text: str) -> None:
    assert tables.duration(seconds) == text


def test_best_and_last_adapter_stand_side_by_side(server: Path) -> None:
    sites = {site: dict(values) for site, values in read_run(server).evaluation.sites.items()}
    models = {"best": {"round": 1, "sites": sites, "failed": {}}, "last": {"round": 2, "sites": sites, "failed": {}}}
    rewrite(server / "evaluation.json", models=models, round=1)
    rows = tables.adapters_table(read_run(server)).rows
    assert [list(row[:3]) for row in rows] == [["best", "2", "0.88"], ["last", "3", "0.88"]]
