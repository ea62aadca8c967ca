"""The report: one file that says what Compare says, opens anywhere and asks for nothing."""

import base64
import hashlib
import json
import math
import re
import shutil
from functools import cache
from pathlib import Path

import altair
import numpy as np
import pytest
from onnx import helper

import quantstore
from quantstore import cli, queries, store
from quantstore.charts import compare
from quantstore.charts.palette import DARK, LIGHT, PROPERTIES, by_name
from quantstore.errors import LabelError
from quantstore.pipeline.ingest import ingest_file
from quantstore.pipeline.outcome import IngestChoices
from quantstore.records import AnswerRecord, FindingRecord
from quantstore.report import document, figures
from quantstore.schemes import DEFAULT_SCHEME, INT8_SCHEMES, TARGETS
from quantstore.wording import (
    audit_tables,
    findings,
    headlines,
    layers,
    method,
    notes,
    runs,
    stories,
    units,
    verdicts,
)
from tests.support.browsing import HOSTILE, WCAG, axe_script
from tests.support.facts import finding
from tests.support.graphs import gaussian, make_model
from tests.support.profiles import profiles
from tests.support.reports import Reader, write
from tests.support.runs import a_run, add, an_audit, an_audited_tensor, audited, probed

PAIR = ["digits-plain", "digits-rescaled"]
NASTY = {
    "script": "</script><script>document.title='owned'</script>",
    "quotes": "a\"b'c` onload=\"document.title='owned'\" **bold** $x$ |y|",
    "newlines": "first\nsecond\r\nthird\u2028fourth",
    "chinese": "检测模型/主干网络.卷积",
    "long": "kilometre/" * 1000,
    "url": '"https://example.com/x.js"; var(--text) url(https://example.com) datum.secret',
}


@pytest.fixture(scope="module")
def page(demo_store):
    return write(demo_store, PAIR)


@pytest.fixture(scope="module")
def nasty_store(tmp_path_factory, empty_store):
    folder = tmp_path_factory.mktemp("nasty")
    path = Path(shutil.copy(empty_store, folder / "nasty.duckdb"))
    for number, (key, name) in enumerate(NASTY.items()):
        nodes = [
            helper.make_node("Conv", ["x", "w"], ["h"], name=name, kernel_shape=[3, 3]),
            helper.make_node("Conv", ["h", "v"], ["y"], name=f"{name}/2", kernel_shape=[3, 3]),
        ]
        outlier = gaussian(8, 8, 3, 3, seed=100 + number)
        outlier[0] *= 500
        weights = {"w": gaussian(8, 3, 3, 3, seed=number), "v": outlier}
        model = make_model(nodes, weights)
        model.producer_name = name[:200]
        file = folder / f"{key}.onnx"
        file.write_bytes(model.SerializeToString())
        ingest_file(
            file,
            path,
            IngestChoices(name=name, source=f"/somewhere/ada/{name[:50]}", probe=False),
        )
    return path


@pytest.fixture(scope="module")
def nasty_page(nasty_store):
    return write(nasty_store, list(NASTY.values()))


@pytest.fixture(scope="module")
def hostile_page(hostile_store):
    return write(hostile_store, HOSTILE)


# Pages are large, and many tests look at the same.
read = cache(Reader)


def policy_of(reader):
    (content,) = [
        given["content"]
        for tag, given in reader.tags
        if tag == "meta" and given.get("http-equiv") == "Content-Security-Policy"
    ]
    return dict(part.split(" ", 1) for part in content.split("; "))


# What it says.


def test_it_opens_with_the_answer_of_compare_and_a_verdict_per_target(page):
    text = read(page).text
    tensor, channel = TARGETS["int8_tensor"], TARGETS["int8_channel"]
    answer = f"1 of 2 models is broken with {tensor.title} ({verdicts.NOT_RUN}); 1 is untested"
    assert f"{answer}; with {channel.title}, 2 are untested" in text
    assert "broken: 8 layers" in text
    assert text.count(f"untested {verdicts.NOT_MEASURED}") == 7
    for target in TARGETS.values():
        assert (target.title in text) or not target.is_default
    assert notes.WHAT_WEIGHTS_PROVE in text


