"""A network as a picture and as a nested list, both of which open blocks and layers."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from quantstore.app.widgets import components

_ASSETS = Path(__file__).resolve().parent.parent / "assets"

_network = components.register(
    "quantstore_network",
    css=(_ASSETS / "network.css").read_text(encoding="utf-8"),
    js=(_ASSETS / "network.js").read_text(encoding="utf-8"),
)


def draw(
    *,
    model: str,
    size: tuple[float, float],
    boxes: Sequence[Mapping[str, Any]],
    lines: Sequence[Mapping[str, Any]],
    tree: Sequence[Mapping[str, Any]],
    summary: str,
    key: str,
    on_click: Callable[[], None],
) -> None:
    """Draw what is placed already.

    Args:
        model: whose network it is: another one is seen from its beginning.
        boxes: ``item``, ``x``, ``y``, ``width``, ``height``, ``label``, ``small``, ``title``,
            ``band``, ``is_open``, ``is_join``, ``is_end`` and what a click opens: the number of a
            ``block`` or the key of a ``layer``, the other of them or both None.
        lines: ``through`` (pairs of x and y) and ``title``.
        tree: ``item``, ``label``, ``title``, ``small``, ``verdict``, ``band``, ``is_open``,
            ``block``, ``layer`` and ``children``, which are the same again.
        on_click: reads ``st.session_state[key].clicked``: ``{"block": number}``,
            ``{"layer": key}`` or ``{"all": whether to open}``.
    """
    _network(
        key=key,
        data={
            "model": model,
            "width": size[0],
            "height": size[1],
            "boxes": boxes,
            "lines": lines,
            "tree": tree,
            "summary": summary,
        },
        on_clicked_change=on_click,
    )
