"""What is known of the nodes, as Model Explorer and Netron read it."""

import json
import math

import numpy as np
import onnx
import pytest

from quantstore.errors import ModelFileError
from quantstore.rescuing import overlay
from quantstore.rescuing.overlay import BandScale, NodeFacts, Original
from quantstore.run.runtime import Session
from tests.support.graphs import float_value, gaussian, make_model, move_outside, node, save

LIMITS = {"broken": -math.inf, "at risk": 10.0, "watch": 20.0, "fine": 30.0}
FILLS = {"broken": "#000001", "at risk": "#000002", "watch": "#000003", "fine": "#000004"}
SCALE = BandScale(LIMITS, FILLS)
ODD = 'a "b"\n#é'

FACTS = (
    NodeFacts(
        node=ODD,
        band="broken",
        sensitivity_db=12.345,
        accumulated_db=math.inf,
        local_db=-math.inf,
        remedy="best: per channel, +40 dB",
    ),
    NodeFacts(node="h", band="fine", remedy="fine as it is"),
    NodeFacts(node="If_0/then/conv", band="broken"),
)


def small_model(ir_version=8):
    """Two convolutions, the second without a name."""
    model = make_model(
        [node("Conv", ["x", "w"], ["h0"], ODD), node("Conv", ["h0", "v"], ["h"], "")],
        {"w": gaussian(4, 3, 3, 3), "v": gaussian(2, 4, 1, 1)},
        outputs=("h",),
        ir_version=ir_version,
    )
    model.graph.input[0].CopyFrom(float_value("x", [1, 3, 8, 8]))
    model.graph.output[0].CopyFrom(float_value("h", [1, 2, 6, 6]))
    return model


ORIGINAL = Original(small_model())


def data_of(metric, original=ORIGINAL, facts=FACTS):
    return json.loads(overlay.node_data(facts, metric, SCALE, original))


def properties_of(model):
    return [{entry.key: entry.value for entry in one.metadata_props} for one in model.graph.node]


# Model Explorer


def test_keys_are_the_graph_and_names_of_its_nodes():
    assert data_of("band") == {
        "test": {
            "name": "quantstore: Band of the weights",
            "results": {ODD: {"value": "broken", "bgColor": "#000001"}},
        }
    }


def test_without_the_file_the_data_is_of_whichever_graph_is_shown():
    assert list(data_of("band", None)["results"]) == [ODD, "h", "If_0/then/conv"]


def test_a_value_has_the_colour_of_its_band_and_thresholds_those_of_all():
    data = data_of("sensitivity")["test"]
    assert data["results"] == {ODD: {"value": 12.35, "bgColor": "#000002"}}
    # The last value of each, for what is beyond is not coloured.
    assert data["thresholds"] == [
        {"value": 10.0, "bgColor": "#000001"},
        {"value": 20.0, "bgColor": "#000002"},
        {"value": 30.0, "bgColor": "#000003"},
        {"value": overlay.EXACT_DB, "bgColor": "#000004"},
    ]


def test_json_knows_no_infinity():
    exact, noise = (data_of(metric)["test"]["results"][ODD] for metric in ("accumulated", "local"))
    assert exact == {"value": overlay.EXACT_DB, "bgColor": "#000004"}
    assert noise == {"value": -overlay.EXACT_DB, "bgColor": "#000001"}


def test_a_remedy_has_the_colour_of_its_layer():
    assert data_of("remedy")["test"]["results"][ODD] == {
        "value": "best: per channel, +40 dB",
        "bgColor": "#000001",
    }


def test_what_is_not_known_is_no_metric():
    assert overlay.known_metrics(FACTS) == tuple(overlay.METRICS)
    assert overlay.known_metrics(FACTS[1:]) == ("band", "remedy")


def test_nodes_that_have_no_name_in_the_graph_are_counted():
    assert ORIGINAL.unplaced(FACTS) == ("h", "If_0/then/conv")


# Netron


def test_an_annotated_model_says_of_its_nodes_what_is_known():
    first, second = properties_of(overlay.annotated(ORIGINAL, FACTS))
    assert first == {
        "quantstore.band": "broken",
        "quantstore.sensitivity_db": "12.3",
        "quantstore.accumulated_db": "exact",
        "quantstore.local_db": "-inf",
        "quantstore.remedy": "best: per channel, +40 dB",
    }
    # An unnamed node is called as its first output.
    assert second == {"quantstore.band": "fine", "quantstore.remedy": "fine as it is"}


def test_annotating_again_leaves_one_set_of_properties_and_those_of_others():
    again = small_model()
    again.graph.node[0].metadata_props.add(key="namespace", value="mine")
    for _ in range(2):
        again = overlay.annotated(Original(again), FACTS[:1])
    keys = [entry.key for entry in again.graph.node[0].metadata_props]
    assert sorted(keys) == sorted({*keys})
    assert "namespace" in keys


@pytest.mark.parametrize("ir_version", [3, 4, 8, 10])
def test_everything_else_stays_as_it_is(ir_version):
    model = small_model(ir_version)
    if ir_version == 3:
        model.graph.input.append(float_value("w", [4, 3, 3, 3]))
        model.graph.input.append(float_value("v", [2, 4, 1, 1]))
    annotated = overlay.annotated(Original(model), FACTS)
    onnx.checker.check_model(annotated, full_check=True)
    sample = {"x": gaussian(1, 3, 8, 8)}
    (expected,), (actual,) = (Session(one).run(sample) for one in (model, annotated))
    np.testing.assert_array_equal(actual, expected)
    for one in annotated.graph.node:
        del one.metadata_props[:]
    assert annotated.SerializeToString() == model.SerializeToString()


def test_external_data_is_neither_read_nor_moved(tmp_path):
    model = small_model()
    expected = Session(model).run({"x": gaussian(1, 3, 8, 8)})[0]
    move_outside(model.graph.initializer[0], tmp_path / "weights.bin")
    original = overlay.open_original(save(model, tmp_path / "model.onnx"))
    assert original.has_external_data
    written = save(overlay.annotated(original, FACTS), tmp_path / "annotated.onnx")
    np.testing.assert_array_equal(Session(written).run({"x": gaussian(1, 3, 8, 8)})[0], expected)


def test_a_file_that_is_gone_is_told(tmp_path):
    with pytest.raises(ModelFileError, match=r"net\.onnx: changed while it was read"):
        overlay.open_original(tmp_path / "net.onnx")


def test_what_reads_a_tensor_is_found():
    assert overlay.readers(ORIGINAL, ["x", "unheard of"]) == (ODD,)
