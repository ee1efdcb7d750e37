"""What a study's page says, from records that are made up."""

import csv
import io
import json

import pytest

from med_duallora.report.html import to_html
from med_duallora.report.markdown import to_markdown
from med_duallora.study.arms import ALONE, Way
from med_duallora.study.page import page_of
from med_duallora.study.records import COLUMNS, Run, csv_of, finished, result_rows
from med_duallora.study.statistics import Estimate
from med_duallora.study.tables import main_table
from med_duallora.study.words import joining, p_value, verdict
from med_duallora.study.write import _known, comparisons

SITES = ("canon", "ge")
SUBJECTS = [f"subject-{row:02d}" for row in range(40)]
LABELS = [row % 2 for row in range(40)]


def chances(n_right: int) -> list[float]:
    """The first subjects are classified rightly, the others are not."""
    return [0.9 if (label == 1) == (row < n_right) else 0.1 for row, label in enumerate(LABELS)]


def made_up(spec, variants: dict[str, int], attribution: dict[str, float] | None = None) -> Run:
    site = {
        "n_train": 6,
        "subjects": SUBJECTS,
        "labels": LABELS,
        "chances": {name: chances(n_right) for name, n_right in variants.items()},
        "attribution": attribution or {},
    }
    return Run(
        spec,
        {
            "synthetic": True,
            "seconds": 2.0,
            "cpu_seconds": 1.5,
            "tensor_bytes": 1000 if spec.arm.way in (Way.FEDERATED, Way.NEW_SITE) and spec.arm.name != ALONE else 0,
            "code": {"version": "1", "package_sha256": "a" * 64, "revision": "abc"},
            "key": spec.key,
            "sites": dict.fromkeys(SITES, site),
        },
    )


@pytest.fixture(scope="module")
def runs(spec_of):
    variants = {
        "med-duallora": {"backbone": 24, "global": 32, "local": 30, "both": 36},
        "local-lora": {"both": 26},
        "own-head": {"both": 24},
        "fedavg-lora": {"both": 36},
        "new-site": {"k=0": 30, "k=4": 30, "k=4 frozen": 20},
    }
    sizes = {"norm_global": 2.0, "norm_local": 1.0, "angle": 80.0}
    return [made_up(spec_of(name, seed), said, sizes) for name, said in variants.items() for seed in range(4)]


@pytest.fixture(scope="module")
def page(runs):
    return page_of([run.spec for run in runs], comparisons(runs, 200), ["1, package aaa"])


def tables(page) -> dict[str, list[list[str]]]:
    return {
        block.caption: [list(row) for row in block.rows]
        for section in page.sections
        for block in section.blocks
        if hasattr(block, "rows")
    }


def test_the_page_says_first_whose_hearts_these_are_and_what_was_found(page):
    assert page.banner == (
        "Synthetic phantoms: no number here says anything about patients. Research software, not for diagnosis."
    )
    assert "(synthetic phantoms): macro balanced accuracy of med-duallora 0.900" in page.headline
    assert "+0.250" in page.headline and "against training alone: better" in page.headline
    assert {item.label: item.value for item in page.key_numbers}["runs done"] == "20 of 20"


def test_the_tables_hold_what_the_records_hold(page):
    found = tables(page)
    (main,) = [rows for caption, rows in found.items() if caption.startswith("Test scores by method")]
    assert [row[0] for row in main] == ["med-duallora", "local-lora", "own-head", "fedavg-lora"]
    assert [row[2].split()[0] for row in main] == ["0.900", "0.650", "0.600", "0.900"]
    assert main[1][-2] == main[2][-2] == "0" != main[0][-2], "only who sends something has a size"
    (against,) = [rows for caption, rows in found.items() if "minus that of" in caption and "Macro" in caption]
    assert [row[0] for row in against] == ["local-lora", "own-head", "fedavg-lora"]
    assert [row[2] for row in against] == ["better", "better", "no difference shown"]
    assert against[0][3] == "8 of 8" and against[2][3:] == ["0 of 8", "1", "1"]
    (worth,) = [rows for caption, rows in found.items() if caption.startswith("Is joining worth it")]
    assert [row[0] for row in worth] == list(SITES)
    assert worth[0][2].startswith("Joining was worth it for canon: balanced accuracy +0.25 against training alone")
    (adapters,) = [rows for caption, rows in found.items() if caption.startswith("What the adapters")]
    assert adapters[0] == ["canon", "0.600", "0.800", "0.750", "0.900", "2.00", "1.00", "80.00"]
    (shots,) = [rows for caption, rows in found.items() if caption.startswith("A site that joins")]
    assert [row[0] for row in shots] == ["0", "4", "8", "16"]
    assert shots[0][2:] == ["-", "-"] and shots[1][3].startswith("+0.250")


def test_what_comes_together_in_one_place_is_not_called_nothing_sent(spec_of):
    alone, *together = ("local-lora", "central-lora", "shared-head", "latent-ceiling")
    (found,) = comparisons([made_up(spec_of(name, 0), {"both": 30}) for name in (alone, *together)], 100)
    assert {row[0]: row[-2] for row in main_table(found).rows} == {alone: "0"} | dict.fromkeys(together, "-")


