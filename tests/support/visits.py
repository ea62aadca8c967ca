"""Pages without a browser. One takes half a second to draw: who only looks shares what is drawn.

A whole page comes from an address, as in the browser; a section comes from its arguments.
The app trusts its charts, which have tests of their own. Who doubts them lets ``trusting_no_chart``
hold each one of a page against the schema of Vega-Lite, which takes as long as drawing it again.
"""

import json
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from quantstore.app.page_list import page_named

ROOT = Path(__file__).resolve().parents[2]


def unopened(page: str, /, **address: str | list[str]) -> AppTest:
    """A page of the app at an address, to be prepared and run; the store is QUANTSTORE_DB."""
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=30)
    for key, value in address.items():
        app.query_params[key] = value
    return turned_to(app, page)


def turned_to(app: AppTest, page: str) -> AppTest:
    """The app at another of its pages, to be run."""
    return app.switch_page(str(page_named(page).file))


def opened(page: str, store: Path, /, **address: str | list[str]) -> AppTest:
    """A page to look at and not to touch: everybody who asks for the address gets the same one."""
    parts = ((key, tuple([of] if isinstance(of, str) else of)) for key, of in address.items())
    return _opened(page, store, tuple(sorted(parts)))


@cache
def _opened(page: str, store: Path, address: tuple[tuple[str, tuple[str, ...]], ...]) -> AppTest:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("QUANTSTORE_DB", str(store))
        without_what_only_tests_bring(patched)
        app = unopened(page, **{key: list(of) for key, of in address}).run()
    assert not app.exception

    def run(**_: object) -> AppTest:
        raise AssertionError("others look at this page too: open one to touch")

    # Clicks and choices come here as well.
    app.run = run  # type: ignore[method-assign]
    return app


@pytest.fixture
def open_app(monkeypatch: pytest.MonkeyPatch):
    """Run the app on a store and go to a page, with the address that a link would carry."""

    def run(path: Path, page: str, **address: str | list[str]) -> AppTest:
        monkeypatch.setenv("QUANTSTORE_DB", str(path))
        without_what_only_tests_bring(monkeypatch)
        return unopened(page, **address).run()

    return run


def without_what_only_tests_bring(patched: pytest.MonkeyPatch) -> None:
    """Pages do without these; pandas would use scipy where it finds it."""
    for name in ("scipy", "sklearn", "onnxruntime"):
        patched.setitem(sys.modules, name, None)


def trusting_no_chart(patched: pytest.MonkeyPatch) -> None:
    """Each chart of the pages drawn from now on is held against the schema of Vega-Lite."""
    for module in ("charts.common", "app.widgets.drawing", "app.sections.compare_charts"):
        patched.setattr(f"quantstore.{module}.ready", lambda chart: chart)


def texts(app: AppTest) -> str:
    """Everything the page says in Markdown, HTML, headings and captions."""
    kinds = (app.title, app.header, app.subheader, app.markdown, app.caption, app.warning, app.info)
    html = [element.proto.body for element in app.get("html")]
    return "\n".join([str(element.value) for kind in kinds for element in kind] + html)


def said(app: AppTest) -> str:
    """The same as people read it: with plain spaces, and nothing escaped."""
    return texts(app).replace("\u00a0", " ").replace("\\", "")


def button(app: AppTest, label: str) -> Any:
    """The button of this label; None where the page has none."""
    return next((one for one in app.button if one.label == label), None)


def listed(app: AppTest) -> dict[str, list[Any]]:
    """The rows of every table of the page, by the title of its first column."""
    by_title = {}
    for component in app.get("bidi_component"):
        table = json.loads(component.proto.json or "null")
        if table and table.get("columns"):
            by_title[table["columns"][0].get("title")] = table["rows"]
    return by_title


def fails(app: AppTest) -> list[str]:
    return [*(str(e.value) for e in app.exception), *(str(e.value) for e in app.error)]


def section(draw: Callable[..., None], *arguments: Any) -> AppTest:
    """What a function of the pages draws, alone."""

    # Streamlit takes its text alone: no name from outside, not even in annotations.
    def script(draw, arguments):  # type: ignore[no-untyped-def]
        draw(*arguments)

    app = AppTest.from_function(script, default_timeout=30, args=(draw, arguments)).run()
    assert not app.exception
    return app
