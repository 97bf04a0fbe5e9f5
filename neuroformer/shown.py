"""How what a call returns shows itself in a notebook: its text, and its figure where the report draws one; and arrays with names."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

_draw: list[Callable[[Any], Any]] = []


def draw_with(function: Callable[[Any], Any]) -> None:
    """Figures of what is shown are drawn by ``function``: it takes the object and gives a Matplotlib figure, or None.

    What draws lies above what is drawn, and hands itself down.
    """
    _draw[:] = [function]


class Shown:
    """Gives a notebook the text of ``__repr__`` as HTML, with the figure that is drawn of it (:func:`draw_with`), if any."""

    def _html(self) -> str:
        first, _, rest = repr(self).partition("\n")
        return f"<p>{escape(first)}</p>" + (f"<pre>{escape(rest)}</pre>" if rest else "")

    def _repr_html_(self) -> str:
        figure = _draw[0](self) if _draw else None
        if figure is None:
            return self._html()
        out = io.BytesIO()
        figure.savefig(out, format="png", dpi=90)
        return f'{self._html()}<img src="data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}">'


class NamedValues(dict[str, Any], Shown):
    """Numbers by name: a dictionary, which a notebook shows as a table; what has a figure of its own follows beneath."""

    def _repr_html_(self) -> str:
        own = {k: v for k, v in self.items() if isinstance(v, Shown) and not isinstance(v, NamedValues)}
        beneath = "".join(f"<h4>{escape(str(k))}</h4>{v._repr_html_()}" for k, v in own.items())
        return _table({k: v for k, v in self.items() if k not in own}) + beneath


def _table(values: Mapping[Any, Any]) -> str:
    rows = "".join(f"<tr><th>{escape(str(k))}</th><td>{_cell(v)}</td></tr>" for k, v in values.items())
    return f"<table>{rows}</table>" if rows else ""


def _cell(value: Any) -> str:
    if isinstance(value, Mapping):
        return _table(value)
    if isinstance(value, (list, tuple)):
        tables = any(isinstance(v, Mapping) for v in value)
        return ("" if tables else ", ").join(map(_cell, value))
    return escape(f"{value:.4g}" if isinstance(value, float) else str(value))


def labelled(
    values: Any,
    coords: Mapping[str, Sequence[Any] | Any],
    name: str,
    attributes: Mapping[str, Any] | None = None,
    beside: Mapping[str, tuple[str, Any]] | None = None,
) -> Any:
    """An ``xarray.DataArray``.

    Parameters
    ----------
    values : array
    coords : by name of each axis, in order, its labels
    beside : further coordinates: by name, the axis and a label for each of its places

    Raises
    ------
    ValueError
        xarray is not installed.
    """
    try:
        import xarray
    except ImportError:
        raise ValueError("to_xarray needs the package 'xarray'; pip install 'neuroformer[xarray]'") from None
    return xarray.DataArray(
        values, dict(coords) | dict(beside or {}), list(coords), name or None, dict(attributes or {})
    )
