"""The picture of the boundary: what is at a site, what is at the server, and the one arrow between them."""

from collections.abc import Sequence
from html import escape

WIDTH, HEIGHT = 860, 330
MOST_NAMES = 5
_INK, _LINE, _STOP, _GO = "#1B2430", "#5B6675", "#8A1C1C", "#0B5A8F"
_FONT = "font-family='system-ui, -apple-system, Segoe UI, Roboto, DejaVu Sans, Arial, sans-serif'"


def boundary(sites: Sequence[str], stays: Sequence[str], payload: str, detail: str) -> str:
    """Return an SVG picture.

    Args:
        sites: names of the sites.
        stays: what never leaves a site, one line each.
        payload: what a site sends, in a few words.
        detail: its size, in a few words.
    """
    return "".join(
        (
            f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {HEIGHT}' role='img' {_FONT}>",
            f"<title>{escape(payload)} leaves a site; everything else stays</title>",
            f"<rect width='{WIDTH}' height='{HEIGHT}' fill='#FFFFFF'/>",
            *_sites(sites, stays),
            _boundary_line(),
            _server(),
            *_arrows(payload, detail),
            "</svg>",
        )
    )


def _sites(sites: Sequence[str], stays: Sequence[str]) -> list[str]:
    """Draw one box with what stays, with the edges of further ones behind it."""
    shape = f"width='330' height='250' rx='10' fill='#F4F7FB' stroke='{_LINE}'"
    n_boxes = min(4, len(sites))
    parts = [f"<rect x='{20 + 8 * step}' y='{54 - 8 * step}' {shape}/>" for step in reversed(range(n_boxes))]
    names = ", ".join(sites) if len(sites) <= MOST_NAMES else ", ".join(sites[:MOST_NAMES]) + ", …"
    parts.append(_text(38, 84, "Every site" if len(sites) > 1 else "The site", size=16, weight=700))
    parts.append(_text(38, 105, names, size=13, colour=_LINE))
    parts.append(_text(38, 138, "stays here", size=13, colour=_STOP, weight=700))
    parts += [_text(52, 163 + 24 * row, "• " + line, size=14.5) for row, line in enumerate(stays)]
    return parts


def _boundary_line() -> str:
    return (
        f"<line x1='408' y1='24' x2='408' y2='318' stroke='{_STOP}' stroke-width='3' stroke-dasharray='9 6'/>"
        + _text(420, 38, "boundary of the site", size=13, colour=_STOP, weight=700)
    )


def _server() -> str:
    lines = (
        "checks every payload",
        "averages the adapters",
        "keeps best and last",
        "gets no image, no label",
        "and no prediction",
    )
    return (
        f"<rect x='644' y='76' width='202' height='206' rx='10' fill='#EEF6F0' stroke='{_LINE}'/>"
        + _text(662, 108, "Server", size=16, weight=700)
        + "".join(_text(662, 138 + 24 * row, line, size=14) for row, line in enumerate(lines))
    )


def _arrows(payload: str, detail: str) -> list[str]:
    return [
        "<defs><marker id='head' viewBox='0 0 10 10' refX='9' refY='5' markerWidth='6' markerHeight='6' orient='auto'>"
        f"<path d='M0 0L10 5L0 10z' fill='{_GO}'/></marker></defs>",
        _arrow(380, 146, 638),
        _text(525, 112, payload, size=15, weight=700, anchor="middle", colour=_GO),
        _text(525, 133, detail, size=12.5, anchor="middle"),
        _arrow(638, 226, 380),
        _text(525, 250, "its average over the sites", size=13.5, weight=700, anchor="middle", colour=_GO),
    ]


def _arrow(start: float, y: float, end: float) -> str:
    place = f"x1='{start}' y1='{y}' x2='{end}' y2='{y}'"
    return f"<line {place} stroke='{_GO}' stroke-width='3.5' marker-end='url(#head)'/>"


def _text(
    x: float, y: float, text: str, *, size: float, weight: int = 400, colour: str = _INK, anchor: str = "start"
) -> str:
    place = f"x='{x}' y='{y}' font-size='{size}' font-weight='{weight}' fill='{colour}' text-anchor='{anchor}'"
    return f"<text {place}>{escape(text)}</text>"
