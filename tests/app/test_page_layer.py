"""The Layer page: what an address shows, and what it says where the address is wrong."""

import json
import math
import re
from types import SimpleNamespace

import pandas as pd
import pyarrow as pa
import pytest
import streamlit as st

from quantstore import queries, store
from quantstore.app.pages import layer as layer_page
from quantstore.app.sections import channels, clipping, equalization
from quantstore.app.widgets import address, components
from quantstore.schemes import DEFAULT_SCHEME, INT8_SCHEMES, SCHEMES, TARGETS
from quantstore.wording import remedies, units
from quantstore.wording import text as text_words
from tests.support.visits import opened, section, unopened

MODEL = "digits-rescaled"
LAYER = "/stem/conv/Conv"


@pytest.fixture
def page(monkeypatch, demo_store):
    """Opens a page of one's own."""
    monkeypatch.setenv("QUANTSTORE_DB", str(demo_store))
    return lambda **address: run(unopened("layer", **({"target": "int8_tensor"} | address)))


@pytest.fixture
def seen(demo_store):
    """Looks at a page that others look at as well."""
    return lambda **address: opened("layer", demo_store, **({"target": "int8_tensor"} | address))


def run(app):
    app.run()
    assert not app.exception
    assert not app.error
    return app


def html_of(app):
    return "\n".join(element.proto.body for element in app.get("html"))


def name_on(app):
    found = re.search(r"<h1[^>]*>(.*?)</h1>", html_of(app))
    return found and found.group(1).replace("<wbr>", "")


def table_of(app, first):
    """The table whose first column has this title, as the browser gets it; None without one."""
    for component in app.get("bidi_component"):
        data = json.loads(component.proto.json or "null")
        if data and "columns" in data and data["columns"][0]["title"] == first:
            return data
    return None


def rescue(app):
    """The rows of the table of schemes: by title, their cells."""
    return {row["cells"][0]["text"]: row["cells"] for row in table_of(app, "scheme")["rows"]}


def rescue_sentence(app):
    (said,) = [text.value for text in app.markdown if text.value.startswith("Per channel")]
    return said.replace("\u00a0", " ")


def worst_layer(demo_store, model=MODEL):
    with store.reading(demo_store) as con:
        return queries.worst_layers(con, model, DEFAULT_SCHEME.name).iloc[0]["layer"]


# A shared scale and one per channel.
every_scale = pytest.mark.parametrize("target", ["int8_tensor", "int8_channel"])


@pytest.mark.slow
@every_scale
def test_an_address_restores_the_layer_and_the_target(seen, target):
    app = seen(model=MODEL, layer=LAYER, target=target)
    assert name_on(app) == LAYER
    assert f"under {TARGETS[target].layer_scheme.title}" in html_of(app)
    assert len(app.get("vega_lite_chart")) == 5
    assert not app.warning


def test_sections_follow_the_scheme(seen):
    shared = [header.value for header in seen(model=MODEL, layer=LAYER).header]
    own = seen(model=MODEL, layer=LAYER, target="int8_channel").header
    assert shared == [
        channels.TITLE,
        layer_page.CODES_TITLE,
        layer_page.RESCUE_TITLE,
        clipping.TITLE,
        equalization.TITLE,
        channels.TABLE_TITLE,
    ]
    assert [header.value for header in own][1] == layer_page.DISTRIBUTION_TITLE


def test_a_target_whose_scheme_has_no_channels_says_what_is_shown_instead(seen):
    app = seen(model=MODEL, target="int4_weights")
    scheme = TARGETS["int4_weights"].layer_scheme
    assert app.info[0].value == layer_page.no_channels_under(scheme)


@pytest.mark.slow
def test_without_an_address_the_layer_is_the_worst_one(seen, demo_store):
    app = seen(model=MODEL)
    assert name_on(app) == worst_layer(demo_store)
    assert "#1 of 10 by severity" in [text.value for text in app.markdown]


