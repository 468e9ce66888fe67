"""What all reports share: the look of figures and pages, and how both become bytes."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

# Okabe & Ito's, told apart by any eye
BLUE, ORANGE, SKY, GREY = "#0072B2", "#D55E00", "#56B4E9", "#999999"
GREEN, AMBER, PURPLE, BLACK = "#009E73", "#E69F00", "#CC79A7", "#000000"
STYLE: Any = {
    "figure.dpi": 110,
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "text.parse_math": False,  # labels are text, whatever signs they hold
}


def to_png(drawing: Figure) -> bytes:
    """A figure as a PNG; it is closed."""
    stream = io.BytesIO()
    drawing.savefig(stream, format="png")
    plt.close(drawing)
    return stream.getvalue()


def shorten(label: str) -> str:
    """A label as there is room for it in a figure."""
    return label if len(label) <= 20 else label[:19] + "…"


def to_address(picture: bytes) -> str:
    """A PNG as a data URI."""
    return "data:image/png;base64," + base64.b64encode(picture).decode()


def render_page(
    template: str, facts: Mapping[str, Any], pictures: Mapping[str, bytes], filters: Mapping[str, Any] | None = None
) -> str:
    """A self-contained HTML page, every text from outside escaped.

    Args:
        template: a file of this folder; it sees `facts`, and each picture as `images[name]`.
        pictures: PNGs by name.
        filters: functions that the template may call.
    """
    pages = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    pages.filters.update(filters or {})
    images = {name: to_address(picture) for name, picture in pictures.items()}
    return pages.get_template(template).render(facts, images=images)
