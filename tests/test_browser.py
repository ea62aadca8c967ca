"""The app as a person meets it: a real server, a real browser, no request to the outside."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import onnx
import pytest
from graphs import conv_model

from quantstore.palette import DARK

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "quantstore" / "demo_models"
SCREENSHOTS = ROOT / "screenshots"
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
LOCAL = (
    "http://127.0.0.1",
    "http://localhost",
    "ws://127.0.0.1",
    "ws://localhost",
    "data:",
    "blob:",
)

if os.environ.get("QUANTSTORE_REQUIRE_BROWSER"):
    from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

    assert CHROMIUM, "QUANTSTORE_REQUIRE_BROWSER is set, but there is no Chromium"
else:
    playwright = pytest.importorskip("playwright.sync_api", reason="browser tests need playwright")
    Browser, Locator, Page = playwright.Browser, playwright.Locator, playwright.Page
    expect, sync_playwright = playwright.expect, playwright.sync_playwright
    pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="browser tests need Chromium")


@contextmanager
def serving(store: Path) -> Iterator[str]:
    """The address of an app on a store."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "quantstore", "app", "--no-browser", "--port", str(port)]
    with subprocess.Popen(
        [*command, "--db", str(store)],
        cwd=store.parent,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as server:
        url = f"http://127.0.0.1:{port}"
        try:
            _wait_until_healthy(url, server)
            yield url
        finally:
            server.kill()


@pytest.fixture
def empty_app(tmp_path: Path) -> Iterator[str]:
    """An app of one's own, on a store that does not exist yet."""
    with serving(tmp_path / "empty.duckdb") as url:
        yield url


@pytest.fixture(scope="module")
def full_app(demo_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An app with the example models; tests share it, and may add to it."""
    store = tmp_path_factory.mktemp("browser") / "full.duckdb"
    shutil.copy(demo_store, store)
    with serving(store) as url:
        yield url


def _wait_until_healthy(url: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        assert server.poll() is None, server.communicate()[0].decode()
        try:
            with urllib.request.urlopen(f"{url}/_stcore/health", timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    pytest.fail("the app did not start within 30 seconds")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM)
        yield browser
        browser.close()


class Visitor:
    """One tab, and everything that went wrong in it."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.outside: list[str] = []
        self.errors: list[str] = []
        page.on("request", self._note_request)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", self._note_console)

    def _note_request(self, request) -> None:
        if not request.url.startswith(LOCAL):
            self.outside.append(request.url)

    def _note_console(self, message) -> None:
        # Streamlit probes its endpoints below the page's path before it finds the root.
        is_probe = "404" in message.text
        if message.type == "error" and not is_probe:
            self.errors.append(message.text)

    def open(self, path: str) -> None:
        self.page.goto(self.url + path)
        self.settle()

    def settle(self) -> None:
        """Wait until the script has run and what it draws has arrived."""
        self.page.wait_for_timeout(150)
        self.page.wait_for_selector(
            "[data-testid=stApp][data-test-script-state=notRunning]", timeout=60_000
        )
        expect(self.page.locator("[data-testid=stException]")).to_have_count(0)

    def shows(self, text: str) -> None:
        expect(self.page.get_by_text(text).first).to_be_visible(timeout=60_000)

    def marks(self, chart: int = 0) -> Locator:
        """The clickable marks of a chart."""
        charts = self.page.locator("[data-testid=stVegaLiteChart]")
        return charts.nth(chart).locator("path[aria-roledescription='rect mark']")

    def query(self) -> dict[str, list[str]]:
        return parse_qs(urlparse(self.page.url).query)

    def back_to(self, text: str) -> None:
        """Press Back until the page shows the text; a change of page may be two steps (1.67)."""
        for _ in range(3):
            self.page.go_back()
            self.settle()
            if self.page.get_by_text(text).count():
                return
        pytest.fail(f"Back does not lead to {text!r}")

    def screenshot(self, name: str) -> None:
        """Kept for whoever looks at a failing run; the folder is not part of the project."""
        SCREENSHOTS.mkdir(exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png")

    def leaves_no_trace(self) -> None:
        assert self.outside == []
        assert self.errors == []


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Visitor]]:
    """Opens a tab of its own on an app."""
    contexts = []

    def open_tab(url: str, *, width: int = 1440, theme: str = "light") -> Visitor:
        contexts.append(
            browser.new_context(viewport={"width": width, "height": 1000}, color_scheme=theme)
        )
        return Visitor(contexts[-1].new_page(), url)

    yield open_tab
    for context in contexts:
        context.close()


def test_from_an_empty_store_to_an_answer(visit, empty_app: str) -> None:
    """Upload, compare, open a layer, ask in SQL: the whole job, in the order a newcomer does it."""
    visitor = visit(empty_app)
    page = visitor.page
    visitor.open("/")
    visitor.shows("Will your model survive int8?")
    visitor.screenshot("empty")

    page.locator("input[type=file]").set_input_files(
        [DEMO / "digits-rescaled.onnx", DEMO / "digits-separable.onnx"]
    )
    visitor.shows("1 of 2 models breaks under int8 per tensor, symmetric; 1 still does per channel")
    visitor.settle()
    expect(page.get_by_role("button", name="digits-rescaled", exact=True)).to_be_visible()
    visitor.shows("done: 10 layers in")
    expect(page.locator("[data-testid=stVegaLiteChart] svg.marks")).to_have_count(3)
    visitor.screenshot("compare")

    page.get_by_role("button", name="digits-rescaled", exact=True).click()
    visitor.shows(
        "In the noise probe it breaks under int8 per tensor, symmetric: 1 dB at the outputs"
    )
    visitor.settle()
    assert visitor.query()["model"] == ["digits-rescaled"]
    visitor.screenshot("model")

    visitor.marks().first.click()
    visitor.shows("What would rescue it")
    visitor.settle()
    assert visitor.query()["model"] == ["digits-rescaled"]
    assert "layer" in visitor.query()
    layer = page.locator("h1").first.inner_text()
    visitor.screenshot("layer")

    # The address alone brings a colleague to the same layer.
    address = page.url
    page.goto(address)
    visitor.shows("What would rescue it")
    visitor.settle()
    assert page.locator("h1").first.inner_text() == layer

    page.get_by_role("link", name="SQL").click()
    visitor.settle()
    editor = page.locator("textarea").first
    editor.fill("select count(*) as layers_here from model_layers")
    editor.press("Control+Enter")
    visitor.shows("1 row")
    visitor.settle()
    visitor.screenshot("sql")
    visitor.leaves_no_trace()


def test_a_wrong_file_gets_one_sentence_and_the_page_lives_on(
    visit, empty_app: str, tmp_path: Path
) -> None:
    visitor = visit(empty_app)
    wrong = tmp_path / "letter<b>.onnx"
    wrong.write_text("Dear sir or madam")
    visitor.open("/")
    visitor.page.locator("input[type=file]").set_input_files(wrong)
    visitor.shows("failed: not an ONNX file")
    # The name is shown as itself, not as markup.
    visitor.shows("letter<b>.onnx")
    visitor.page.get_by_role("button", name="Add the example models").first.click()
    visitor.shows("4 models")
    visitor.settle()
    visitor.leaves_no_trace()


def test_a_path_on_this_computer_is_ingested(visit, full_app: str, tmp_path: Path) -> None:
    path = tmp_path / "new.onnx"
    onnx.save(conv_model(), path)
    visitor = visit(full_app)
    visitor.open("/")
    box = visitor.page.get_by_placeholder("or a path on this computer")
    box.fill(str(path))
    box.press("Enter")
    visitor.shows("done: 1 layer in")
    visitor.settle()
    visitor.leaves_no_trace()


# Both themes and both widths; all four pairings cost as much again and never differed.
@pytest.mark.parametrize(("theme", "width"), [("light", 1440), ("dark", 800)])
def test_every_page_draws_in_both_themes_and_widths(
    visit, full_app: str, width: int, theme: str
) -> None:
    visitor = visit(full_app, width=width, theme=theme)
    visitor.open("/")
    for name in (
        *("Compare", "Revisions", "Model", "Layer", "Drift", "Weights against reality"),
        *("Worked example", "SQL"),
    ):
        if name != "Compare":
            visitor.page.get_by_role("link", name=name, exact=True).first.click()
            visitor.settle()
        expect(visitor.page.locator("h1").first).to_be_visible()
        background = visitor.page.evaluate(
            "getComputedStyle(document.querySelector('[data-testid=stApp]')).backgroundColor"
        )
        assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(18, 21, 26)"}[theme]
        sideways = visitor.page.evaluate(
            "document.querySelector('[data-testid=stMain]').scrollWidth"
            " - document.querySelector('[data-testid=stMain]').clientWidth"
        )
        assert sideways <= 0
        visitor.screenshot(f"{name}-{theme}-{width}".replace(" ", "-").lower())
    visitor.leaves_no_trace()


def test_the_scheme_follows_through_the_pages_and_back_returns(visit, full_app: str) -> None:
    visitor = visit(full_app)
    visitor.open("/")
    page = visitor.page
    page.get_by_role("button", name="per channel symmetric", exact=True).click()
    visitor.shows("under int8 per channel, symmetric")
    visitor.settle()
    assert visitor.query()["scheme"] == ["int8_channel_symmetric"]
    page.get_by_role("button", name="digits-rescaled", exact=True).click()
    visitor.shows("No blocker found in the weights under int8 per channel, symmetric")
    visitor.settle()
    visitor.marks().nth(3).click()
    visitor.shows("What would rescue it")
    visitor.settle()
    visitor.back_to("Worst layers first")
    assert page.locator("h1").first.inner_text() == "digits-rescaled"
    visitor.back_to("How the layers differ")
    assert visitor.query()["scheme"] == ["int8_channel_symmetric"]
    visitor.leaves_no_trace()


def test_charts_follow_the_theme_menu_and_the_page_comes_to_rest(visit, full_app: str) -> None:
    visitor = visit(full_app)
    page = visitor.page
    visitor.open("/")
    page.locator("[data-testid=stMainMenu] button, [data-testid=stMainMenuButton]").first.click()
    page.locator('text="Dark"').last.click(force=True)
    page.keyboard.press("Escape")
    expect(
        page.locator(f"[data-testid=stVegaLiteChart] [fill='{DARK.text}']").first
    ).to_be_attached(timeout=30_000)
    # A page that reruns for ever can neither be used nor left.
    page.wait_for_timeout(1500)
    assert page.locator("[data-testid=stApp]").get_attribute("data-test-script-state") == (
        "notRunning"
    )
    page.get_by_role("link", name="Model").click()
    visitor.settle()
    visitor.shows("Worst layers first")
    visitor.leaves_no_trace()
