"""A real server and a real browser for the tests that need them; skipped where there is none.

Opening a page costs more than looking at it: tests share one server, one browser and one tab, whose
JavaScript is then compiled once.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlparse

import pytest

from quantstore import store
from quantstore.pipeline.ingest import ingest_file
from quantstore.pipeline.outcome import IngestChoices
from tests.support.graphs import gaussian, make_model, node, save

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

try:
    from playwright.sync_api import expect
except ImportError:
    # Without it no browser is opened, and nothing is expected of one.
    expect = None

ROOT = Path(__file__).resolve().parents[2]
SCREENSHOTS = ROOT / "screenshots"
# The shell is the same browser without its window: a fifth less work for the processor.
BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, BROWSERS)), None)
IS_REQUIRED = bool(os.environ.get("QUANTSTORE_REQUIRE_BROWSER"))
IS_DRAWN = bool(os.environ.get("QUANTSTORE_SCREENSHOTS"))
LOCAL = (
    "http://127.0.0.1",
    "http://localhost",
    "ws://127.0.0.1",
    "ws://localhost",
    "data:",
    "blob:",
)
WCAG = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa")

# Names that anybody could put into a file, and that must show as themselves.
HOSTILE = (
    "backbone.stage1/" * 80,
    "检测/卷积层",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "**b** _i_ `c` [l](http://x.y)",
    "$x$ and $$y$$",
    "a|b|c",
    "\"quoted\" 'it' \\n",
    "two\nlines\tand tab",
    "\u202eright to left אב",
    ":material/star: :red[x]",
    "x" * 300,
)


@contextmanager
def serving(path: Path) -> Iterator[str]:
    """The address of an app on a store."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "quantstore", "app", "--no-browser", "--port", str(port)]
    with subprocess.Popen(
        [*command, "--db", str(path)],
        cwd=path.parent,
        # Nobody edits the sources meanwhile.
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "STREAMLIT_SERVER_FILE_WATCHER_TYPE": "none",
            # Nobody's `quantstore open` shall find it.
            "XDG_STATE_HOME": str(path.parent),
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
    ) as server:
        url = f"http://127.0.0.1:{port}"
        try:
            _wait_until_healthy(url, server)
            yield url
        finally:
            server.kill()