def test_the_worst_layers_come_with_causes_bits_and_what_would_rescue_them(page, demo_store):
    text = read(page).text
    with store.reading(demo_store) as connection:
        worst = queries.worst_layers(connection, "digits-rescaled", DEFAULT_SCHEME.name)
    assert str(worst["layer"].iloc[0]) in text
    assert "set the scale" in text
    for title in (layers.RESCUES, "p10 per channel", "p10 clipped", "p10 equalized"):
        assert title in text
    for title in ("bits per tensor", "bits per channel", "bits in blocks of 32"):
        assert title in text


def test_rescues_are_the_figures_of_the_store(demo_store):
    with store.reading(demo_store) as connection:
        rescues = queries.layer_rescues(connection, "digits-rescaled", DEFAULT_SCHEME.name)
        own = queries.layer_bits_needed(connection, int(rescues["layer_id"].iloc[0]))
        clipped = connection.value(
            "select channel_sqnr_p10_db from errors where layer_id = ? and scheme = ?",
            [int(rescues["layer_id"].iloc[0]), f"{DEFAULT_SCHEME.name}_mse"],
        )
    first = rescues.iloc[0]
    assert first["clipped_p10_db"] == clipped
    assert {"tensor": first["bits_tensor"], "channel": first["bits_channel"]} == {
        granularity: -1 if own[granularity] is None else own[granularity]
        for granularity in ("tensor", "channel")
    }
    assert len(rescues) == 10


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_every_target_gives_a_report(demo_store, target):
    text = Reader(write(demo_store, PAIR, target)).text
    assert TARGETS[target].title in text
    scheme = TARGETS[target].layer_scheme
    columns = layers.cause_columns(scheme, {"fine": 30, "broken": 0})
    assert [column.title for column in columns if column.title not in text] == []
    assert ("p10 per channel" in text) is not scheme.is_per_channel


@pytest.mark.slow
def test_layers_can_be_judged_under_another_scheme(demo_store):
    scheme = INT8_SCHEMES["int8_channel_asymmetric"]
    assert f"layers under {scheme.title}" in Reader(write(demo_store, PAIR, scheme=scheme)).text


@pytest.mark.slow
def test_one_model_is_not_compared_with_itself(demo_store):
    reader = Reader(write(demo_store, ["digits-rescaled"]))
    assert "Where in the network" not in reader.text
    assert set(reader.charts()) == {"range", "spread", "map-1"}


@pytest.mark.slow
def test_a_probe_is_reported_with_what_was_measured(demo_store, tmp_path):
    path = tmp_path / "probed.duckdb"
    shutil.copy(demo_store, path)
    probed(path, "digits-plain", "int8_tensor_symmetric", 41.0)
    probed(path, "digits-rescaled", "int8_tensor_symmetric", 6.6)
    probed(path, "digits-rescaled", "int8_channel_symmetric", 19.2, mode="weights")
    probed(path, "digits-rescaled", "int8_tensor_symmetric", 8.4, source="photos <b>")
    text = Reader(write(path, PAIR)).text
    assert "fine: 41 dB estimated with noise" in text
    # A run on own inputs takes the place of the probe, whatever it gave.
    own = finding("broken", "both", 8.4, evidence="run", sample_count=5)
    assert f"{verdicts.verdict(own).text} on 5 of your inputs".replace(NBSP, " ") in text
    headline = headlines.model_headline(own, None, TARGETS["int8_tensor"])
    assert headline.replace(NBSP, " ") in text
    assert "untested not measured; weights alone: 19 dB" not in text
    assert "at risk: 19 dB" in text
    assert "onnxruntime 1.32.0" in text
    assert "photos <b>" in text
    for note in (notes.PROBE_NOTE, notes.RUN_NOTE):
        assert Reader(note).text in text


NBSP = "\u00a0"


