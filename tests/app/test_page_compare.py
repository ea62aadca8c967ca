"""The Compare page: sorting, filters, shapes, and what a rectangle over the dots lists."""

import json
import shutil

import pandas as pd
import pyarrow as pa
import pytest

from quantstore import queries, store
from quantstore.app.pages.compare import NO_LAYER_PASSES
from quantstore.app.sections.compare_charts import WHAT_A_DOT_DOES, _box, _box_in_words
from quantstore.app.sections.facets import NO_MODEL_PASSES
from quantstore.app.sections.filters import LayerFilter
from quantstore.app.widgets import pickers
from quantstore.store.totals import renew_totals
from tests.support.runs import a_run, add
from tests.support.visits import opened, trusting_no_chart, unopened


@pytest.fixture
def page(monkeypatch, demo_store):
    """Opens a page of one's own."""
    monkeypatch.setenv("QUANTSTORE_DB", str(demo_store))

    def open_page(**address):
        app = unopened("compare", **({"target": "int8_tensor"} | address)).run()
        assert not app.exception
        assert not app.error
        return app

    return open_page


@pytest.fixture(scope="module")
def seen(demo_store):
    """Looks at a page that others look at as well."""

    def look_at(path=demo_store, **address):
        app = opened("compare", path, **({"target": "int8_tensor"} | address))
        assert not app.error
        return app

    return look_at


def matrix(app):
    """The verdict matrix as the browser gets it."""
    for component in app.get("bidi_component"):
        data = json.loads(component.proto.json or "null")
        if data and "targets" in data:
            return data
    return None


def said(app):
    kinds = (app.markdown, app.caption)
    return " ".join(str(one.value) for kind in kinds for one in kind).replace("\u00a0", " ")


@pytest.mark.slow
def test_the_matrix_is_sorted_as_the_address_says(seen):
    data = matrix(seen(sort="weights"))
    assert data["rows"][0]["model"] == "digits-plain"
    assert data["sort"]["chosen"] == "weights"


@pytest.mark.slow
def test_the_worst_verdict_comes_first_unless_somebody_sorts(seen):
    app = seen(sort="nonsense")
    assert matrix(app)["rows"][0]["model"] == "digits-rescaled"
    assert "sort" not in dict(app.query_params)


@pytest.fixture(scope="module")
def tagged(demo_store, tmp_path_factory):
    """Models of which two are tagged, one with a name like markup."""
    path = tmp_path_factory.mktemp("tagged") / "tagged.duckdb"
    shutil.copy(demo_store, path)
    with store.writing(path) as con:
        store.set_tags(con, "digits-plain", ["edge", "<b>"])
        store.set_tags(con, "digits-rescaled", ["edge"])
    return path


def choices(app, facet):
    """What a facet offers, with its counts."""
    return [label.replace("\\", "") for label in app.button_group(key=facet).options]


def offered(app):
    """The facets that the page has, as they are drawn."""
    return [one.key for one in app.button_group if one.key in queries.FACETS]


@pytest.mark.slow
def test_a_tag_chooses_the_models_and_what_there_is_to_pick_from(seen, tagged):
    app = seen(tagged, tag="edge")
    assert [row["model"] for row in matrix(app)["rows"]] == ["digits-rescaled", "digits-plain"]
    assert app.header[0].value.startswith("1 of 2 models is broken")
    assert app.multiselect(key="models").options == ["digits-plain", "digits-rescaled"]
    assert app.multiselect(key="models").proto.placeholder == "All 2 models"
    assert "2 of 4 models" in said(app)
    # The charts follow.
    assert "digits-rescaled" in str(app.get("vega_lite_chart")[0].proto)
    assert "digits-separable" not in str(app.get("vega_lite_chart")[0].proto)


@pytest.mark.slow
def test_facets_are_counted_over_the_models_that_meet_the_others(seen, tagged):
    everything = seen(tagged)
    assert choices(everything, "verdict") == ["Broken (1)", "Untested (3)"]
    assert choices(everything, "tag") == ["<b> (1)", "edge (2)"]
    among_edge = seen(tagged, tag="edge")
    assert choices(among_edge, "verdict") == ["Broken (1)", "Untested (1)"]
    assert len(choices(among_edge, "tag")) == 2
    both = seen(tagged, tag=["edge"], verdict=["untested"])
    assert [row["model"] for row in matrix(both)["rows"]] == ["digits-plain"]
    assert choices(both, "tag") == ["<b> (1)", "edge (1)"]


@pytest.mark.slow
def test_what_no_model_differs_in_is_no_facet(seen, tagged):
    # None of the examples stores integers, and none is known to survive a target.
    assert offered(seen(tagged)) == ["verdict", "operator", "tag"]
    assert "tag" not in offered(seen())


def test_facets_that_no_model_meets_are_a_sentence(seen, tagged):
    app = seen(tagged, tag="<b>", verdict="broken")
    assert [one.value for one in app.info] == [NO_MODEL_PASSES]
    assert matrix(app) is None