@pytest.mark.slow
def test_the_address_names_the_worst_layer_too(seen, demo_store):
    app = seen()
    model = app.selectbox("model").value
    worst = {"model": model, "layer": worst_layer(demo_store, model)}
    # Other defaults stay out of it.
    assert dict(app.query_params) == worst | {"target": "int8_tensor"}


@pytest.mark.slow
def test_an_unknown_layer_falls_back_to_the_worst_one_and_says_so(seen, demo_store):
    app = seen(model=MODEL, layer="<b>nope</b>")
    assert name_on(app) == worst_layer(demo_store)
    (warning,) = app.warning
    assert "has no layer named" in warning.value
    assert "<b>" not in warning.value


@pytest.mark.slow
def test_another_run_such_as_the_one_after_a_change_of_theme_still_says_so(page):
    assert run(page(model=MODEL, layer="<b>nope</b>")).warning


@pytest.mark.slow
def test_an_unknown_model_falls_back_and_says_so(seen):
    app = seen(model="nope", layer=LAYER)
    assert name_on(app)
    assert any("nope" in warning.value for warning in app.warning)


@pytest.mark.slow
def test_changing_the_model_leaves_a_layer_behind_that_it_does_not_have(page, demo_store):
    app = page(model=MODEL, layer=LAYER)
    app.selectbox("model").set_value("digits-plain")
    run(app)
    with store.reading(demo_store) as con:
        names = set(queries.worst_layers(con, "digits-plain", DEFAULT_SCHEME.name)["layer"])
    assert name_on(app) in names
    assert not app.warning


@pytest.mark.slow
def test_worse_and_better_walk_through_the_layers_by_damage(page):
    app = page(model=MODEL)
    first = name_on(app)
    assert not [button for button in app.button if button.key == "worse_layer"]
    app.button("better_layer").click()
    second = name_on(run(app))
    assert second != first
    app.button("worse_layer").click()
    assert name_on(run(app)) == first


@pytest.mark.slow
def test_every_layer_of_a_model_opens(page, demo_store):
    with store.reading(demo_store) as con:
        names = queries.worst_layers(con, "digits-plain", DEFAULT_SCHEME.name)["layer"].tolist()
    app = page(model="digits-plain")
    assert len(names) == 6
    for name in names[1:]:
        app.selectbox("layer").set_value(name)
        assert name_on(run(app)) == name


@pytest.mark.slow
def test_earlier_and_later_walk_through_the_network(page, demo_store):
    with store.reading(demo_store) as con:
        ranked = queries.worst_layers(con, MODEL, DEFAULT_SCHEME.name)
    by_depth = ranked.sort_values("depth")["layer"].tolist()
    app = page(model=MODEL, layer=by_depth[0])
    assert not [button for button in app.button if button.key == "earlier_layer"]
    app.button("later_layer").click()
    assert name_on(run(app)) == by_depth[1]
    assert "layer 2 of 10" in [text.value for text in app.markdown]


def test_the_settings_of_the_node_stand_beside_its_shape(page, monkeypatch):
    details = queries.layer_details
    monkeypatch.setattr(
        queries,
        "layer_details",
        lambda con, layer_id: {
            **details(con, layer_id),
            "attributes": '{"<b>":"<i>","strides":[2,2]}',
        },
    )
    shown = html_of(page(model=MODEL, layer=LAYER))
    assert " · stride 2 · &lt;b&gt; &lt;i&gt; · " in shown


# Its channels


@pytest.mark.slow
def test_a_stretch_in_the_address_shows_these_channels_and_the_button_all_again(page):
    app = page(model=MODEL, layer="/blocks/blocks.3/pointwise/conv/Conv", channels="8-23")
    assert app.slider[0].value == (8, 23)
    assert drawn_channels(app) == [*range(8, 24)]
    app.button("all_channels").click()
    assert len(drawn_channels(run(app))) == app.slider[0].max + 1
    assert "channels" not in app.query_params
    app.slider[0].set_value((0, 3))
    assert drawn_channels(run(app)) == [0, 1, 2, 3]
    assert app.query_params["channels"] == "0-3"
    # Another layer begins with all of its channels.
    app.button("later_layer").click()
    assert "channels" not in run(app).query_params