@pytest.mark.slow
def test_a_provisional_value_comes_with_its_reason(demo_store, tmp_path):
    path = tmp_path / "provisional.duckdb"
    shutil.copy(demo_store, path)
    with store.writing(path) as connection:
        run = a_run(41.0, provisional="tokens <b> cannot be imitated")
        add(connection, "digits-plain", run)
    text = Reader(write(path, ["digits-plain"])).text
    assert "fine: 41 dB estimated with noise, provisional" in text
    assert text.count("tokens <b> cannot be imitated") == 2


@pytest.mark.slow
def test_an_int8_model_comes_with_its_latest_audit(demo_store, tmp_path):
    path = shutil.copy(demo_store, tmp_path / "audited.duckdb")
    int8, other = "digits-separable", "digits-rescaled"
    tensors = (
        *an_audit().tensors,
        an_audited_tensor(NASTY["script"], grid_low=math.nan, seen_low=math.nan),
    )
    audited(path, int8, other, an_audit(grid_db=5.5))
    audited(path, int8, other, an_audit(minute=1, tensors=tensors))
    reader = Reader(write(path, [int8]))
    assert (
        f"At risk: {int8} has an output SQNR of 18.5 dB against {other} on 6 inputs." in reader.text
    )
    assert "5.5 dB of" not in reader.text
    for words in (
        audit_tables.WAYS_NOTE,
        audit_tables.LAYERS_NOTE,
        audit_tables.TENSORS_NOTE,
        "grid 0 to 127.5",
        "Images resized to 8x8",
        f"Audited: 18.5 dB against {other}",
    ):
        assert words in reader.text
    assert "audit-1" in reader.charts()
    # Of the float model, one line for each of its int8 files.
    reader = Reader(write(path, [other]))
    assert (
        f"At risk: {int8} has an output SQNR of 18.5 dB against {other} on 6 inputs." in reader.text
    )
    assert audit_tables.WAYS_NOTE not in reader.text


@pytest.mark.slow
def test_findings_come_with_their_remedies(demo_store, tmp_path):
    path = tmp_path / "findings.duckdb"
    shutil.copy(demo_store, path)
    found = FindingRecord(
        depth=0, kind="dead channel", severity="warning", message="It is <0>.", remedy="Prune it."
    )
    with store.writing(path) as connection:
        model_id = store.find_model(connection, "digits-plain")
        store.add_findings(connection, model_id, [found])
    text = Reader(write(path, ["digits-plain"])).text
    assert findings.HEADING in text
    where = "In /features/features.0/Conv."
    assert f"warning {where} It is <0>. Prune it." in text


@pytest.mark.slow
def test_a_probe_that_failed_leaves_the_reason(demo_store, tmp_path):
    path = tmp_path / "failed.duckdb"
    shutil.copy(demo_store, path)
    probed(path, "digits-plain", "int8_tensor_symmetric", np.nan, failure="no kernel for <Foo>")
    text = Reader(write(path, ["digits-plain"])).text
    assert f"{runs.PROBE_FAILED} no kernel for <Foo>." in text
    assert f"Untested with {TARGETS['int8_tensor'].title}: no kernel for <Foo>" in text
    assert "quantstore probe digits-plain --target int8_tensor" in text
    assert Reader(notes.UNTESTED_NOTE).text in text
    assert runs.NOT_RUN in Reader(write(demo_store, ["digits-plain"])).text


def test_it_says_what_it_is_about_and_who_made_it(page, demo_store):
    text = read(page).text
    assert f"quantstore {quantstore.__version__}" in text
    assert "23 November 2026 at 08:05 UTC" in text
    with store.reading(demo_store) as connection:
        for sha256 in queries.models(connection).set_index("model").loc[PAIR, "sha256"]:
            assert sha256 in text


@pytest.mark.slow
def test_the_method_is_that_of_the_probe_and_of_the_law(page):
    text = read(page).text
    assert method.WHICH_NOISE in text
    # A symmetric grid covers both sides of the largest weight, as symmetric_span_over_rms has it.
    assert "58.9 − 20 log10(2 max|w| / rms) dB on a symmetric grid" in text
    assert "58.9 − 20 log10((max(w, 0) − min(w, 0)) / rms) dB on an asymmetric one" in text


