"""The pieces of the SQL page that Streamlit lacks: an editor that completes, a schema to click.

What is typed stays in the browser until it is run. A click in the schema reaches the editor there.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from quantstore.app.widgets import components

_ASSETS = Path(__file__).resolve().parent.parent / "assets"


def _registered(name: str) -> Callable[..., Any]:
    return components.register(
        f"quantstore_{name}",
        css=(_ASSETS / f"{name}.css").read_text(encoding="utf-8"),
        js=(_ASSETS / f"{name}.js").read_text(encoding="utf-8"),
    )


_editor = _registered("editor")
_schema = _registered("schema")


def editor(
    *,
    statement: str,
    revision: int,
    tables: Sequence[Mapping[str, Any]],
    keywords: Sequence[str],
    label: str,
    is_running: bool,
    key: str,
    on_run: Callable[[], None],
) -> None:
    """A box for a statement that completes names, and the button that runs it.

    Args:
        statement: replaces what is typed when the revision is another one than before.
        tables: ``name``, ``kind`` and ``columns`` with ``name`` and ``type``.
        keywords: of the language.
        label: beside the button: keys and limits.
        on_run: reads ``st.session_state[key].run``, the text.
    """
    _editor(
        key=key,
        data={
            "statement": statement,
            "revision": revision,
            "tables": tables,
            "words": keywords,
            "label": label,
            "is_running": is_running,
        },
        on_run_change=on_run,
    )


def schema(*, relations: Sequence[Mapping[str, Any]], revision: str, key: str) -> None:
    """Tables and views to read and to click: a name goes where the cursor of the editor is.

    Args:
        relations: ``name``, ``kind``, ``meaning``, ``is_open`` and ``columns`` with ``name``,
            ``type`` and ``comment``.
        revision: drawn anew when it is another one, with what lies open then.
    """
    _schema(key=key, data={"things": relations, "revision": revision})