def drawn_channels(app):
    """The channels in the chart of boxes, as the browser gets it."""
    for dataset in app.get("vega_lite_chart")[0].proto.datasets:
        frame = pa.ipc.open_stream(dataset.data.data).read_pandas()
        if {"first", "q1"} <= set(frame):
            return frame["first"].tolist()
    return None


@pytest.mark.parametrize("text", ["", "nonsense", "5", "-3-4", "99999999999-2"])
def test_a_stretch_that_is_none_is_all_channels(text):
    assert channels.parse_stretch(text, 64) == (0, 63)


def test_a_stretch_ends_with_the_channels_that_there_are():
    assert channels.parse_stretch("60-500", 64) == (60, 63)
    assert channels.parse_stretch("9-3", 64) == (3, 9)


def test_the_table_of_channels_begins_with_the_worst(seen):
    table = table_of(seen(model=MODEL, layer=LAYER), "channel")
    reached = [row["cells"][1]["small"] for row in table["rows"]]
    decibels = [float(one.split("\u00a0")[0].replace(units.MINUS, "-")) for one in reached]
    assert len(decibels) == 10
    assert decibels == sorted(decibels)


@pytest.mark.slow
def test_the_table_of_channels_finds_a_channel(page):
    app = page(model=MODEL, layer=LAYER)
    app.text_input("channel").set_value("3-5")
    found = table_of(run(app), "channel")["rows"]
    assert {row["key"] for row in found} == {3, 4, 5}
    app.text_input("channel").set_value("the last")
    assert table_of(run(app), "channel") is None
    assert channels.what_a_channel_is(16) in [caption.value for caption in app.caption]


@pytest.mark.slow
def test_all_int8_schemes_show_the_sqnr_of_the_channels_one_below_the_other(seen):
    app = seen(model=MODEL, layer=LAYER, sqnr_under="all int8 schemes")
    assert len(app.get("vega_lite_chart")) == 8
    for scheme in INT8_SCHEMES.values():
        assert channels.scheme_heading(scheme.title) in html_of(app)


# What helps


@pytest.mark.slow
def test_the_table_begins_with_the_schemes_that_matter_and_shows_all_on_demand(page):
    app = page(model=MODEL)
    assert list(rescue(app)) == [
        *(scheme.title for scheme in INT8_SCHEMES.values()),
        "int8 per tensor, symmetric, clipped (MSE)",
        "int8 per block of 32, symmetric",
        "fp8 E4M3 per channel",
        "int4 per channel, symmetric",
        "int4 per block of 32, symmetric",
    ]
    app.button("show_schemes").click()
    everything = rescue(run(app))
    assert list(everything) == [scheme.title for scheme in SCHEMES.values()]
    assert not [button for button in app.button if button.key == "show_schemes"]
    # Only schemes that are kept channel by channel have a spark.
    assert {title for title, cells in everything.items() if cells[2]} == {
        scheme.title for scheme in INT8_SCHEMES.values()
    }


@every_scale
def test_a_gain_is_over_the_default_scheme_whichever_is_chosen(seen, demo_store, target):
    app = seen(model=MODEL, layer=LAYER, target=target)
    gains = {title: cells[4]["text"] for title, cells in rescue(app).items()}
    with store.reading(demo_store) as con:
        ranked = queries.worst_layers(con, MODEL, DEFAULT_SCHEME.name)
        layer_id = int(ranked.set_index("layer").loc[LAYER, "layer_id"])
        reached = queries.layer_schemes(con, layer_id).set_index("scheme")["channel_sqnr_p10_db"]
    assert len(gains) == 9
    assert gains.pop(DEFAULT_SCHEME.title) == ""
    for name, value in reached.items():
        if (title := SCHEMES[name].title) in gains:
            over = value - reached[DEFAULT_SCHEME.name]
            assert gains.pop(title) == units.db(over, signed=True)
    assert not gains


