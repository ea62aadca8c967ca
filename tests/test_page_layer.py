"""The Layer page: what an address shows, and what it says where the address is wrong."""

import json
import math
import re
from pathlib import Path

import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from quantstore import queries, store, words
from quantstore.schemes import DEFAULT_SCHEME, INT8_SCHEMES, SCHEMES

ROOT = Path(__file__).resolve().parent.parent
MODEL = "digits-rescaled"
LAYER = "/stem/conv/Conv"


@pytest.fixture
def page(monkeypatch, demo_store):
    monkeypatch.setenv("QUANTSTORE_DB", str(demo_store))

    def open_page(**address):
        app = AppTest.from_file(ROOT / "app.py", default_timeout=30)
        for key, value in address.items():
            app.query_params[key] = value
        app.switch_page("quantstore/pages/layer.py")
        return run(app)

    return open_page


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


def rescue(app):
    """The rows of the table of schemes: by title, their cells."""
    for component in app.get("bidi_component"):
        data = json.loads(component.proto.json)
        if data and "columns" in data and data["columns"][0]["title"] == "scheme":
            return {row["cells"][0]["text"]: row["cells"] for row in data["rows"]}
    raise AssertionError("no table of schemes")


def worst_layer(demo_store, model=MODEL):
    with store.reading(demo_store) as con:
        return queries.worst_layers(con, model, DEFAULT_SCHEME.name).iloc[0]["layer"]


@pytest.mark.parametrize("scheme", INT8_SCHEMES)
def test_an_address_restores_the_layer_and_the_scheme(page, scheme):
    app = page(model=MODEL, layer=LAYER, scheme=scheme)
    assert name_on(app) == LAYER
    assert f"under {SCHEMES[scheme].title}" in html_of(app)
    assert len(app.get("vega_lite_chart")) == 5
    assert not app.warning


def test_sections_follow_the_scheme(page):
    shared = [header.value for header in page(model=MODEL, layer=LAYER).header]
    own = page(model=MODEL, layer=LAYER, scheme="int8_channel_symmetric").header
    assert shared == [
        "Channels",
        "How many codes the weights get",
        "What would rescue it",
        "Does clipping help?",
    ]
    assert [header.value for header in own][1] == "How the weights are distributed"


def test_without_an_address_the_layer_is_the_worst_one(page, demo_store):
    app = page(model=MODEL)
    assert name_on(app) == worst_layer(demo_store)
    assert "1 of 10 by damage" in [text.value for text in app.markdown]


def test_an_unknown_layer_falls_back_to_the_worst_one_and_says_so(page, demo_store):
    app = page(model=MODEL, layer="<b>nope</b>")
    assert name_on(app) == worst_layer(demo_store)
    (warning,) = app.warning
    assert "has no layer named" in warning.value
    assert "<b>" not in warning.value
    # Another run, such as the one after a change of theme, still says so.
    assert run(app).warning


def test_an_unknown_model_falls_back_and_says_so(page):
    app = page(model="nope", layer=LAYER)
    assert name_on(app)
    assert any("nope" in warning.value for warning in app.warning)


def test_changing_the_model_leaves_a_layer_behind_that_it_does_not_have(page, demo_store):
    app = page(model=MODEL, layer=LAYER)
    app.selectbox("model").set_value("digits-plain")
    run(app)
    with store.reading(demo_store) as con:
        names = set(queries.worst_layers(con, "digits-plain", DEFAULT_SCHEME.name)["layer"])
    assert name_on(app) in names
    assert not app.warning


def test_worse_and_better_walk_through_the_layers_by_damage(page):
    app = page(model=MODEL)
    first = name_on(app)
    assert not [button for button in app.button if button.key == "worse_layer"]
    app.button("better_layer").click()
    second = name_on(run(app))
    assert second != first
    app.button("worse_layer").click()
    assert name_on(run(app)) == first


def test_every_layer_of_a_model_opens(page, demo_store):
    with store.reading(demo_store) as con:
        names = queries.worst_layers(con, MODEL, DEFAULT_SCHEME.name)["layer"].tolist()
    app = page(model=MODEL)
    for name in names:
        app.selectbox("layer").set_value(name)
        assert name_on(run(app)) == name


# What helps


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
    assert list(rescue(run(app))) == [scheme.title for scheme in SCHEMES.values()]
    assert not [button for button in app.button if button.key == "show_schemes"]


