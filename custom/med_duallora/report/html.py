"""Writes a report as one self-contained HTML page: pictures inside, no request to anywhere."""

import base64
from importlib import resources

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from med_duallora.report.document import Document, Picture


def to_html(document: Document) -> str:
    """Return the whole page; every text is escaped."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["inline"] = inline
    source = resources.files("med_duallora.report").joinpath("template.html").read_text(encoding="utf-8")
    return environment.from_string(source).render(document=document)


def inline(picture: Picture) -> Markup:
    """Return the element that shows a picture without a file: the SVG itself, or an image that holds its data."""
    if picture.name.endswith(".svg"):
        return Markup(picture.content.decode())  # noqa: S704  written by this package, its texts are escaped there
    data = base64.b64encode(picture.content).decode()
    return Markup('<img src="data:image/png;base64,{}" alt="{}" width="{}">').format(data, picture.alt, picture.width)