def test_the_head_of_the_gains_says_what_they_are_over(seen):
    table = table_of(seen(model=MODEL), "scheme")
    assert "gain over int8 per tensor, symmetric" in [one["title"] for one in table["columns"]]


def test_bits_needed_stand_there_with_what_fine_means(seen):
    text = html_of(seen(model=MODEL))
    assert "To be fine, the layer needs " in text
    assert remedies.WHAT_FINE_IS in text


def curves_of(**sqnr_by_measure):
    """Curves over the thresholds 5, 50 and 100 %; the best is the highest, None is exact."""
    rows = []
    for name, values in sqnr_by_measure.items():
        bits, measure = (4, "tensor") if name == "int4" else (8, name)
        best = max(values, key=lambda value: math.inf if value is None else value)
        rows += [
            (bits, measure, threshold, value, place == values.index(best))
            for place, (threshold, value) in enumerate(zip((0.05, 0.5, 1.0), values, strict=True))
        ]
    columns = ["bits", "measure", "threshold", "sqnr_db", "is_best"]
    return pd.DataFrame(rows, columns=columns).astype({"sqnr_db": float})


@pytest.mark.parametrize(
    ("curves", "said"),
    [
        (
            curves_of(tensor=[1.5, 9, 23], channel_p10=[20.9, 10, 0.6], channel_median=[31, 20, 9]),
            "Best for 90 % of channels: 5 % of the largest weight or less, 20.9 dB."
            " At that threshold the whole tensor falls to 1.5 dB.",
        ),
        (
            curves_of(
                tensor=[1, 20.8, 40], channel_p10=[1, 12.8, 12.2], channel_median=[2, 20, 40]
            ),
            "Clipping hardly helps. Best for 90 % of channels: 50 % of the largest weight,"
            " 12.8 dB instead of 12.2 dB. At that threshold the whole tensor falls to 20.8 dB.",
        ),
        (
            curves_of(tensor=[1, 20, 40], channel_p10=[1, 12, 20], channel_median=[2, 20, 40]),
            clipping.CLIPPING_DOES_NOT_HELP,
        ),
        (
            curves_of(tensor=[1, 20, None], int4=[1, 10, 15]),
            clipping.CLIPPING_DOES_NOT_HELP,
        ),
        (
            curves_of(tensor=[1, 20, 40], int4=[1, 18, 15]),
            "Clipping does not help int8: the best threshold is the largest weight itself."
            " Clipping helps int4: best at 50 % of the largest weight, 18.0 dB instead of 15.0 dB.",
        ),
    ],
)
def test_the_section_on_clipping_begins_with_its_finding(curves, said):
    app = section(clipping.section, curves, 3)
    assert said in [text.value.replace("\u00a0", " ") for text in app.markdown]


@pytest.mark.slow
def test_the_stored_curves_have_one_best_threshold_each(demo_store):
    with store.reading(demo_store) as con:
        for layer_id in queries.worst_layers(con, MODEL, DEFAULT_SCHEME.name)["layer_id"]:
            curves = queries.layer_clipping(con, int(layer_id))
            assert {8, 4} == set(curves["bits"])
            for _, curve in curves.groupby(["bits", "measure"]):
                (best,) = curve.loc[curve["is_best"], "sqnr_db"].fillna(math.inf)
                assert best == curve["sqnr_db"].fillna(math.inf).max()
                assert curve["threshold"].is_monotonic_increasing
                assert curve["threshold"].is_unique
            needed = queries.layer_bits_needed(con, int(layer_id))
            assert set(needed) == {"tensor", "channel", "block"}


