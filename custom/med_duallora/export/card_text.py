"""A model's card for people, in Markdown; every number is one of the card's JSON."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from med_duallora.measures import SCORES, VARIANTS
from med_duallora.report.tables import NONE, between, number

Values = Mapping[str, Any]


def to_text(card: Values) -> str:
    """Return the card as Markdown."""
    parts = [f"# {card['name']}", f"> **{card['intended_use']}** {card['banner']}"]
    for title, blocks in (
        ("Model", _model(card["model"])),
        ("Training", _training(card["training"])),
        ("Data", _data(card["data"])),
        ("Scores", _site_scores(card["site_scores"]) or _scores(card["scores"])),
        ("Limits", ["\n".join(f"- {text}" for text in card["limits"])]),
        ("Licence", [_list(card["licence"].items())]),
        ("Hashes and versions", [_list({**card["hashes"], **card["versions"]}.items())]),
    ):
        parts += [f"## {title}", *blocks]
    return "\n\n".join(parts) + f"\n\nWritten by {card['written_by']}.\n"


def _list(items: Iterable[tuple[str, Any]]) -> str:
    return "\n".join(f"- {name.replace('_', ' ')}: {NONE if value in (None, '') else value}" for name, value in items)


def _model(model: Values) -> list[str]:
    lora = ", ".join(f"{name} {value}" for name, value in model["lora"].items())
    plain = {name: value for name, value in model.items() if name != "lora"}
    return [_list([*plain.items(), ("adapters", lora)])]


def _training(training: Values) -> list[str]:
    rounds = ", ".join(f"{site} {n}" for site, n in training["n_rounds_by_site"].items())
    return [
        _list(
            [
                ("framework", training["framework"]),
                ("round", f"{training['round'] or NONE} of {training['n_rounds_planned']}"),
                ("sites of that round", ", ".join(training["sites_of_that_round"])),
                ("rounds of each site in the whole training", rounds),
                ("aggregation", training["aggregation"]),
                ("settings", ", ".join(f"{name} {value}" for name, value in training["settings"].items())),
            ]
        )
    ]


def _data(data: Values) -> list[str]:
    people = {
        "all": "All subjects are synthetic phantoms.",
        "some": "Some sites hold synthetic phantoms, the others patients.",
        "none": "All subjects are patients.",
    }.get(data["phantoms"], "Whether the subjects are patients or phantoms is not stated.")
    blocks = [f"{people} {data['subjects_leave']}"]
    if data["datasets"]:
        blocks.append("Cite with every use:\n\n" + "\n".join(f"- {text}" for text in data["datasets"].values()))
    rows = [
        [site, *(str(counts.get(name, NONE)) for name in ("n_test_subjects", "n_negative", "n_positive"))]
        for site, counts in data["test_subjects_by_site"].items()
    ]
    return [*blocks, *([_table(["site", "test subjects", "NOR", "disease"], rows)] if rows else [])]


def _scores(scores: Values) -> list[str]:
    if not scores:
        return ["The card was made without an evaluation: no score is known."]
    names = list(next(iter(scores.values())))
    rows = [[VARIANTS[variant].heading, *(_mean(values[name]) for name in names)] for variant, values in scores.items()]
    text = "Means over the sites, each counting the same; 95 % intervals where the counts behind them are known."
    sites = scores["both"]["balanced_accuracy"]
    own = [
        [site, number(value), between(sites["interval_by_site"].get(site)) or NONE]
        for site, value in sites["by_site"].items()
    ]
    return [
        text,
        _table(["variant", *(SCORES[name].heading for name in names)], rows),
        "Balanced accuracy with both adapters, by site:",
        _table(["site", "balanced accuracy", "95 % interval"], own),
    ]


def _site_scores(found: Values) -> list[str]:
    rows = [
        [SCORES[name].heading, f"{found[name]['n_right']} of {found[name]['n_subjects']}", _share(found[name])]
        for name in ("sensitivity", "specificity")
        if name in found
    ]
    if not rows:
        return []
    text = f"Test subjects of {found['site']} at its own threshold, {found['threshold']:.3f}; this card stays there."
    why = [found["why"]] if found["why"] else []
    return [text, *why, _table(["score", "right", "share (95 % interval)"], rows)]


def _share(values: Values) -> str:
    return f"{number(values['value'])} ({between(values['interval'])})"


def _mean(values: Values) -> str:
    interval = between(values.get("interval"))
    return number(values["mean"]) + (f" ({interval})" if interval else "")


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, [":--", *["--:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