@pytest.mark.slow
def test_a_facet_and_models_are_chosen_together_and_let_go(page, tagged, monkeypatch):
    monkeypatch.setenv("QUANTSTORE_DB", str(tagged))
    app = page(tag="edge")
    app.multiselect(key="models").set_value(["digits-plain"]).run()
    assert [row["model"] for row in matrix(app)["rows"]] == ["digits-plain"]
    app.button_group(key="tag").set_value(["<b>"]).run()
    assert [row["model"] for row in matrix(app)["rows"]] == ["digits-plain"]
    app.button(key="clear_facets").click().run()
    assert app.multiselect(key="models").value == ["digits-plain"]
    app.multiselect(key="models").set_value([]).run()
    assert len(matrix(app)["rows"]) == 4
    assert "tag" not in app.query_params


@pytest.mark.slow
def test_a_tag_that_is_gone_is_any_tag(seen, tagged):
    app = seen(tagged, tag="gone")
    assert len(matrix(app)["rows"]) == 4
    assert app.button_group(key="tag").value == []
    assert [one.value for one in app.warning] == [pickers.not_in_store("tag named", "gone")]


@pytest.mark.slow
def test_a_model_that_a_tag_leaves_out_is_not_called_missing(seen, tagged):
    assert not seen(tagged, tag="<b>", models=["digits-rescaled"]).warning


@pytest.mark.slow
def test_models_that_are_gone_are_said_and_the_others_shown(seen):
    app = seen(models=["<i>", "digits-plain", "nope"])
    assert [row["model"] for row in matrix(app)["rows"]] == ["digits-plain"]
    (notice,) = app.warning
    assert notice.value == pickers.not_in_store("model named", r"\<i\> or nope")
    assert not seen(models=["digits-plain"]).warning


@pytest.fixture(scope="module")
def many_models(demo_store, tmp_path_factory):
    """A store of 16 models: each example four times over, under names that count."""
    path = tmp_path_factory.mktemp("many") / "many.duckdb"
    shutil.copy(demo_store, path)
    with store.writing(path) as con:
        for copy in (1, 2, 3):
            con.rows(
                "insert into models by name select * replace (model_id - $copy as model_id,"
                " model || '-' || $copy as model, sha256 || $copy as sha256)"
                " from models where length(sha256) = 64",
                {"copy": copy},
            )
            con.rows(
                "insert into layers by name select * replace (layer_id - $copy as layer_id,"
                " model_id - $copy as model_id) from layers"
                " where model_id in (select model_id from models where length(sha256) = 64)",
                {"copy": copy},
            )
            con.rows(
                "insert into stored_errors by name"
                " select stored_errors.* replace (layer_id - $copy as layer_id)"
                " from stored_errors join layers using (layer_id) join models using (model_id)"
                " where length(sha256) = 64",
                {"copy": copy},
            )
        renew_totals(con._connection)
    return path


@pytest.mark.slow
def test_more_than_twelve_models_come_in_pages_that_the_address_names(seen, many_models):
    first = [row["model"] for row in matrix(seen(many_models, sort="name"))["rows"]]
    app = seen(many_models, sort="name", page="2")
    second = [row["model"] for row in matrix(app)["rows"]]
    assert (len(first), len(second)) == (12, 4)
    assert first + second == sorted(first + second)
    assert "of 16 models" in app.header[0].value
    # A report of the models on show says that they are not all.
    reports = [one.label for one in app.get("download_button") if "report" in one.label]
    assert reports == ["Download report of these 4"]
    assert "Showing 4 of 16 models" in said(app)


@pytest.mark.slow
def test_the_figures_have_true_minus_signs(seen, tmp_path, demo_store):
    path = tmp_path / "negative.duckdb"
    shutil.copy(demo_store, path)
    with store.writing(path) as con:
        add(con, "digits-rescaled", a_run(-6.3))
    (figures,) = seen(path).dataframe
    shown = pa.ipc.open_stream(figures.proto.arrow_data.styler.display_values).read_all()
    assert shown["outputs, dB"].to_pylist() == ["−6.3", "", "", ""]


@pytest.mark.slow
def test_the_distribution_counts_convolutions_until_somebody_chooses_operators(seen):
    pair = ["digits-plain", "digits-rescaled"]
    counted = said(seen(models=pair))
    assert "One brick per convolution" in counted
    assert "Only convolutions are counted; 3 other layers are not" in counted
    chosen = said(seen(models=pair, family=["linear"]))
    assert "One brick per layer" in chosen
    assert "Only convolutions are counted" not in chosen


@pytest.mark.slow
def test_one_model_has_nothing_to_sort(seen):
    assert matrix(seen(models=["digits-plain"]))["sort"] is None


@pytest.mark.slow
def test_two_models_lead_to_their_revisions(seen):
    def links(app):
        return [link.proto.label for link in app.get("page_link")]

    own = r"digits\-plain against digits\-rescaled, layer by layer"
    assert own not in links(seen())
    assert own in links(seen(models=["digits-plain", "digits-rescaled"]))