def test_curves_of_the_channels_pass_through_the_threshold_of_least_squared_error(demo_store):
    with store.reading(demo_store) as con:
        ((layer_id, threshold),) = con.rows(
            """
            select layer_id, tensor.best_threshold
            from clipping as tensor
            join clipping as channels using (layer_id, bits)
            where tensor.measure = 'tensor' and channels.measure = 'channel_p10'
                and tensor.best_threshold < 1
            order by layer_id
            limit 1
            """
        )
        curves = queries.layer_clipping(con, layer_id)
        clipped = queries.layer_schemes(con, layer_id).set_index("scheme")
    here = curves[(curves["threshold"] == threshold) & (curves["measure"] == "channel_p10")]
    assert here["sqnr_db"].tolist() == [
        clipped.loc["int8_tensor_symmetric_mse", "channel_sqnr_p10_db"]
    ]


def test_a_layer_without_a_curve_has_no_section_on_clipping():
    assert section(clipping.section, curves_of(tensor=[1, 2, 3]), 3).header
    assert not section(clipping.section, curves_of(tensor=[1, 2, 3]).head(0), 3).header


# What equalization could give


def band_of(value):
    limits = (("broken", 10), ("at risk", 20), ("watch", 30), ("fine", math.inf))
    return next(band for band, limit in limits if value is None or value < limit or band == "fine")


def neighbour(before, after, *, name="next", is_before=False, own=(35.0, 35.0)):
    """One neighbour as the store gives it; ``own`` is what it would have of sharing scale."""
    figures = {
        "before_db": before,
        "after_db": after,
        "partner_before_db": own[0],
        "partner_after_db": own[1],
    }
    names = ("band", "band_after", "partner_band", "partner_band_after")
    bands = dict(
        zip(names, ("fine" if v is None else band_of(v) for v in figures.values()), strict=True)
    )
    return {"partner_layer_id": 7, "partner": name, "is_before": is_before, **figures, **bands}


def equalization_of(*neighbours, open_layer=None, **details):
    """The section for a layer with these neighbours."""
    plain = {"already_quantized": False, "op_type": "Conv", "operand": "W"}
    details = {**plain, "is_depthwise": False, **details}
    frame = pd.DataFrame(neighbours, columns=None if neighbours else ["partner_layer_id"])
    return section(equalization.section, frame, details, open_layer)


@pytest.mark.parametrize(
    ("neighbours", "said"),
    [
        (
            [neighbour(6.1, 14.3)],
            r"Rescaling with **next**, the layer after, would lift 90 % of channels from"
            " 6.1 dB to 14.3 dB: **+8.2 dB**. The layer would be at risk.",
        ),
        (
            [neighbour(6.1, 9.3)],
            r"Rescaling with **next**, the layer after, would lift 90 % of channels from"
            " 6.1 dB to 9.3 dB: **+3.2 dB**. The layer would still be broken.",
        ),
        (
            [neighbour(14.0, 22.0)],
            r"Rescaling with **next**, the layer after, would lift 90 % of channels from"
            " 14.0 dB to 22.0 dB: **+8.0 dB**. The layer would be rated watch.",
        ),
        (
            [
                neighbour(11.9, 32.0, name="Conv_1", is_before=True),
                neighbour(11.9, 29.2, name="Conv_5"),
            ],
            r"Rescaling with **Conv\_1**, the layer before, would lift 90 % of channels from"
            " 11.9 dB to 32.0 dB: **+20.1 dB**, enough to be fine."
            r" With **Conv\_5**, the layer after, they would reach 29.2 dB.",
        ),
        (
            [neighbour(33.0, 36.0, own=(33.1, 30.4))],
            "The layer is fine as it is; rescaling with **next**, the layer after, would lift 90 %"
            " of channels from 33.0 dB to 36.0 dB: **+3.0 dB**."
            " **next** itself would fall from 33.1 dB to 30.4 dB.",
        ),
        (
            [neighbour(12.0, 12.4)],
            "Hardly anything: rescaling with **next**, the layer after, would take 90 % of"
            " channels from 12.0 dB to 12.4 dB: **+0.4 dB**.",
        ),
        (
            [neighbour(28.4, 23.8)],
            "Nothing to gain: rescaling with **next**, the layer after, would lower 90 %"
            f" of channels from 28.4 dB to 23.8 dB: **{units.MINUS}4.6 dB**.",
        ),
        (
            [neighbour(None, 40.0)],
            equalization.EXACT_ALREADY,
        ),
        (
            [neighbour(20.0, None), neighbour(20.0, None, name="b", is_before=True)],
            "Rescaling with **next**, the layer after, would make 90 % of channels exact;"
            " now they reach 20.0 dB. With **b**, the layer before, they would be exact.",
        ),
        (
            [neighbour(20.0, 25.0, own=(None, 40.0))],
            "Rescaling with **next**, the layer after, would lift 90 % of channels from"
            " 20.0 dB to 25.0 dB: **+5.0 dB**. The layer would still be rated watch."
            " **next** itself would fall from exact to 40.0 dB.",
        ),
    ],
)
def test_the_section_on_equalization_begins_with_its_finding(neighbours, said):
    app = equalization_of(*neighbours)
    assert said in [text.value.replace("\u00a0", " ") for text in app.markdown]
    captions = " ".join(caption.value for caption in app.caption)
    assert equalization.FORECAST in captions
    assert (equalization.GAINS_DO_NOT_ADD_UP in captions) == (len(neighbours) > 1)