def test_the_distribution_counts_what_that_of_the_app_counts(page, demo_store):
    text = read(page).text
    with store.reading(demo_store) as connection:
        frame = queries.layer_profiles(connection, PAIR[::-1], DEFAULT_SCHEME.name)
    counted = compare.convolutions(frame)
    assert stories.bricks_note("convolution") in text
    assert stories.layers_counted(3, []).replace(NBSP, " ") in text
    assert compare.spread_story(counted, "channel_spread_bits").replace(NBSP, " ") in text


@pytest.mark.slow
def test_the_folders_of_the_sender_stay_private(nasty_page):
    assert "/somewhere/ada" not in nasty_page


def test_every_layer_is_in_the_csv(page, demo_store):
    reader = read(page)
    (table,) = [body for given, body in reader.scripts if given.get("data-table") == "layers"]
    lines = json.loads(table).splitlines()
    assert lines[0].startswith("model,rank,depth,layer,")
    assert len(lines) == 1 + 6 + 10


@pytest.mark.slow
def test_the_note_of_the_sender_stands_at_the_top_as_it_was_typed(demo_store):
    text = Reader(write(demo_store, ["digits-plain"], note=" <b>Look</b>\r\nat it & 'that' ")).text
    written = "Note by the sender, 23 November 2026 <b>Look</b> at it & 'that'"
    assert written in text.split("Verdicts")[0]
    assert "Note by the sender" not in Reader(write(demo_store, ["digits-plain"], note=" ")).text


@pytest.mark.parametrize("note", ["x" * (store.LONGEST_NOTE + 1), "a\0b"])
def test_a_note_that_is_no_note_is_refused_in_a_sentence(demo_store, note):
    with pytest.raises(LabelError):
        write(demo_store, ["digits-plain"], note=note)


# What it is: one file, the same every time, small, harmless.


@pytest.mark.slow
def test_the_same_store_gives_the_same_file(page, demo_store):
    assert write(demo_store, reversed(PAIR)) == page


@pytest.mark.slow
def test_progress_is_told_model_by_model(demo_store):
    told = []
    write(demo_store, PAIR, progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 2), (2, 2)]


@pytest.mark.parametrize("which", ["page", "nasty_page", "hostile_page"])
@pytest.mark.slow
def test_nothing_leads_outside(which, request):
    reader = read(request.getfixturevalue(which))
    for tag, given in reader.tags:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base", "form", "video")
        assert "src" not in given
        assert given.get("href", "#").startswith("#")
        assert not any(key.startswith("on") for key in given)
    ours = (Path(document.__file__).parent / "report.css").read_text("utf-8")
    assert not re.search(r"url\(|@import|https?:", "".join(reader.styles))
    assert "url(" not in ours


def test_only_its_own_two_scripts_may_run_and_none_through_eval(nasty_page):
    reader = read(nasty_page)
    policy = policy_of(reader)
    assert policy["default-src"] == "'none'"
    running = [body for given, body in reader.scripts if given.get("type") != "application/json"]
    assert policy["script-src"].split() == [
        "'sha256-" + base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() + "'"
        for one in running
    ]
    assert len(running) == 2
    assert "eval" not in policy["script-src"]
    assert "connect-src" not in policy


@pytest.mark.parametrize("key", NASTY)
def test_names_show_as_themselves(nasty_page, key):
    assert_shown(NASTY[key], read(nasty_page))


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_more_names_show_as_themselves(hostile_page, name):
    assert_shown(name, read(hostile_page))


def assert_shown(name, reader):
    shown = "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in name
    )
    titles = {given.get("title") for _, given in reader.tags}
    assert shown in titles
    assert shown[-250:].split("/")[-1] in reader.text.replace("\u00a0", " ")


def test_models_keep_different_short_names_in_charts():
    models = ["a/" * 100 + "x", "b/" + "a/" * 99 + "x", "c"]
    names = document._chart_names(models)
    assert len(set(names.values())) == 3
    assert all(len(name) <= document.CHART_NAME for name in names.values())


