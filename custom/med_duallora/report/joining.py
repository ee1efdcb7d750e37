"""The tables that answer whether joining is worth it: against each rival, and what each site then uses."""

from med_duallora.measures import CHOICES, FEDERATED, VARIANTS, score_name
from med_duallora.report.comparison import compare, compare_at
from med_duallora.report.document import Table
from med_duallora.report.finished import Run
from med_duallora.report.tables import NONE, number, variants
from med_duallora.site.calibration import MIN_PER_CLASS


def comparison_table(run: Run) -> Table | None:
    """Return what the whole model is worth against its rivals, per site and on average; None where nobody can tell."""
    rivals = [name for name in ("backbone", "alone", "local", "global") if name in variants(run.evaluation)]
    rows, is_paired = [], True
    for name in (*run.evaluation.sites, "mean over sites"):
        found = [
            compare_at(run, name, "both", rival) if name in run.evaluation.sites else compare(run, "both", rival)
            for rival in rivals
        ]
        rows.append([name, *(f"{item.text} {item.word}" if item else NONE for item in found)])
        is_paired = is_paired and all(item.is_paired for item in found if item)
    if "both" not in variants(run.evaluation) or all(cell == NONE for row in rows for cell in row[1:]):
        return None
    source = (
        "from each subject's answers by both models"
        if is_paired
        else "from the counts alone: wider than with each subject's answers, which stay at the sites"
    )
    return Table(
        caption="Is joining worth it here? Test balanced accuracy of both adapters minus that of",
        header=["site", *(VARIANTS[rival].heading for rival in rivals)],
        rows=rows,
        note=f"95 % intervals (Newcombe), {source}. {VARIANTS['alone'].heading.capitalize()}: a training of the site's "
        "own. One adapter only: the federated model with the other one switched off, which is something else.",
        strong_rows=[len(rows) - 1],
    )


def choice_table(run: Run) -> Table | None:
    """Return what each site uses and how likely joining helped it; None where no site tells either."""
    rows = []
    for site, scores in run.evaluation.sites.items():
        place, helped = scores.get("choice"), scores.get("joining_helped")
        uses = NONE if place is None else VARIANTS[CHOICES[int(place)]].heading
        rows.append([site, uses, number(helped), number(scores.get(score_name("chosen", "balanced_accuracy")))])
    if all(cell == NONE for row in rows for cell in row[1:3]):
        return None
    return Table(
        caption="What each site uses",
        header=["site", "uses", "probability that joining helped", "test balanced accuracy of what it uses"],
        rows=rows,
        note=f"A site chooses by its validation subjects, where it has at least {MIN_PER_CLASS} of each class; with "
        f"fewer, {VARIANTS[FEDERATED].heading} stay without a choice. The probability that the federated model's "
        "balanced accuracy is above that of the better one of what the site has without joining (by its validation "
        "subjects), given its answers to the test subjects: 0.5 says nothing. A site that holds back what it chose "
        "had too few validation subjects to let it leave.",
    )