def test_the_name_of_a_neighbour_shows_as_itself():
    evil = "<img src=x> **bold** [a](http://b)"
    app = equalization_of(neighbour(6.0, 16.0, name=evil, own=(30.0, 20.0)))
    (said,) = [text.value for text in app.markdown if text.value.startswith("Rescaling with")]
    assert said.count(f"**{text_words.markdown(evil)}**") == 2
    (row,) = table_of(app, equalization.NEIGHBOUR)["rows"]
    assert row["cells"][0] == {"text": evil, "small": "the layer after"}


@pytest.mark.slow
def test_a_neighbour_opens_its_layer(page, demo_store, monkeypatch):
    with store.reading(demo_store) as con:
        ((layer, partner_id, partner),) = con.rows(
            """
            select own.layer, partner_layer_id, partners.layer
            from equalization
            join model_layers as own using (layer_id)
            join model_layers as partners on partners.layer_id = partner_layer_id
            where own.model = 'digits-rescaled'
            order by own.depth, partners.depth
            limit 1
            """
        )
    opened = []
    monkeypatch.setattr(address, "choose", lambda key, value: opened.append((key, value)))
    clicks = []
    plain_table = components.table

    def table(**arguments):
        clicks.append((arguments["key"], arguments.get("on_click")))
        return plain_table(**arguments)

    monkeypatch.setattr(components, "table", table)
    rows = table_of(page(model=MODEL, layer=layer), equalization.NEIGHBOUR)["rows"]
    assert str(partner_id) in [row["key"] for row in rows]
    assert partner in [row["cells"][0]["text"] for row in rows]
    (clicked,) = [on_click for key, on_click in clicks if key == "neighbours"]
    monkeypatch.setattr(
        st, "session_state", {"neighbours": SimpleNamespace(clicked={"row": str(partner_id)})}
    )
    clicked()
    assert opened == [("layer", partner)]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, equalization.NO_NEIGHBOUR),
        ({"already_quantized": True}, equalization.STORED_AS_INTEGERS),
        ({"op_type": "MatMul"}, equalization.not_paired("W", "MatMul")),
        ({"op_type": "Gemm", "operand": "A"}, equalization.not_paired("A", "Gemm")),
    ],
)
def test_without_a_neighbour_the_page_says_why_that_may_be(changed, said):
    app = equalization_of(**changed)
    assert said in [text.value for text in app.markdown]
    captions = " ".join(caption.value for caption in app.caption)
    assert equalization.WHAT_PASSES in captions
    assert table_of(app, equalization.NEIGHBOUR) is None
