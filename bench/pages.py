"""How long a page takes to answer on a store of a thousand models.

Generates such a store (a few measured models and their runs, copied inside DuckDB with changed
figures), starts the app on it, and clicks through it in Chromium. Every figure runs from the click
to the moment at which the answer, the headline of the page, is visible, and to the end of the
page's script.
``python bench/pages.py --help`` names the options.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from models import mobile_like
from playwright.sync_api import Page, sync_playwright

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
RESULTS = HERE / "results" / "pages.json"

sys.path.insert(0, str(ROOT))
from quantstore import store  # noqa: E402
from quantstore.app.page_list import PAGES, page_named  # noqa: E402
from quantstore.pipeline import runs  # noqa: E402
from quantstore.pipeline.ingest import ingest_file  # noqa: E402
from quantstore.store.rows import DB_DECIMALS  # noqa: E402
from quantstore.store.totals import add_totals  # noqa: E402

# How far the channels of the models that are copied spread, from none to a lot.
SPREADS = (0.2, 0.4, 0.7, 1.1)
# Copied at a time, and sorted: an ingest appends a model's rows together, too.
MODELS_PER_BATCH = 50

# Each model is run beside its twin, for the page Drift: its tensors count, not its pixels.
IMAGES_SHAPE = (4, 3, 16, 16)

# What a copy changes: every figure in weight units is stretched, every SQNR is shifted.
STRETCHED = frozenset(
    [
        *("weight_min", "weight_max", "weight_range", "abs_max", "mean", "std", "q1", "median"),
        *("q3", "whisker_low", "whisker_high", "low", "high", "max_abs_error"),
    ]
)

# What each page's answer looks like: a selector, and what its text must hold.
ANSWERS = {
    "compare": ("h2", r"models? (is|are) (broken|at risk|fine|rated watch|untested) with"),
    "revisions": ("h2", r"^(Still .*|.* → .*) with "),
    "model": ("h2", r"^(Broken|At risk|Watch|Fine|Untested) with"),
    "layer": ("[data-testid=stHtml] h1", r"."),
    "drift": ("h2", r"."),
    "reality": ("h2", r"\bmodels\b"),
    "example": ("h2", r"values merge|nothing to merge with|stay apart"),
    "sql": ("h2", r"[\d,]+\srows? in "),
    "models": ("h2", r"models, [\d,]+\slayers"),
}
# Of a page that has none above.
ANY_ANSWER = ("h1, h2", r".")
ROW = (".name button", r".")

# Clock and watcher live in the page: nothing of Playwright's own pace is measured.
WATCH = """
([selector, pattern]) => {
    const wanted = new RegExp(pattern);
    const seen = {};
    const deep = (root) => [...root.querySelectorAll(selector)].concat(
        ...[...root.querySelectorAll("*")].filter((one) => one.shadowRoot)
            .map((one) => deep(one.shadowRoot)));
    const found = () => deep(document.querySelector("[data-testid=stMain]")).find(
        (one) => wanted.test(one.textContent) && one.getClientRects().length);
    const before = found()?.textContent;
    window.benchSeen = new Promise((resolve, reject) => {
        let started = null;
        let ran = false;
        setTimeout(() => reject(`no answer that reads ${pattern} within 20 s`), 20000);
        addEventListener("click", () => { started = performance.now(); },
                         {capture: true, once: true});
        const look = () => {
            if (started !== null) {
                const now = performance.now() - started;
                const app = document.querySelector("[data-testid=stApp]");
                const running = app.dataset.testScriptState !== "notRunning";
                ran ||= running;
                const answer = found();
                if (answer && answer.textContent !== before && ran) seen.answer ??= now;
                if (ran && !running && seen.answer !== undefined) {
                    seen.finished = now;
                    resolve(seen);
                    return;
                }
            }
            requestAnimationFrame(look);
        };
        look();
    });
}
"""


def main() -> None:
    """Generate, measure, print the table, write it as JSON."""
    options = _options()
    # Whoever stops it leaves neither the folder nor the app behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory(prefix="quantstore-bench-") as folder:
        path = options.store
        if path is None or not path.exists():
            path = path or Path(folder) / "pages.duckdb"
            generate(path, options.models, Path(folder))
        held = contents(path)
        print(", ".join(f"{number:,} {content_name}" for content_name, number in held.items()))
        with app_on(path) as url:
            times = measure(url, options.rounds, options.screenshots)
    print(f"{'':44} {'answer visible, ms':>32} {'script finished, ms':>32}")
    print(f"{'':44}" + f" {'first':>8}{'min':>8}{'median':>8}{'max':>8}" * 2)
    for step, rounds in times.items():
        line = f"{step:44}"
        for moment in ("answer", "finished"):
            first, *later = (round_times[moment] for round_times in rounds)
            figures = (first, min(later), statistics.median(later), max(later))
            line += " " + "".join(f"{milliseconds:8.0f}" for milliseconds in figures)
        print(line)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(
        json.dumps({"cores": os.cpu_count(), "store": held, "milliseconds": times}, indent=1)
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=int, default=1000, help="models in the generated store")
    parser.add_argument("--rounds", type=int, default=7, help="how often each click is measured")
    parser.add_argument(
        "--store", type=Path, help="a store to measure; generated and kept where there is none"
    )
    parser.add_argument("--screenshots", type=Path, help="a folder for a picture of every page")
    return parser.parse_args()


def generate(path: Path, model_count: int, folder: Path) -> None:
    """Write a store of copies of a few measured models."""
    started = time.perf_counter()
    bases = measure_bases(path, folder)
    for first in range(0, model_count, MODELS_PER_BATCH):
        numbers = range(first, min(first + MODELS_PER_BATCH, model_count))
        with store.writing(path) as con:
            copy_models(con, bases, numbers, model_count)
        done = numbers[-1] + 1
        print(f"\rgenerated {done:,} of {model_count:,} models", end="", file=sys.stderr)
    with store.writing(path) as con:
        for model_id in bases:
            store.remove_model(con, model_id)
    # What the models that were copied took is room for nobody.
    store.compact(path)
    elapsed = time.perf_counter() - started
    size = path.stat().st_size / 1e9
    print(f"\r{model_count:,} models in {elapsed:.0f} s, {size:.1f} GB", file=sys.stderr)


def measure_bases(path: Path, folder: Path) -> list[int]:
    """Write the models that are copied, measured and run, into a store; returns their keys."""
    images = folder / "images.npy"
    np.save(images, np.random.default_rng(0).standard_normal(IMAGES_SHAPE, np.float32))
    for seed, spread in enumerate(SPREADS):
        model = folder / f"base-{seed}.onnx"
        mobile_like(model, seed=seed, spread=spread)
        ingest_file(model, path)
        runs.run(model, path, str(images))
        model.unlink()
    with store.reading(path) as con:
        return [key for (key,) in con.rows("select model_id from models order by model_id")]


def copy_models(con: store.Connection, bases: list[int], numbers: range, model_count: int) -> None:
    """Append copies of the models ``bases``, in turns, with ids and names of their own."""
    con.rows("select setseed(?)", [numbers.start / model_count])
    con.rows(
        """
        create temp table new_models as
        select
            (hash(number) // 2)::bigint as new_model_id,
            $bases[1 + number % len($bases)] as model_id,
            printf('model-%04d', number + 1) as new_model,
            exp(0.5 * (random() - 0.5)) as stretch,
            20 * (random() - 0.5) as shift_db
        from range($first, $stop) as numbers (number)
        """,
        {"bases": bases, "first": numbers.start, "stop": numbers.stop},
    )
    con.rows(
        """
        create temp table new_layers as
        select
            (hash(new_model_id, layer_id) // 2)::bigint as new_layer_id,
            layer_id, new_model_id, model_id,
            stretch * exp(0.2 * (random() - 0.5)) as stretch,
            shift_db + 4 * (random() - 0.5) as shift_db
        from (
            select new_models.*, layer_id
            from new_models
            join layers using (model_id)
            order by new_model_id, depth
        )
        """
    )
    con.rows(
        """
        insert into models by name
        select models.* replace (
            new_model_id as model_id, new_model as model, sha256(new_model) as sha256,
            new_model || '.onnx' as source
        )
        from new_models
        join models using (model_id)
        """
    )
    for (table,) in con.rows(
        """
        select table_name
        from duckdb_columns()
        where column_name = 'layer_id' and not internal and database_name = current_database()
            and table_name in (select table_name from duckdb_tables() where not temporary)
        """
    ):
        # Figures only: what a curve holds as a list stays as it is.
        columns = [
            row[0]
            for row in con.rows(
                "select name from pragma_table_info(?) where type not like '%[]'", [table]
            )
        ]
        changed = ["new_layer_id as layer_id"]
        changed += ["new_model_id as model_id"] if "model_id" in columns else []
        if "partner_layer_id" in columns:
            # As new_layers makes them.
            partner = "(hash(new_model_id, partner_layer_id) // 2)::bigint"
            changed.append(f"{partner} as partner_layer_id")
        changed += [f"{name} * stretch as {name}" for name in columns if name in STRETCHED]
        changed += [
            f"round(greatest(0, {name} + shift_db), {DB_DECIMALS}) as {name}"
            for name in columns
            if name.endswith("_db")
        ]
        con.rows(
            f"""
            insert into {table} by name
            select {table}.* replace ({", ".join(changed)})
            from new_layers
            join {table} using (layer_id)
            order by new_layer_id
            """
        )
    for table, condition in (("graph_points", "layer_id is null"), ("graph_edges", "true")):
        con.rows(
            f"""
            insert into {table} by name
            select {table}.* replace (new_model_id as model_id)
            from new_models
            join {table} using (model_id)
            where {condition}
            """
        )
    add_totals(con._connection, [key for (key,) in con.rows("select new_model_id from new_models")])
    _copy_runs(con)
    con.rows("drop table new_models")
    con.rows("drop table new_layers")


def _copy_runs(con: store.Connection) -> None:
    """Append the runs of the copied models, each with the shift of its model."""
    con.rows(
        """
        create temp table new_runs as
        select
            (hash(new_model_id, simulation_id) // 2)::bigint as new_simulation_id,
            simulation_id, new_model_id, shift_db
        from (
            select new_models.*, simulation_id
            from new_models
            join simulations using (model_id)
            order by new_model_id, simulation_id
        )
        """
    )
    con.rows(
        """
        insert into simulations by name
        select simulations.* replace (
            new_simulation_id as simulation_id, new_model_id as model_id,
            greatest(0, output_sqnr_db + shift_db) as output_sqnr_db,
            greatest(0, deciding_sqnr_db + shift_db) as deciding_sqnr_db
        )
        from new_runs
        join simulations using (simulation_id)
        """
    )
    con.rows(
        """
        insert into activation_errors by name
        select activation_errors.* replace (
            new_simulation_id as simulation_id, greatest(0, sqnr_db + shift_db) as sqnr_db
        )
        from new_runs
        join activation_errors using (simulation_id)
        order by new_simulation_id
        """
    )
    con.rows("drop table new_runs")


def contents(path: Path) -> dict[str, int]:
    """How many rows the tables that grow hold."""
    tables = (
        *("models", "layers", "channels", "errors", "channel_errors", "histograms"),
        *("simulations", "activation_errors"),
    )
    with store.reading(path) as con:
        return {table: con.value(f"select count(*) from {table}") for table in tables}


@contextmanager
def app_on(path: Path) -> Iterator[str]:
    """The app on a store; yields its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "quantstore", "app", "--no-browser", "--port", str(port)]
    with subprocess.Popen(
        [*command, "--db", str(path.absolute())],
        cwd=path.absolute().parent,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
    ) as server:
        url = f"http://127.0.0.1:{port}"
        try:
            deadline = time.monotonic() + 30
            while not _is_healthy(url):
                if server.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit("the app does not start")
                time.sleep(0.1)
            yield url
        finally:
            server.kill()


def _is_healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/_stcore/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def chromium_path() -> str:
    """Where Chromium is; ends the program where there is none."""
    names = ("chromium", "chromium-headless-shell", "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        raise SystemExit("there is no Chromium on the PATH")
    return path


Times = dict[str, list[dict[str, float]]]


def measure(url: str, rounds: int, screenshots: Path | None) -> Times:
    """Milliseconds of every click: of the first round, and of ``rounds`` more.

    The first round fills caches and imports what only some page needs.
    """
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium_path())
        page = browser.new_page(viewport={"width": 1440, "height": 1000})
        times: Times = {}
        for turn in range(rounds + 1):
            page.goto(url)
            page.wait_for_selector("[data-testid=stMain] h2", timeout=60_000)
            _settle(page)
            folder = screenshots if turn == rounds else None
            for step, seen in _walk(page, folder):
                times.setdefault(step, []).append(seen)
        browser.close()
    return times


# From page to page as a person goes; the others are opened from the navigation, one by one.
WALKED = ("example", "sql", "compare", "model", "layer")


def from_navigation(name: str) -> tuple[str, str, tuple[str, str]]:
    """A click on a page's link: what the step is called, its target, and the page's answer."""
    title = page_named(name).title
    return f"{title}, from the navigation", f"nav:{title}", ANSWERS.get(name, ANY_ANSWER)


def _walk(page: Page, screenshots: Path | None) -> Iterator[tuple[str, dict[str, float]]]:
    """One round of clicks, each from where the one before led."""
    marks = "path[aria-roledescription='rect mark']"
    charts = "[data-testid=stVegaLiteChart]"
    model, layer = ANSWERS["model"], ANSWERS["layer"]
    steps = (
        *(from_navigation(name) for name in ("example", "sql", "compare")),
        ("Compare, the next page of models", "[data-testid=stPagination] >> text=/^2$/", ROW),
        ("Compare, another target", "th button >> nth=0", ("h2", r"with per-tensor int8")),
        ("Compare, back to the first target", "th button >> nth=1", ("h2", r"with per-channel")),
        ("Model, from a row of the matrix", ".name button >> nth=3", model),
        ("Layer, from a bar of the model's map", f"{charts} >> nth=0 >> {marks} >> nth=5", layer),
        ("Layer, the next better one", "button:has-text('Better')", layer),
        *(from_navigation(name) for name in ("model", "layer")),
        *(from_navigation(listed.name) for listed in PAGES if listed.name not in WALKED),
        ("Compare, from the last page", *from_navigation("compare")[1:]),
        ("Layer, from a brick", f"{charts} >> nth=0 >> {marks} >> nth=20", layer),
        ("Compare, again", *from_navigation("compare")[1:]),
        ("Layer, from a bar of Compare", f"{charts} >> nth=1 >> {marks} >> nth=40", layer),
    )
    for step, target, answer in steps:
        if target.startswith("nav:"):
            locator = page.get_by_role("link", name=target[4:], exact=True).first
        else:
            locator = page.locator(target).first
        locator.scroll_into_view_if_needed()
        _settle(page)
        page.evaluate(WATCH, answer)
        locator.click()
        yield step, page.evaluate("window.benchSeen")
        _settle(page)
        if screenshots is not None:
            screenshots.mkdir(parents=True, exist_ok=True)
            name = "".join(c if c.isalnum() else "-" for c in step.lower())
            page.screenshot(path=screenshots / f"{name}.png")


def _settle(page: Page) -> None:
    page.wait_for_timeout(300)
    page.wait_for_selector("[data-testid=stApp][data-test-script-state=notRunning]", timeout=60_000)


if __name__ == "__main__":
    main()
