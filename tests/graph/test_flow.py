"""What flows between the layers of a graph: points, edges, and nothing that explodes."""

import json

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from quantstore.graph import find_sites, flow, flow_of, open_model
from quantstore.pipeline.files import demo_paths
from tests.support.graphs import float_value, gaussian, make_model, node, save


def conv(source, target, name):
    return node("Conv", [source, f"w_{name}"], [target], name)


def weights(*names):
    return {f"w_{name}": gaussian(4, 4, 1, 1, seed=seed) for seed, name in enumerate(names)}


def flow_in(model, path):
    file = open_model(save(model, path / "m.onnx"))
    return flow_of(file, find_sites(file))


def drawn(model, path):
    """Edges by the names of what they connect; the input is x, the output OUT."""
    picture = flow_in(model, path)
    names = [point.name if point.role != "output" else "OUT" for point in picture.points]
    return {
        (names[edge.source_point], names[edge.target_point]): json.loads(edge.operators)
        for edge in picture.edges
    }


def test_a_chain_tells_what_lies_between_its_layers(tmp_path):
    nodes = [
        conv("x", "a", "one"),
        node("Relu", ["a"], ["b"], "r"),
        node("MaxPool", ["b"], ["c"], "p", kernel_shape=[1, 1]),
        conv("c", "d", "two"),
        node("Sigmoid", ["d"], ["y"], "s"),
    ]
    assert drawn(make_model(nodes, weights("one", "two")), tmp_path) == {
        ("x", "one"): {},
        ("one", "two"): {"Relu": 1, "MaxPool": 1},
        ("two", "OUT"): {"Sigmoid": 1},
    }


def test_branches_join_in_a_point_of_their_own(tmp_path):
    nodes = [
        conv("x", "a", "one"),
        node("Relu", ["a"], ["b"], "r"),
        conv("b", "c", "two"),
        node("Add", ["b", "c"], ["d"], "residual"),
        conv("d", "y", "three"),
    ]
    assert drawn(make_model(nodes, weights("one", "two", "three")), tmp_path) == {
        ("x", "one"): {},
        ("one", "two"): {"Relu": 1},
        ("one", "residual"): {"Relu": 1},
        ("two", "residual"): {},
        ("residual", "three"): {},
        ("three", "OUT"): {},
    }


def test_paths_from_one_layer_to_the_next_are_one_edge(tmp_path):
    nodes = [
        conv("x", "a", "one"),
        node("Sigmoid", ["a"], ["b"], "s"),
        node("Mul", ["a", "b"], ["c"], "m"),
        conv("c", "y", "two"),
    ]
    edges = drawn(make_model(nodes, weights("one", "two")), tmp_path)
    assert edges["one", "two"] == {"Sigmoid": 1, "Mul": 1}
    assert len(edges) == 3


def test_the_size_of_a_tensor_is_no_flow(tmp_path):
    nodes = [
        conv("x", "a", "one"),
        conv("a", "b", "two"),
        node("Shape", ["a"], ["size"], "shape"),
        node("Reshape", ["b", "size"], ["c"], "reshape"),
        conv("c", "y", "three"),
    ]
    edges = drawn(make_model(nodes, weights("one", "two", "three")), tmp_path)
    assert edges["two", "three"] == {"Reshape": 1}
    assert ("one", "three") not in edges


def test_the_scale_of_a_dynamically_quantized_input_is_no_flow(tmp_path):
    codes = (gaussian(4, 4, 1, 1) * 50).astype("int8")
    nodes = [
        conv("x", "a", "one"),
        node("DynamicQuantizeLinear", ["a"], ["q", "scale", "zero"], "dynamic"),
        node("ConvInteger", ["q", "codes", "zero"], ["i"], "two"),
        node("Cast", ["i"], ["f"], "cast", to=TensorProto.FLOAT),
        node("Mul", ["scale", "w_scale"], ["both"], "scales"),
        node("Mul", ["f", "both"], ["y"], "rescale"),
    ]
    stored = weights("one") | {"codes": codes, "w_scale": np.float32(0.02)}
    edges = drawn(make_model(nodes, stored), tmp_path)
    assert edges["one", "two"] == {"DynamicQuantizeLinear": 1}
    assert edges["two", "OUT"] == {"Cast": 1, "Mul": 1}
    assert len(edges) == 3


def test_what_no_layer_follows_is_part_of_the_output(tmp_path):
    nodes = [
        conv("x", "a", "one"),
        conv("a", "b", "two"),
        node("Concat", ["a", "b"], ["c"], "heads", axis=1),
        node("Relu", ["c"], ["y"], "r"),
        # It leads nowhere.
        node("Add", ["a", "b"], ["unused"], "dead"),
    ]
    assert drawn(make_model(nodes, weights("one", "two")), tmp_path) == {
        ("x", "one"): {},
        ("one", "two"): {},
        ("one", "OUT"): {"Concat": 1},
        ("two", "OUT"): {"Concat": 1},
    }