def test_file_names_suit_every_disk():
    assert document.file_name(["rtmdet-nano"]) == "quantstore-rtmdet-nano.html"
    assert document.file_name(["a", "b"]) == "quantstore-2-models.html"
    assert document.file_name(["../../<检测>\n"]) == "quantstore-report.html"
    assert len(document.file_name(["x" * 1000])) < 100


def test_colours_are_properties_that_both_themes_set(page):
    used = set(re.findall(r"var\((--[\w-]+)\)", page.split("<script>")[0]))
    own = {"--fill", "--tint", "--ink"}
    assert used - own <= set(by_name(LIGHT)) == set(by_name(DARK))
    for chart in read(page).charts().values():
        colours = re.findall(r"#[0-9A-Fa-f]{6}", json.dumps(chart.get("layer", chart)))
        assert colours == []


def test_charts_carry_what_they_draw_and_nothing_else(page):
    chart = read(page).charts()["depth"]
    for dataset in chart["datasets"].values():
        assert not {"weight_range", "shape", "op_type"} & set(dataset["columns"])
        for column in dataset["columns"].values():
            values = column.get("values") or column["index"]
            assert len(values) == dataset["rows"]


def test_packing_loses_nothing_that_is_drawn():
    frame = profiles({"a": [(1.234567, 12.3), (2, 31)], "b": [(3, 5)]})
    spec = figures.specification(compare.hanging_bars(frame, PROPERTIES))
    packed = figures.packed(spec)
    for name, rows in spec["datasets"].items():
        columns = packed["datasets"][name]["columns"]
        for key, column in columns.items():
            values = column.get("values") or [column["different"][i] for i in column["index"]]
            for row, value in zip(rows, values, strict=True):
                assert value == (pytest.approx(row[key], rel=1e-4) if value != row[key] else value)


@pytest.mark.slow
def test_ten_large_models_stay_below_five_megabytes():
    rng = np.random.default_rng(0)
    frame = profiles(
        {
            f"model-{n}": [
                (float(10 ** rng.normal()), float(rng.uniform(0, 45))) for _ in range(500)
            ]
            for n in range(10)
        }
    )
    measure = compare.Measure(column="weight_range", title="range", axis="log")
    bricks, bars = (
        len(figures.figure(chart, key="k", alt="a").specification.encode())
        for chart in (
            compare.bricks(frame, measure, PROPERTIES),
            compare.hanging_bars(frame, PROPERTIES),
        )
    )
    # The maps of the models are together another of these.
    size = bricks + 2 * bars
    engine = (Path(document.__file__).parent / "vega.js").stat().st_size
    # What is left is for 400 rows of tables and 5,000 lines of CSV, some 300 bytes each.
    assert engine + size + 400 * 3000 + 5000 * 300 < 5_000_000


def test_the_drawing_library_is_of_the_version_that_altair_writes_for():
    banner = (Path(document.__file__).parent / "vega.js").read_text("utf-8")[:200]
    assert f"Vega-Lite {'.'.join(altair.SCHEMA_VERSION.lstrip('v').split('.')[:2])}" in banner


# The command.


@pytest.mark.slow
def test_the_command_writes_the_file_and_says_where(demo_store, tmp_path, capsys):
    target = tmp_path / "out.html"
    assert cli.main(["report", *PAIR, "-o", str(target), "--db", str(demo_store)]) == 0
    answer = capsys.readouterr()
    assert answer.out == ""
    assert answer.err == f"wrote {target} ({units.file_size(target.stat().st_size)})\n".replace(
        units.NO_BREAK_SPACE, " "
    )
    assert target.read_text("utf-8").startswith("<!doctype html>")


def test_a_model_that_is_not_there_is_named(demo_store, tmp_path, capsys):
    target = tmp_path / "out.html"
    command = ["report", "digits-plain", "nobody", "-o", str(target), "--db", str(demo_store)]
    assert cli.main(command) == 2
    assert "no model named 'nobody'" in capsys.readouterr().err
    assert not target.exists()


def test_no_store_is_said(tmp_path, capsys):
    assert cli.main(["report", "a", "--db", str(tmp_path / "none.duckdb")]) == 3
    assert "there is no store" in capsys.readouterr().err


