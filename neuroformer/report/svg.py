"""Figures of matplotlib as pictures of the page: SVG in an address of their own, which needs no network."""

from __future__ import annotations

import base64
import io
from typing import Any

import matplotlib
from matplotlib.figure import Figure


def drawn(figure: Figure, said: str) -> dict[str, Any]:
    """What the page shows of a figure.

    Parameters
    ----------
    said : what it shows, for those who do not see it
    """
    out = io.BytesIO()
    # text stays text: smaller, and in the font of the page's reader; the same figure is the same bytes
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "neuroformer"}):
        figure.savefig(out, format="svg", metadata={"Date": None})
    return {"src": f"data:image/svg+xml;base64,{base64.b64encode(out.getvalue()).decode()}", "alt": said}