def _wait_until_healthy(url: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        assert server.poll() is None, "the app ended by itself; start it by hand to see why"
        try:
            with urllib.request.urlopen(f"{url}/_stcore/health", timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    pytest.fail("the app did not start within 30 seconds")


@cache
def axe_script() -> str:
    """axe-core, as a package of the test extra carries it."""
    if not IS_REQUIRED:
        pytest.importorskip("axe_playwright_python", reason="needs axe-playwright-python")
    return resources.files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8")


class Visitor:
    """One tab, and everything that went wrong in it."""

    def __init__(self, page: "Page", url: str) -> None:
        self.page = page
        self.url = url
        self.is_spotless = False
        self.outside: list[str] = []
        self.errors: list[str] = []
        page.on("request", self._note_request)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", self._note_console)
        page.on("dialog", self._note_dialog)

    def _note_request(self, request: Any) -> None:
        if not request.url.startswith(LOCAL):
            self.outside.append(request.url)

    def _note_console(self, message: Any) -> None:
        # Streamlit probes its endpoints below the page's path before it finds the root.
        is_probe = "404" in message.text
        if message.type == "error" and not is_probe:
            self.errors.append(message.text)

    def _note_dialog(self, dialog: Any) -> None:
        self.errors.append(f"a script said: {dialog.message}")
        dialog.dismiss()

    def open(self, path: str) -> None:
        """Load the app at this address; a session begins."""
        self.page.goto(self.url + path)
        self._rest_after_run(0)

    def turn_to(self, path: str) -> None:
        """Come to this address: as Back and Forward do, so that the session goes on.

        The first time in a test, the app is loaded.
        """
        if not self.page.url.startswith(self.url):
            self.open(path)
            return
        runs = self._runs()
        self.page.evaluate(
            """(path) => {
                history.pushState({}, "", path);
                dispatchEvent(new PopStateEvent("popstate", {state: {}}));
            }""",
            path,
        )
        self._rest_after_run(runs)

    def go(self, name: str) -> None:
        """Follow a link of the navigation."""
        runs = self._runs()
        self.page.get_by_role("link", name=name, exact=True).first.click()
        self._rest_after_run(runs)

    def settle(self) -> None:
        """Wait until the script has run and what it draws has arrived."""
        self.page.wait_for_timeout(150)
        self._rest()

    def _runs(self) -> int:
        """How often the script has run since the app was loaded, as Streamlit itself notes it."""
        return self.page.evaluate("performance.getEntriesByName('script-run-cycle').length")

    def _rest_after_run(self, runs: int) -> None:
        """Wait for a run beyond the first so many, however late it begins."""
        self.page.wait_for_function(
            "runs => performance.getEntriesByName('script-run-cycle').length > runs",
            arg=runs,
            polling=50,
            timeout=60_000,
        )
        self._rest()

    def _rest(self) -> None:
        self.page.wait_for_selector(
            "[data-testid=stApp][data-test-script-state=notRunning]", timeout=60_000
        )
        assert self.page.locator("[data-testid=stException]").count() == 0

    def shows(self, text: str) -> None:
        self.page.get_by_text(text).first.wait_for(state="visible", timeout=60_000)

    def marks(self, chart: int = 0) -> "Locator":
        """The clickable marks of a chart."""
        charts = self.page.locator("[data-testid=stVegaLiteChart]")
        return charts.nth(chart).locator("path[aria-roledescription='rect mark']")

    def query(self) -> dict[str, list[str]]:
        return parse_qs(urlparse(self.page.url).query)

    def reaches(self, key: str, *values: str) -> None:
        """Wait until the address says so; a page writes it when it is done."""
        self.page.wait_for_url(
            lambda url: parse_qs(urlparse(url).query).get(key, []) == list(values), timeout=30_000
        )

    def arrives(self, page: str, text: str) -> None:
        """Wait until the address names this page, and until it shows these words and rests.

        Words alone may still be those of the page that was left.
        """
        self.page.wait_for_url(lambda url: urlparse(url).path == f"/{page}", timeout=60_000)
        self.shows(text)
        self.settle()

    def focus(self) -> str:
        """What the keyboard is at, inside components too: its label, else its words."""
        return self.page.evaluate(
            """() => {
                let at = document.activeElement;
                while (at.shadowRoot?.activeElement) at = at.shadowRoot.activeElement;
                return at.getAttribute("aria-label") || at.textContent || at.tagName;
            }"""
        )

    def tab_to(self, start: str, most: int = 40) -> None:
        """Press Tab until the keyboard is at what begins with these words."""
        seen = []
        for _ in range(most):
            self.page.keyboard.press("Tab")
            seen.append(self.focus())
            if seen[-1].startswith(start):
                return
        pytest.fail(f"Tab does not reach {start!r}, only {seen}")

    def has_visible_focus(self) -> bool:
        """Whether an outline, a border or a shadow shows where the keyboard is."""
        return self.page.evaluate(
            """() => {
                let at = document.activeElement;
                while (at.shadowRoot?.activeElement) at = at.shadowRoot.activeElement;
                const style = getComputedStyle(at);
                return style.outlineStyle !== "none" || style.boxShadow !== "none";
            }"""
        )

    def sideways(self) -> int:
        """Pixels of the page, or of the sidebar, that lie beyond its right edge."""
        return self.page.evaluate(
            """() => Math.max(...["stMain", "stSidebarContent"].map((name) => {
                const part = document.querySelector(`[data-testid=${name}]`);
                return part.scrollWidth - part.clientWidth;
            }))"""
        )

    def violations(self) -> list[tuple[str, list[str]]]:
        """What axe finds wrong by WCAG 2.2 A and AA: rules, and what breaks each."""
        size = self.page.viewport_size
        # axe judges no contrast that it would have to scroll to.
        height = self.page.evaluate("document.querySelector('[data-testid=stMain]').scrollHeight")
        self.page.set_viewport_size({"width": size["width"], "height": max(height, 1000)})
        if not self.page.evaluate("'axe' in window"):
            self.page.evaluate(axe_script())
        broken_rules = self.page.evaluate(
            """async (tags) => {
                // Selectors cost a quarter of the time, and nobody reads them here.
                const options = {runOnly: {type: "tag", values: tags},
                                 resultTypes: ["violations"], selectors: false};
                const answer = await axe.run(document, options);
                return answer.violations.map((one) =>
                    [one.id, one.nodes.map((node) => node.html.slice(0, 200))]);
            }""",
            list(WCAG),
        )
        self.page.set_viewport_size(size)
        return [(rule, nodes) for rule, nodes in broken_rules]

    def screenshot(self, name: str) -> None:
        """For whoever wants to look at a run; the folder is not part of the project."""
        if not IS_DRAWN:
            return
        SCREENSHOTS.mkdir(exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png")

    def leaves_no_trace(self) -> None:
        """Nothing went outside, nothing went wrong: the next test may have the tab."""
        assert self.outside == []
        assert self.errors == []
        self.is_spotless = True


@pytest.fixture(scope="session")
def browser() -> "Iterator[Browser]":
    if not IS_REQUIRED:
        pytest.importorskip("playwright.sync_api", reason="browser tests need playwright")
        if CHROMIUM is None:
            pytest.skip("browser tests need Chromium")
    from playwright.sync_api import sync_playwright

    assert CHROMIUM, "QUANTSTORE_REQUIRE_BROWSER is set, but there is no Chromium"
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def tabs(browser: "Browser") -> Iterator[list[Visitor]]:
    """The tab that the tests share, once there is one."""
    visitors: list[Visitor] = []
    yield visitors
    for visitor in visitors:
        visitor.page.context.close()


@pytest.fixture
def visit(browser: "Browser", tabs: list[Visitor]) -> Callable[..., Visitor]:
    """The shared tab, empty, set to this width and theme; a new one after a test that failed.

    What was loaded stays in its cache, but every test begins a session of its own.
    """

    def take_tab(url: str, *, width: int = 1440, theme: Any = "light") -> Visitor:
        if tabs and not tabs[0].is_spotless:
            tabs.pop().page.context.close()
        if not tabs:
            tabs.append(Visitor(browser.new_context().new_page(), url))
        else:
            # What the browser remembers of the app is the choice of a theme and the like.
            tabs[0].page.evaluate("localStorage.clear()")
            tabs[0].page.goto("about:blank")
        tabs[0].is_spotless = False
        tabs[0].page.emulate_media(color_scheme=theme, reduced_motion="reduce")
        tabs[0].page.set_viewport_size({"width": width, "height": 1000})
        return tabs[0]

    return take_tab


class Served:
    """An app, and the store below it, which can be exchanged as a person would copy a file."""

    def __init__(self, url: str, path: Path) -> None:
        self.url = url
        self.path = path

    def showing(self, store_path: Path | None) -> str:
        """The address of the app, on a copy of this store that the test may change."""
        for file in self.path.parent.glob(f"{self.path.name}*"):
            if file.is_dir():
                shutil.rmtree(file)
            else:
                file.unlink()
        if store_path is not None:
            shutil.copy(store_path, self.path)
        return self.url


@pytest.fixture(scope="session")
def served(browser: "Browser", tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    path = tmp_path_factory.mktemp("browser") / "quantstore.duckdb"
    with serving(path) as url:
        yield Served(url, path)


@pytest.fixture
def empty_app(served: Served) -> str:
    """An app on a store that does not exist yet."""
    return served.showing(None)


@pytest.fixture
def full_app(served: Served, demo_store: Path) -> str:
    """An app with the example models, of one's own to add to."""
    return served.showing(demo_store)


@pytest.fixture(scope="session")
def hostile_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models whose names, layers, tags and notes would all like to be markup.

    Every name is one of a model; two models have a layer of every name, of which some break, the
    others have one.
    """
    folder = tmp_path_factory.mktemp("hostile")
    path = folder / "hostile.duckdb"
    for number, name in enumerate(HOSTILE):
        layers = HOSTILE if name in (HOSTILE[0], HOSTILE[2]) else (name,)
        nodes = [
            node("Conv", [f"t{i}" if i else "x", f"w{i}"], [f"t{i + 1}"], layer)
            for i, layer in enumerate(layers)
        ]
        weights = {
            f"w{i}": gaussian(4, 4, 1, 1, seed=len(HOSTILE) * number + i)
            for i in range(len(layers))
        }
        if len(layers) > 1:
            for i in range(0, len(layers), 3):
                weights[f"w{i}"][0] *= 10.0**i
        file = save(make_model(nodes, weights, outputs=(f"t{len(layers)}",)), folder / "h.onnx")
        ingest_file(file, path, IngestChoices(name=name, probe=False))
    with store.writing(path) as con:
        store.set_tags(con, HOSTILE[0], ["<b>tag</b>", "$x$"])
        store.set_note(con, HOSTILE[0], "**note** <script>alert(2)</script> $x$")
    return path


@pytest.fixture
def hostile_app(served: Served, hostile_store: Path) -> str:
    return served.showing(hostile_store)