@pytest.mark.slow
def test_long_names_keep_both_ends_in_the_link(seen, tmp_path, demo_store):
    path = tmp_path / "long.duckdb"
    shutil.copy(demo_store, path)
    with store.writing(path) as con:
        con.rows(
            "update models set model = 'before' || repeat(' ', 200) where model = 'digits-plain'"
        )
        con.rows(
            "update models set model = 'net' || repeat('-x', 99) where model = 'digits-rescaled'"
        )
        names = queries.model_names(con)
    labels = [
        link.proto.label.replace("\\", "")
        for link in seen(path, models=[names[0], names[-1]]).get("page_link")
    ]
    assert labels[-1] == f"before against net{'-x' * 8}…{'-x' * 10}, layer by layer"


@pytest.mark.slow
def test_a_filter_says_what_it_leaves_out_and_holds_for_every_chart(page):
    app = page(depthwise="Only")
    assert r"12 of 36 layers shown\: depthwise convolutions; none in digits\-plain" in said(app)
    assert len(app.get("vega_lite_chart")) == 3
    app.button(key="clear_filters").click().run()
    assert "layers shown" not in said(app)
    assert dict(app.query_params) == {"target": "int8_tensor"}


def test_a_filter_that_nothing_passes_leaves_a_sentence(seen):
    app = seen(named="no such layer")
    assert [one.value for one in app.info] == [NO_LAYER_PASSES]
    assert not app.get("vega_lite_chart")


LAYERS = pd.DataFrame(
    {
        "layer": ["stem/Conv", "block/Depthwise", "head/Gemm"],
        "op_family": ["conv", "conv", "linear"],
        "is_depthwise": [False, True, False],
        "weight_count": [100, 50, 5000],
    }
)


@pytest.mark.parametrize(
    ("chosen", "kept", "words"),
    [
        (LayerFilter(families=("conv",)), [0, 1], "convolutions"),
        (LayerFilter(depthwise="Only"), [1], "depthwise convolutions"),
        (LayerFilter(depthwise="Exclude"), [0, 2], "no depthwise convolutions"),
        (LayerFilter(least_weights=100), [0, 2], "at least 100 weights"),
        (LayerFilter(named="HEAD/"), [2], "“HEAD/” in the name"),
        (LayerFilter(named="[a"), [], "“[a” in the name"),
        (
            LayerFilter(("conv", "linear"), "Exclude", 1000, "e"),
            [2],
            "convolutions and linear layers, no depthwise convolutions, at least 1,000 weights,"
            " “e” in the name",
        ),
    ],
)
def test_what_passes_a_filter_and_how_that_is_said(chosen, kept, words):
    assert LAYERS.index[chosen.passes(LAYERS)].tolist() == kept
    assert chosen.in_words(len(kept), 3).replace("\u00a0", " ") == (
        f"{len(kept)} of 3 layers shown: {words}"
    )


def test_an_open_filter_lets_every_layer_through():
    assert LayerFilter().is_open
    assert LayerFilter().passes(LAYERS).all()


@pytest.mark.parametrize(
    ("shape", "measure"),
    [
        ("Bars", "Outlier share"),
        pytest.param("Cumulative", "Tensor SQNR", marks=pytest.mark.slow),
    ],
)
def test_every_shape_draws_and_says_what_it_shows(page, shape, measure, monkeypatch):
    trusting_no_chart(monkeypatch)
    app = page(shape=shape, measure=measure, depth_measure=measure)
    first, second, _ = (chart.proto.alt for chart in app.get("vega_lite_chart"))
    assert first.startswith("Median per model: ")
    assert second.startswith("Worst layer per model: ")


@pytest.mark.slow
def test_any_measure_stands_against_any_other(seen):
    app = seen(x="Outlier share", y="Channel spread")
    assert [header.value for header in app.header][-1] == "Outlier share vs. channel spread"
    assert "Spearman's rank correlation" in said(app)


@pytest.mark.slow
def test_a_rectangle_in_the_address_lists_its_layers_worst_first(page):
    app = page(box="0.001~1000~0~10")
    assert "layers in the rectangle" in said(app)
    listed = next(frame.value for frame in app.dataframe if "band" in frame.value.columns)
    assert set(listed["band"]) == {"broken"}
    assert listed["p10, dB"].is_monotonic_increasing
    # In units of other measures it means nothing.
    app.selectbox(key="x").set_value("Channel spread").run()
    assert WHAT_A_DOT_DOES in said(app)
    assert "in the rectangle" not in said(app).replace(WHAT_A_DOT_DOES, "")
    assert "box" not in dict(app.query_params)


@pytest.mark.parametrize("text", ["", "1~2~3", "a~b~c~d", "<script>"])
def test_what_is_no_rectangle_is_none(text):
    assert _box(text) is None


def test_a_rectangle_survives_the_address():
    drawn = _box_in_words({"x": [12.93087, 0.0209377], "y": [5.9, 41.756]})
    assert drawn == "0.02094~12.93~5.9~41.76"
    assert _box(drawn).x == (0.02094, 12.93)
    assert _box_in_words({}) == ""