def test_only_schemes_kept_channel_by_channel_have_a_spark(page):
    app = page(model=MODEL)
    app.button("show_schemes").click()
    sparks = {title: cells[2] for title, cells in rescue(run(app)).items()}
    assert {title for title, spark in sparks.items() if spark} == {
        scheme.title for scheme in INT8_SCHEMES.values()
    }


def test_a_gain_is_over_int8_per_tensor(page, demo_store):
    app = page(model=MODEL, layer=LAYER)
    app.button("show_schemes").click()
    gains = {title: cells[4]["text"] for title, cells in rescue(run(app)).items()}
    with store.reading(demo_store) as con:
        ranked = queries.worst_layers(con, MODEL, DEFAULT_SCHEME.name)
        layer_id = int(ranked.set_index("layer").loc[LAYER, "layer_id"])
        reached = queries.layer_schemes(con, layer_id).set_index("scheme")["channel_sqnr_p10_db"]

    def gain(scheme, base):
        return words.db(reached[scheme] - reached[base], signed=True)

    assert gains[SCHEMES["int8_tensor_symmetric"].title] == ""
    for scheme, base in {
        "int8_tensor_asymmetric": "int8_tensor_symmetric",
        "int8_channel_asymmetric": "int8_tensor_asymmetric",
        "int4_channel_symmetric": "int8_tensor_symmetric",
        "fp8_e4m3_channel": "int8_tensor_symmetric",
        "int2_block32_asymmetric": "int8_tensor_symmetric",
    }.items():
        assert gains[SCHEMES[scheme].title] == gain(scheme, base)


@pytest.mark.parametrize(
    ("bits", "said"),
    [
        (
            {"tensor": 13, "channel": 7, "block": 6},
            "Fine from 13 bits per tensor, 7 per channel, 6 in blocks of 32 on.",
        ),
        (
            {"tensor": None, "channel": 7, "block": 6},
            "Fine from 7 bits per channel, 6 in blocks of 32 on; not even with 16 bits per tensor.",
        ),
        (
            {"tensor": None, "channel": None, "block": None},
            "Not fine even with 16 bits per tensor, per channel or in blocks of 32.",
        ),
    ],
)
def test_bits_needed_are_said_with_what_fine_means(page, monkeypatch, bits, said):
    monkeypatch.setattr(queries, "layer_bits_needed", lambda con, layer_id: bits)
    text = html_of(page(model=MODEL)).replace("\u00a0", " ")
    assert said in text
    assert "nine in ten channels reach 30 dB" in text


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
            "Best for nine in ten channels: 5 % of the largest weight or less, 20.9 dB;"
            " there the whole tensor falls to 1.5 dB.",
        ),
        (
            curves_of(
                tensor=[1, 20.8, 40], channel_p10=[1, 12.8, 12.2], channel_median=[2, 20, 40]
            ),
            "Clipping hardly helps. Best for nine in ten channels: 50 % of the largest weight,"
            " 12.8 dB instead of 12.2 dB; there the whole tensor falls to 20.8 dB.",
        ),
        (
            curves_of(tensor=[1, 20, 40], channel_p10=[1, 12, 20], channel_median=[2, 20, 40]),
            "Clipping does not help: the best threshold is the largest weight itself.",
        ),
        (
            curves_of(tensor=[1, 20, None], int4=[1, 10, 15]),
            "Clipping does not help: the best threshold is the largest weight itself.",
        ),
        (
            curves_of(tensor=[1, 20, 40], int4=[1, 18, 15]),
            "Clipping does not help int8: the best threshold is the largest weight itself."
            " Clipping helps int4: best at 50 % of the largest weight, 18.0 dB instead of 15.0 dB.",
        ),
    ],
)
def test_the_section_on_clipping_begins_with_its_finding(page, monkeypatch, curves, said):
    monkeypatch.setattr(queries, "layer_clipping", lambda con, layer_id: curves)
    app = page(model=MODEL)
    assert said in [text.value.replace("\u00a0", " ") for text in app.markdown]


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


def test_a_layer_without_a_curve_has_no_section_on_clipping(page, monkeypatch):
    none = curves_of(tensor=[1, 2, 3]).head(0)
    monkeypatch.setattr(queries, "layer_clipping", lambda con, layer_id: none)
    app = page(model=MODEL)
    assert "Does clipping help?" not in [header.value for header in app.header]
