"""The picture of the boundary: what is at a site, what is at the server, and what crosses between them."""

import textwrap
from collections.abc import Sequence
from html import escape

WIDTH = 480
"""In its own units and in CSS pixels: drawn upright, for a narrow page, and never made smaller than four fifths."""
MOST_NAMES = 5
_INK, _LINE, _STOP, _GO = "#1B2430", "#5B6675", "#8A1C1C", "#0B5A8F"
_FONT = "font-family='system-ui, -apple-system, Segoe UI, Roboto, DejaVu Sans, Arial, sans-serif'"
_LETTER = 0.56
"""Width of a letter as a part of the font size, for fonts wider than most."""
_SERVER = (
    "checks every payload, averages the adapters,",
    "keeps best and last;",
    "gets no image, no label, no prediction",
)
_STEP = 8
_GAP = 132
"""Height between the two boxes: two lines of text above the boundary, two below it."""


def boundary(sites: Sequence[str], stays: Sequence[str], payload: str, detail: str) -> str:
    """Return an SVG picture.

    Args:
        sites: names of the sites.
        stays: what never leaves a site, one line each.
        payload: what a site sends, in a few words.
        detail: its size, in a few words.
    """
    names = _wrapped(_names(sites), 13, 400)
    edge = 20 + _STEP * (min(4, len(sites)) - 1)
    box, bottom = _site(sites, names, stays, edge)
    line = bottom + _GAP // 2
    top = bottom + _GAP
    height = top + 46 + 22 * len(_SERVER) + 20
    return "".join(
        (
            f"<svg xmlns='http://www.w3.org/2000/svg' width='{WIDTH}' height='{height}' viewBox='0 0 {WIDTH} {height}' "
            f"role='img' {_FONT}>",
            f"<title>{escape(payload)} leaves a site; everything else stays</title>",
            f"<rect width='{WIDTH}' height='{height}' fill='#FFFFFF'/>",
            *box,
            *_server(top),
            *_crossing(bottom, line, top, payload, detail),
            "</svg>",
        )
    )


def _names(sites: Sequence[str]) -> str:
    return ", ".join(sites) if len(sites) <= MOST_NAMES else ", ".join(sites[:MOST_NAMES]) + ", …"


def _wrapped(text: str, size: float, width: float) -> list[str]:
    """Return the text in lines that fit into a width; what is still too long is cut with an ellipsis."""
    n_letters = int(width / (size * _LETTER))
    lines = textwrap.wrap(text, n_letters, break_long_words=False, break_on_hyphens=True)
    return [line if len(line) <= n_letters else line[: n_letters - 1] + "…" for line in lines]


def _site(sites: Sequence[str], names: Sequence[str], stays: Sequence[str], edge: int) -> tuple[list[str], int]:
    """Draw one box with what stays, with the edges of further ones behind it; return it and its lower edge."""
    height = 74 + 17 * len(names) + 23 * len(stays)
    shape = f"width='{WIDTH - 64}' height='{height}' rx='10' fill='#F4F7FB' stroke='{_LINE}'"
    n_boxes = min(4, len(sites))
    parts = [f"<rect x='{20 + _STEP * n}' y='{edge - _STEP * n}' {shape}/>" for n in reversed(range(n_boxes))]
    parts.append(_text(38, edge + 28, "Every site" if len(sites) > 1 else "The site", size=16, weight=700))
    parts += [_text(38, edge + 49 + 17 * row, line, size=13, colour=_LINE) for row, line in enumerate(names)]
    y = edge + 54 + 17 * len(names)
    parts.append(_text(38, y, "stays here", size=13, colour=_STOP, weight=700))
    parts += [_text(52, y + 23 + 23 * row, "• " + line, size=14.5) for row, line in enumerate(stays)]
    return parts, edge + height + 10


def _server(top: int) -> list[str]:
    shape = f"width='{WIDTH - 64}' height='{46 + 22 * len(_SERVER)}' rx='10' fill='#EEF6F0' stroke='{_LINE}'"
    lines = (_text(38, top + 52 + 22 * row, line, size=14) for row, line in enumerate(_SERVER))
    return [f"<rect x='20' y='{top}' {shape}/>", _text(38, top + 28, "Server", size=16, weight=700), *lines]


def _crossing(bottom: int, line: int, top: int, payload: str, detail: str) -> list[str]:
    """Draw the boundary across the page, and the two arrows with their texts at its free sides."""
    return [
        "<defs><marker id='head' viewBox='0 0 10 10' refX='9' refY='5' markerWidth='6' markerHeight='6' orient='auto'>"
        f"<path d='M0 0L10 5L0 10z' fill='{_GO}'/></marker></defs>",
        f"<line x1='8' y1='{line}' x2='{WIDTH - 8}' y2='{line}' stroke='{_STOP}' stroke-width='3' "
        "stroke-dasharray='9 6'/>",
        _text(68, line + 17, "boundary of the site", size=13, colour=_STOP, weight=700),
        _arrow(52, bottom, top),
        _text(68, bottom + 24, _cut(payload, 15), size=15, weight=700, colour=_GO),
        _text(68, bottom + 44, _cut(detail, 13), size=13),
        _arrow(WIDTH - 64, top, bottom),
        _text(WIDTH - 80, top - 14, "its average over the sites", size=14, weight=700, anchor="end", colour=_GO),
    ]


def _cut(text: str, size: float) -> str:
    """Return what fits between the two arrows."""
    return (_wrapped(text, size, WIDTH - 140) or [""])[0]


def _arrow(x: float, start: float, end: float) -> str:
    step = 6 if end > start else -6
    place = f"x1='{x}' y1='{start + step}' x2='{x}' y2='{end - step}'"
    return f"<line {place} stroke='{_GO}' stroke-width='3.5' marker-end='url(#head)'/>"


def _text(
    x: float, y: float, text: str, *, size: float, weight: int = 400, colour: str = _INK, anchor: str = "start"
) -> str:
    place = f"x='{x}' y='{y}' font-size='{size}' font-weight='{weight}' fill='{colour}' text-anchor='{anchor}'"
    return f"<text {place}>{escape(text)}</text>"
