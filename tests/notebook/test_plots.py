"""Charts of the app in a notebook: each is whole, has a title and a ground of its own."""

import shutil
import subprocess
import sys
from functools import cache

import altair as alt
import pandas as pd
import pytest

import quantstore
from quantstore import store
from quantstore.charts import common
from quantstore.charts.palette import BANDS, PALETTES
from quantstore.errors import QuantstoreError, UnknownLayerError, UnknownModelError
from quantstore.notebook import plots
from tests.support.runs import a_rescue, a_run, a_tensor, add

RESCALED, SEPARABLE = "digits-rescaled", "digits-separable"
HOSTILE = "<b>evil\x1b"


@pytest.fixture(scope="module")
def filled(demo_store, tmp_path_factory):
    """The demo models, with a run of one that keeps its tensors, and a rescue."""
    path = shutil.copy(demo_store, tmp_path_factory.mktemp("filled") / "filled.duckdb")
    with store.writing(path) as connection:
        for source in ("12 images", "noise"):
            tensors = [
                a_tensor(depth, sqnr_db, kind=kind)
                for depth, sqnr_db in enumerate((40, 31, 12, 8))
                for kind in ("accumulated", "local")
            ]
            add(connection, RESCALED, a_run(source=source), tensors)
        store.add_rescue(connection, store.find_model(connection, RESCALED), a_rescue())
        connection.rows("update models set model = ? where model = 'digits-plain'", [HOSTILE])
    return quantstore.open_store(path)


CHARTS = {
    "compare": lambda filled, **look: filled.plot_compare([RESCALED, SEPARABLE], **look),
    "compare all": lambda filled, **look: filled.plot_compare(measure="SQNR", **look),
    "layers": lambda filled, **look: filled.plot_layers(RESCALED, **look),
    "hostile": lambda filled, **look: filled.plot_layers(HOSTILE, **look),
    "channels": lambda filled, **look: filled.plot_channels(RESCALED, worst(filled), **look),
    "per channel": lambda filled, **look: filled.plot_channels(
        RESCALED, worst(filled), scheme="int8_channel_symmetric", order="widest first", **look
    ),
    "drift": lambda filled, **look: filled.plot_drift(RESCALED, **look),
    "drift of two": lambda filled, **look: filled.plot_drift(
        RESCALED, runs_of(filled), with_local=False, **look
    ),
    "rescue": lambda filled, **look: filled.plot_rescue(RESCALED, **look),
    "diff": lambda filled, **look: filled.plot_diff(SEPARABLE, RESCALED, **look),
    "diff by depth": lambda filled, **look: filled.plot_diff(
        SEPARABLE, SEPARABLE, order="depth", **look
    ),
}
every_chart = pytest.mark.parametrize("draw", CHARTS.values(), ids=CHARTS)


@cache
def specification(filled, draw, theme):
    """What a chart is in Vega-Lite, held against its schema, for all that look at it."""
    return draw(filled, theme=theme, width=500).to_dict()


def worst(filled):
    return filled.layers(RESCALED)["layer"][0]


def runs_of(filled):
    runs = filled.query("select simulation_id from simulations where model_id > 0")
    return runs["simulation_id"].tolist()


@pytest.mark.slow
@every_chart
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_chart_is_valid_and_stands_alone(filled, draw, theme):
    spec = specification(filled, draw, theme)
    assert spec["config"]["background"] == PALETTES[theme].background
    assert spec["title"]["text"] == spec["description"]
    assert spec["title"]["text"].isprintable()
    parts = spec.get("vconcat", [spec])
    assert {part["width"] for part in parts} == {500}


@every_chart
def test_a_chart_whose_colours_are_bands_explains_them(filled, draw):
    def colours(spec):
        yield spec.get("encoding", {}).get("color", {})
        for part in spec.get("layer", []) + spec.get("vconcat", []):
            yield from colours(part)

    for colour in colours(specification(filled, draw, "light")):
        if colour.get("field") == "band":
            assert colour["scale"]["domain"] == list(BANDS)
            assert colour["legend"]["orient"] == "bottom"


def test_a_chart_has_all_of_its_rows_however_many():
    frame = pd.DataFrame({"x": range(6000)})
    chart = alt.Chart(frame).mark_point().encode(x="x:Q")
    with pytest.raises(alt.MaxRowsError):
        chart.to_dict()
    palette = PALETTES["light"]
    drawn = common.standalone(common.styled(chart, palette), palette, 300, "rows")
    (rows,) = drawn.to_dict()["datasets"].values()
    assert len(rows) == 6000


@pytest.mark.slow
def test_importing_the_interface_loads_no_chart(demo_store):
    program = (
        "import sys, quantstore\n"
        f"store = quantstore.open_store({str(demo_store)!r})\nstore._repr_html_()\n"
        "print('altair' in sys.modules, 'streamlit' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "False False\n", done.stderr


@pytest.mark.parametrize(
    ("draw", "kind", "part"),
    [
        (lambda s: s.plot_layers("nope"), UnknownModelError, "'nope'"),
        (lambda s: s.plot_compare(["nope"]), UnknownModelError, "'nope'"),
        (lambda s: s.plot_compare([]), QuantstoreError, plots.NO_MODELS),
        (lambda s: s.plot_compare(measure="weight rang"), QuantstoreError, "mean Weight range?"),
        (lambda s: s.plot_channels(RESCALED, "nope"), UnknownLayerError, "'nope'"),
        (lambda s: s.plot_drift(SEPARABLE), QuantstoreError, plots.NO_RUN),
        (lambda s: s.plot_drift(RESCALED, 999), QuantstoreError, f"run 999: {plots.NO_RUN}"),
        (lambda s: s.plot_rescue(SEPARABLE), QuantstoreError, plots.NO_RESCUE),
        (lambda s: s.plot_rescue(RESCALED, 999), QuantstoreError, f"999: {plots.NO_RESCUE}"),
        (lambda s: s.plot_diff(RESCALED, RESCALED), QuantstoreError, plots.NO_CHANGE),
        (lambda s: s.plot_layers(RESCALED, "int9"), ValueError, "int9"),
    ],
)
def test_what_cannot_be_drawn_is_a_sentence(filled, draw, kind, part):
    with pytest.raises(kind) as caught:
        draw(filled)
    assert part in caught.value.sentence