@pytest.mark.slow
def test_a_file_that_cannot_be_written_is_a_sentence(demo_store, tmp_path, capsys):
    for target in (tmp_path, tmp_path / "no" / "such" / "folder.html"):
        command = ["report", "digits-plain", "-o", str(target), "--db", str(demo_store)]
        assert cli.main(command) == 1
        assert f"{target}: cannot be written" in capsys.readouterr().err


def test_targets_that_do_not_exist_are_refused(demo_store, capsys):
    command = ["report", "digits-plain", "--target", "int4_block32_symmetric"]
    assert cli.main([*command, "--db", str(demo_store)]) == 2


# In a browser, from the disk, without a network.


class Opened:
    """A report in a tab whose every request is refused, and what went wrong in it."""

    def __init__(self, browser, path, *, width=1440, theme="light", javascript=True):
        self.context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme=theme,
            java_script_enabled=javascript,
            accept_downloads=True,
        )
        self.asked, self.errors = [], []
        self.page = self.context.new_page()

        def answer(route):
            if route.request.url == path.as_uri():
                return route.continue_()
            self.asked.append(route.request.url)
            return route.abort()

        self.context.route("**/*", answer)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on(
            "console",
            lambda said: self.errors.append(said.text) if said.type in ("error", "warning") else 0,
        )
        self.page.goto(path.as_uri())
        if javascript:
            self.page.wait_for_selector("html[data-drawn]", state="attached", timeout=60_000)

    def seen(self, *, width=1440, theme="light", media="screen"):
        """The same tab in another window."""
        self.page.emulate_media(color_scheme=theme, media=media)
        self.page.set_viewport_size({"width": width, "height": 900})
        return self


@pytest.fixture(scope="module")
def opened(browser, tmp_path_factory):
    contexts = []

    def open_page(page, **options):
        path = tmp_path_factory.mktemp("opened") / "report.html"
        path.write_text(page, encoding="utf-8")
        tab = Opened(browser, path, **options)
        contexts.append(tab.context)
        return tab

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def page_tab(opened, page):
    """The report, opened once for all that is to be seen in it."""
    return opened(page)


@pytest.fixture(scope="module")
def nasty_page_tab(opened, nasty_page):
    return opened(nasty_page, width=800, theme="dark")


@pytest.fixture(scope="module")
def hostile_page_tab(opened, hostile_page):
    return opened(hostile_page, width=800, theme="dark")


# One opens in light and wide, the other in dark and narrow; each then changes to the rest.
@pytest.mark.slow
@pytest.mark.usefixtures("browser")
@pytest.mark.parametrize("width", [1440, 800])
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("which", ["page", "nasty_page", "hostile_page"])
def test_it_draws_from_the_disk_and_asks_for_nothing(request, which, width, theme):
    tab = request.getfixturevalue(f"{which}_tab").seen(width=width, theme=theme)
    charts = read(request.getfixturevalue(which)).charts()
    assert tab.page.locator(".plot svg").count() == len(charts)
    background = tab.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(18, 21, 26)"}[theme]
    # Columns that nobody sees lie over the bars: they answer the pointer.
    mark = tab.page.locator("#map-1 .mark-rect path:not([opacity='0'])").first
    fill = mark.evaluate("mark => getComputedStyle(mark).fill")
    fills = {"light": LIGHT, "dark": DARK}[theme].band_fills
    assert "#{:02X}{:02X}{:02X}".format(*map(int, re.findall(r"\d+", fill))) in fills
    sideways = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert tab.page.evaluate(sideways) <= 0
    assert "owned" not in tab.page.title().replace(NASTY["script"], "")
    assert (tab.asked, tab.errors) == ([], [])


@pytest.mark.slow
def test_marks_have_tooltips_and_lead_to_their_layer(page_tab):
    tab = page_tab.seen()
    tab.page.locator("#map-1 path[aria-roledescription='rect mark']").nth(1).hover()
    tip = tab.page.locator("#vg-tooltip-element")
    assert verdicts.NINE_IN_TEN_REACH in tip.inner_text()
    tab.page.locator("#map-1 path[aria-roledescription='rect mark']").nth(1).click()
    assert tab.page.locator("tr.found").count() == 1
    assert tab.errors == []


