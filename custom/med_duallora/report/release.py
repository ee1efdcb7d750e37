"""The release gate of a whole run: every site's test scores held against the same floors, and the worst site's."""

from collections.abc import Mapping
from dataclasses import dataclass

from med_duallora.inference.gate import Gate, Reached, judged, judged_scores
from med_duallora.measures import SCORES, score_name
from med_duallora.report.document import Block, Paragraph, Table
from med_duallora.report.finished import Evaluation
from med_duallora.report.summary import counts
from med_duallora.settings.release import ReleaseFloors

DEPLOYED = "both"
"""The variant that a site predicts with."""
ALONE = "global"
"""The same of a site that only evaluates: it has no local adapter."""


@dataclass(frozen=True)
class RunGate:
    """Whether the sites reach the floors.

    Args:
        sites: each site's gate; a site that did not answer has one, too, and did not pass.
        worst: of every score with a floor, the site with the lowest value and what it reached.
    """

    sites: dict[str, Gate]
    worst: dict[str, tuple[str, Reached]]

    @property
    def passed(self) -> bool:
        """Return whether every site passed."""
        return all(gate.passed for gate in self.sites.values())

    @property
    def sentence(self) -> str:
        """Say it for the terminal, with the worst site of each score."""
        n_passed = sum(gate.passed for gate in self.sites.values())
        worst = "; ".join(f"{site}: {reached.text()}" for site, reached in self.worst.values())
        word = "passed" if self.passed else "failed"
        return f"Release gate {word}, {n_passed} of {len(self.sites)} sites pass. Worst site: {worst}."


def gate_of_run(evaluation: Evaluation, floors: ReleaseFloors) -> RunGate | None:
    """Hold an evaluation against floors; None where none is set."""
    if not floors.asked:
        return None
    sites = {site: _gate(evaluation.sites.get(site, {}), floors) for site in (*evaluation.sites, *evaluation.failed)}
    worst = {}
    for number, score in enumerate(floors.asked):
        values = {site: gate.reached[number] for site, gate in sites.items()}
        where = min(values, key=lambda site: -1.0 if (value := values[site].value) is None else value)
        worst[score] = (where, values[where])
    return RunGate(sites, worst)


def _gate(scores: Mapping[str, float], floors: ReleaseFloors) -> Gate:
    names = {name.partition(".")[0] for name in scores}
    deployed = ALONE if DEPLOYED not in names and ALONE in names else DEPLOYED
    found = counts(scores, deployed)
    if found is not None:
        return judged(found, floors)
    # a site may send scores without the numbers of subjects behind them
    return judged_scores({score: scores.get(score_name(deployed, score)) for score in floors.asked}, {}, floors)


def release_blocks(gate: RunGate) -> list[Block]:
    """Return the section of the gate."""
    scores = list(gate.worst)
    header = ["site", *(SCORES[score].heading for score in scores), "gate"]
    rows = [[site, *map(_cell, found.reached), _word(found.passed)] for site, found in gate.sites.items()]
    worst = [f"{_cell(reached)}, {site}" for site, reached in gate.worst.values()]
    rows.append(["worst site", *worst, _word(gate.passed)])
    floors = ", ".join(f"{SCORES[score].heading} {reached.floor:g}" for score, (_, reached) in gate.worst.items())
    return [
        Paragraph(gate.sentence),
        Table(
            caption=f"Both adapters on the test subjects at threshold 0.5; floors: {floors}",
            header=header,
            rows=rows,
            note="The point is held against the floor; the 95 % interval beside it says how far it could lie off with "
            "so few subjects. A score that a site did not send has not passed. A site's own gate, by the floors of its "
            "configuration and at its own threshold, stands on the page of its run folder. A site that only evaluates "
            "is held against the floors with the global adapter alone.",
            strong_rows=[len(rows) - 1],
        ),
    ]


def _cell(reached: Reached) -> str:
    if reached.value is None:
        return "not known"
    between = f" ({reached.interval[0]:.2f} to {reached.interval[1]:.2f})" if reached.interval else ""
    return f"{reached.value:.2f}{between}"


def _word(passed: bool) -> str:
    return "passed" if passed else "failed"