def test_the_settings_say_whose_they_are_where_methods_differ(spec_of):
    names = ("own-head", "med-duallora", "fedavg-lora", "fedprox-lora")
    rows = dict(tables(page_of([spec_of(name, 0) for name in names], [], []))["Settings"])
    assert rows["train.local_lr_factor"] == "0.1 (med-duallora), 1.0 (others)"
    assert rows["lora.n_blocks"] == str(spec_of("med-duallora", 0).job.lora.n_blocks)


def test_every_plot_and_both_formats_say_that_these_are_phantoms(page):
    assert [picture.name for picture in page.pictures] == [
        "study-1-sites.png",
        "study-1-bytes.png",
        "study-1-shots.png",
    ]
    html, text = to_html(page), to_markdown(page)
    for written in (html, text):
        assert "not comparable" in written and ".768" in written and ".612" in written
        assert "synthetic phantoms" in written and "not for diagnosis" in written
        assert not any(name in written for name in SUBJECTS), "a page names no subject"


def test_a_study_of_patients_says_so(runs):
    from dataclasses import replace

    planned = [replace(run.spec, cohort=replace(run.spec.cohort, is_synthetic=False)) for run in runs]
    assert page_of(planned, [], []).banner.startswith("Real patients, research use.")


def test_a_recipe_is_held_against_the_first_one_on_the_same_splits(runs):
    from dataclasses import replace

    def under(name: str, run: Run) -> Run:
        return Run(replace(run.spec, recipe=name), run.record)

    ours, rest = [run for run in runs if run.spec.arm.name == "med-duallora"], [run for run in runs if run.spec.seed]
    weaker = [under("all-blocks", made_up(run.spec, {"both": 32})) for run in ours]
    found = comparisons([*runs, *weaker, *(under("one-seed-less", run) for run in rest)], 200)
    page = page_of([run.spec for run in runs], found, ["1"])
    (table,) = [rows for caption, rows in tables(page).items() if "other recipes than" in caption]
    (row,) = table
    assert row[:2] == ["med-duallora", "all-blocks"], "what lacks a seed is not compared"
    assert (row[2].split()[0], row[3].split()[0], row[4].split()[0], row[5]) == ("0.900", "0.800", "-0.100", "worse")


def test_federations_of_the_same_subjects_are_one_section(runs, monkeypatch):
    """A subject is drawn once for all of them, and the page says so; every federation keeps a column of its own."""
    from dataclasses import replace

    cohorts = {name: replace(runs[0].spec.cohort, name=name) for name in ("cut-0", "cut-1")}
    both = [Run(replace(run.spec, cohort=cohort), run.record) for cohort in cohorts.values() for run in runs]
    (found,) = comparisons(both, 200)
    assert (found.cohort, found.cohorts, found.synthetic) == ("cut-0, cut-1", ["cut-0", "cut-1"], True)
    assert len(found.scored["med-duallora"].series) == 8
    (alone,) = comparisons(runs, 200)
    values = [one.scored["med-duallora"].values("macro", "auroc")[0] for one in (found, alone)]
    assert values[0] == pytest.approx(values[1])
    page = page_of([run.spec for run in both], [found], ["1"])
    assert "2 federations were cut from the same subjects" in to_markdown(page)
    by_federation = tables(page)["Test balanced accuracy by federation, mean over its splits and sites"]
    assert by_federation[0][1] == by_federation[0][2] == "0.900"
    monkeypatch.setattr("med_duallora.study.write.families", lambda _: [])
    assert len(comparisons(both, 200)) == 2


def test_the_table_of_results_names_no_subject_and_reads_back(runs):
    rows = result_rows(runs[:2], [4096, 4096])
    read = list(csv.DictReader(io.StringIO(csv_of(rows))))
    assert tuple(read[0]) == COLUMNS
    assert len(read) == 2 * 4 * len(SITES)
    both = next(row for row in read if row["variant"] == "both")
    assert (both["arm"], both["synthetic"], both["n_test"], both["n_diseased"]) == ("med-duallora", "yes", "40", "20")
    assert float(both["balanced_accuracy"]) == 0.9
    assert not any(name in csv_of(rows) for name in SUBJECTS)
    json.dumps(_known([{"auroc": float("nan"), "seed": 0}]), allow_nan=False)


def test_a_record_of_another_run_is_not_taken_for_this_one(spec_of, tmp_path):
    from med_duallora.errors import ArtifactError
    from med_duallora.support.files import write_json

    spec = spec_of("own-head", out=tmp_path)
    assert finished([spec]) == []
    for record in ({"key": "other", "sites": {"a": 1}}, {}):
        write_json(spec.path, record, 0o600)
        with pytest.raises(ArtifactError, match="delete it"):
            finished([spec])


@pytest.mark.parametrize(
    ("low", "high", "word", "said"),
    [
        (0.01, 0.2, "better", "Joining was worth it for ge"),
        (-0.1, 0.2, "no difference shown", "No gain of joining is shown for ge"),
        (-0.3, -0.1, "worse", "Joining cost ge balanced accuracy"),
        (float("nan"), float("nan"), "not known", "Nobody can tell"),
    ],
)
def test_the_words_follow_the_interval(low, high, word, said):
    found = Estimate((low + high) / 2, low, high)
    assert verdict(found) == word
    assert joining("ge", found).startswith(said)


def test_p_values_are_short():
    assert [p_value(p) for p in (0.0002, 0.0312, 0.5, 1.0)] == ["< .001", ".031", ".500", "1"]