@pytest.mark.slow
def test_charts_are_saved_as_svg_and_png_and_layers_as_csv(page_tab):
    tab = page_tab.seen(theme="dark")
    tab.page.locator("#range").hover()
    for kind, beginning in (("SVG", b"<svg"), ("PNG", b"\x89PNG")):
        with tab.page.expect_download() as download:
            tab.page.locator("#range").get_by_role("button", name=f"Save as {kind}").click()
        content = Path(download.value.path()).read_bytes()
        assert content.startswith(beginning)
        # Elsewhere nobody sets the properties of this page.
        assert b"var(--" not in content
        assert download.value.suggested_filename == f"quantstore-range.{kind.lower()}"
    with tab.page.expect_download() as download:
        tab.page.get_by_role("button", name="Save as CSV").click()
    assert Path(download.value.path()).read_bytes().startswith(b"model,rank,")
    assert (tab.asked, tab.errors) == ([], [])


@pytest.mark.slow
def test_paper_is_light_and_nothing_is_wider_than_it(page_tab):
    tab = page_tab.seen(width=700, theme="dark", media="print")
    assert tab.page.evaluate("getComputedStyle(document.body).backgroundColor") == (
        "rgb(255, 255, 255)"
    )
    widest = (
        "Math.max(...[...document.querySelectorAll('svg, table, .pairs')]"
        ".map(place => place.getBoundingClientRect().right))"
    )
    assert tab.page.evaluate(widest) <= 701


@pytest.mark.slow
@pytest.mark.parametrize("media", ["screen", "print"])
@pytest.mark.parametrize("width", [1440, 800, 500])
def test_what_a_verdict_rests_on_is_seen_however_narrow_the_page(page_tab, width, media):
    tab = page_tab.seen(width=width, media=media)
    cells = tab.page.locator(".cell .evidence")
    assert cells.count() == len(PAIR) * sum(target.is_default for target in TARGETS.values())
    assert all(cell.is_visible() for cell in cells.all())
    assert verdicts.NOT_MEASURED in cells.all_inner_texts()


@pytest.mark.slow
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_axe_finds_nothing(browser, demo_store, tmp_path, width, theme):
    # Of int8_dynamic the convolutions are no part: a strip of no layers has nothing to say.
    path = tmp_path / "report.html"
    path.write_text(write(demo_store, PAIR, "int8_dynamic", note="Look."), encoding="utf-8")
    # What axe brings along is no script of the page.
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=theme, bypass_csp=True
    )
    page = context.new_page()
    page.goto(path.as_uri())
    page.wait_for_selector("html[data-drawn]", state="attached", timeout=60_000)
    page.add_script_tag(content=axe_script())
    result = page.evaluate("rules => axe.run(document, { runOnly: rules })", list(WCAG))
    assert [(rule["id"], rule["nodes"][0]["html"]) for rule in result["violations"]] == []
    sideways = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(sideways) <= 0
    context.close()


@pytest.mark.slow
def test_without_javascript_the_tables_are_there(opened, page):
    tab = opened(page, javascript=False)
    assert tab.page.get_by_text("broken: 8 layers").count()
    assert tab.page.get_by_text("need JavaScript").count()


@pytest.mark.slow
def test_no_picture_of_somebodys_inputs_leaves_with_a_report(demo_store, tmp_path):
    path = shutil.copy(demo_store, tmp_path / "pictured.duckdb")
    picture = np.random.default_rng(0).bytes(3000)
    answer = AnswerRecord(
        input_name="holidays.jpg", rank=1, sqnr_db=9.5, form="none", is_shown=True, picture=picture
    )
    with store.writing(path) as connection:
        add(connection, PAIR[0], a_run(9.5, source="1 image from photos/", answers=(answer,)))
    text = write(path, PAIR)
    assert base64.b64encode(picture).decode()[:40] not in text
    assert "holidays.jpg" not in text