def test_both_branches_of_an_if_stand_between_what_is_around_it(tmp_path):
    def body(name):
        result = f"{name}_y"
        return helper.make_graph([conv("a", result, name)], name, [], [float_value(result)])

    nodes = [
        conv("x", "a", "one"),
        node("If", ["condition"], ["b"], "if", then_branch=body("yes"), else_branch=body("no")),
        conv("b", "y", "last"),
    ]
    model = make_model(nodes, weights("one", "yes", "no", "last"))
    model.graph.input.append(helper.make_tensor_value_info("condition", TensorProto.BOOL, []))
    assert drawn(model, tmp_path) == {
        ("x", "one"): {},
        ("one", "if/then_branch/yes"): {},
        ("one", "if/else_branch/no"): {},
        ("if/then_branch/yes", "if"): {},
        ("if/else_branch/no", "if"): {},
        ("if", "last"): {},
        ("last", "OUT"): {},
    }


def test_a_loop_hands_its_inputs_to_its_body_and_its_results_on(tmp_path):
    body = helper.make_graph(
        [conv("state", "inner", "inside"), node("Identity", ["go"], ["go_on"], "i")],
        "body",
        [
            helper.make_tensor_value_info("count", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            float_value("state"),
        ],
        [helper.make_tensor_value_info("go_on", TensorProto.BOOL, []), float_value("inner")],
    )
    nodes = [
        conv("x", "a", "one"),
        node("Loop", ["trips", "", "a"], ["b"], "loop", body=body),
        conv("b", "y", "last"),
    ]
    model = make_model(nodes, weights("one", "inside", "last"))
    model.graph.initializer.append(numpy_helper.from_array(_int64(3), "trips"))
    edges = drawn(model, tmp_path)
    assert set(edges) == {
        ("x", "one"),
        ("one", "loop/body/inside"),
        ("loop/body/inside", "last"),
        ("last", "OUT"),
    }
    assert edges["loop/body/inside", "last"] == {"Loop": 1}


def _int64(value):
    return np.array(value, dtype=np.int64)


def test_points_are_numbered_so_that_sources_come_first():
    for path in demo_paths():
        file = open_model(path)
        sites = find_sites(file)
        picture = flow_of(file, sites)
        assert [point.point for point in picture.points] == list(range(len(picture.points)))
        assert all(edge.source_point < edge.target_point for edge in picture.edges)
        assert {point.depth for point in picture.points if point.role == "layer"} == set(
            range(len(sites))
        )


# --- hostile graphs -----------------------------------------------------------------------------


def residual_chain(length):
    """Every layer's result reaches every later layer: layer to layer that were n² / 2 edges."""
    nodes = [conv("x", "r0", "first")]
    for number in range(length):
        nodes.append(node("Conv", [f"r{number}", "w_first"], [f"f{number}"], f"conv{number}"))
        nodes.append(node("Add", [f"r{number}", f"f{number}"], [f"r{number + 1}"], f"add{number}"))
    nodes.append(node("Conv", [f"r{length}", "w_first"], ["y"], "last"))
    return make_model(nodes, weights("first"))


def test_edges_grow_with_the_nodes_and_not_with_their_square(tmp_path):
    picture = flow_in(residual_chain(1000), tmp_path)
    # Two edges of each Add, one of each Conv, and the output.
    assert len(picture.edges) == 2 * 1000 + 1002 + 1


def test_doubling_again_and_again_counts_each_operator_once_a_step(tmp_path):
    nodes = [conv("x", "v0", "one")]
    nodes += [node("Add", [f"v{i}", f"v{i}"], [f"v{i + 1}"], f"add{i}") for i in range(3000)]
    nodes += [conv("v3000", "y", "two")]
    assert drawn(make_model(nodes, weights("one", "two")), tmp_path)["one", "two"] == {"Add": 3000}


def test_an_edge_names_a_few_operators_and_counts_the_others(tmp_path):
    nodes = [conv("x", "v0", "one")]
    nodes += [
        node(f"Op{i}", [f"v{i}"], [f"v{i + 1}"], f"n{i}", domain="local") for i in range(1000)
    ]
    nodes += [conv("v1000", "y", "two")]
    passed = drawn(make_model(nodes, weights("one", "two")), tmp_path)["one", "two"]
    assert len(passed) == flow.MOST_OPERATORS + 1
    assert sum(passed.values()) == 1000


@pytest.mark.parametrize("limit", ["MOST_POINTS", "MOST_EDGES"])
def test_of_a_graph_beyond_the_limits_the_layers_alone_are_left(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(flow, limit, 50)
    picture = flow_in(residual_chain(100), tmp_path)
    assert not picture.edges
    assert [point.depth for point in picture.points] == list(range(102))
    assert {point.role for point in picture.points} == {"layer"}


def test_a_name_as_long_as_the_file_is_cut_off(tmp_path):
    nodes = [
        conv("x", "a", "one"),
        conv("a", "b", "two"),
        node("Add", ["a", "b"], ["c"], "n" * 100_000),
        conv("c", "y", "three"),
    ]
    picture = flow_in(make_model(nodes, weights("one", "two", "three")), tmp_path)
    (join,) = [point for point in picture.points if point.role == "join"]
    assert len(join.name) == flow.MOST_CHARACTERS
