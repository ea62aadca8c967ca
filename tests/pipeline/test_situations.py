"""Networks as people met them: what a person reads once the file is in the store.

Each model rebuilds a situation that somebody described in public. What single modules make of such
networks is specified where they are; here a file goes in and a verdict comes out.
"""

import numpy as np
import pytest
from onnx import TensorProto, helper

from quantstore import queries, store
from quantstore.pipeline import runs
from quantstore.pipeline.ingest import ingest_file
from quantstore.pipeline.probes import probe_model
from quantstore.run.choices import Choices
from quantstore.run.noise import CANNOT_BE_IMITATED
from quantstore.wording.verdicts import LOSS_UNKNOWN, STORED_SO, verdict_sentence
from tests.support.graphs import float_value, make_model, move_outside, node, run, save

pytestmark = pytest.mark.slow

SIDE = 32
BROKEN_BELOW_DB, AT_RISK_BELOW_DB, WATCH_BELOW_DB = 10, 20, 30


def filters(*shape, seed, gain=1.4):
    """Weights that keep the size of what they are multiplied with."""
    random = np.random.default_rng([seed, *shape])
    return (random.standard_normal(shape) * gain / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


def shaped(model, name, shape, kind=TensorProto.FLOAT):
    """A model with the shape and type of an input or output."""
    for value in (*model.graph.input, *model.graph.output):
        if value.name == name:
            value.CopyFrom(helper.make_tensor_value_info(name, kind, shape))
    return model


def conv(given, weights, made, name, size=3, **attributes):
    return node("Conv", [given, weights], [made], name, pads=[size // 2] * 4, **attributes)


@pytest.fixture
def stored(tmp_path, prober):
    """Write a model, ingest it with its probe, and say what the store then answers."""

    class Stored:
        path = tmp_path / "s.duckdb"
        file = tmp_path / "network.onnx"

        def __init__(self, model):
            save(model, self.file)
            ingest_file(self.file, self.path, prober=prober)

        def rows(self, statement):
            with store.reading(self.path) as connection:
                return connection.rows(statement)

        def facts(self, target):
            with store.reading(self.path) as connection:
                table = queries.verdicts(connection)
            (row,) = table[table["target"] == target].to_dict("records")
            return queries.model_facts(row)

        def db(self, target):
            return self.facts(target).output_sqnr_db

        def findings(self):
            return {kind for (kind,) in self.rows("select kind from findings")}

    return Stored


# Activations


def silu_network():
    """Six convolutions, SiLU behind each: what they hand on reaches from -0.28 to far above."""
    nodes, weights, given = [], {}, "x"
    for index in range(6):
        weights[f"w{index}"] = filters(24, 24 if index else 3, 3, 3, seed=20, gain=1.6)
        nodes += [
            conv(given, f"w{index}", f"c{index}", f"conv{index}"),
            node("Sigmoid", [f"c{index}"], [f"s{index}"], f"sigmoid{index}"),
            node("Mul", [f"c{index}", f"s{index}"], [f"m{index}"], f"silu{index}"),
        ]
        given = f"m{index}"
    weights["head"] = filters(8, 24, 1, 1, seed=20)
    nodes.append(conv(given, "head", "y", "head", size=1))
    return shaped(make_model(nodes, weights), "x", [1, 3, SIDE, SIDE])


def test_hardware_without_zero_points_loses_more_and_powers_of_two_more_still(stored):
    """Activations of one sign leave half of a symmetric grid unused: 6 dB at most."""
    network = stored(silu_network())
    asked = ("int8_channel_symmetric_activations", "int8_tensor_power_of_two")
    probe_model("network", network.path, asked)
    asymmetric, symmetric, shifted = map(network.db, ("int8_channel_fused", *asked))
    assert 1.5 < asymmetric - symmetric < 6
    assert 1 < symmetric - shifted < 8
    assert network.facts(asked[1]).verdict == "at risk"


# Layers that a quantizer passes over


def recurrent_network():
    """A GRU between two products; two of its rows are far larger than the rest."""
    size, width = 24, 32
    rows, recurrent = (
        filters(1, 3 * width, columns, seed=21, gain=np.sqrt(3 * width))
        for columns in (size, width)
    )
    rows[0, [5, 40]] *= 80
    recurrent[0, [5, 40]] *= 40
    nodes = [
        node("MatMul", ["x", "w0"], ["a"], "into"),
        node("Tanh", ["a"], ["t"], "tanh"),
        node("GRU", ["t", "w", "r"], ["g"], "gru", hidden_size=width, linear_before_reset=1),
        node("Squeeze", ["g", "axis"], ["s"], "squeeze"),
        node("MatMul", ["s", "w1"], ["m"], "out"),
        node("Sigmoid", ["m"], ["y"], "mask"),
    ]
    weights = {
        "w0": filters(size, size, seed=21),
        "w": rows,
        "r": recurrent,
        "w1": filters(16, width, seed=22).T.copy(),
        "axis": np.array([1]),
    }
    return shaped(make_model(nodes, weights), "x", [50, 1, size])


def test_full_int8_means_the_recurrent_layer_as_well(stored):
    network = stored(recurrent_network())
    facts = network.facts("int8_tensor")
    assert facts.verdict == "broken"
    ((alone,),) = network.rows("""
        select deciding_sqnr_db from simulations
        where scheme = 'int8_tensor_symmetric' and mode = 'weights'
    """)
    assert facts.output_sqnr_db <= alone < BROKEN_BELOW_DB
    assert network.facts("int8_channel").verdict == "fine"
    left_in_float = network.rows("select float_layers from simulations where mode = 'both'")
    assert {tuple(layers) for (layers,) in left_in_float} == {()}


def branching_network():
    """Both branches of an If hold the second half; gains of its channels differ by 300."""
    large = filters(16, 16, 3, 3, seed=35)
    large[[2, 9]] *= 300
    undone = filters(8, 16, 1, 1, seed=35)
    undone[:, [2, 9]] /= 300

    def branch(tag):
        nodes = [
            conv("r", "large", f"{tag}_a", f"{tag}_conv"),
            node("Relu", [f"{tag}_a"], [f"{tag}_b"], f"{tag}_relu"),
            conv(f"{tag}_b", "undone", f"{tag}_c", f"{tag}_mix", size=1),
        ]
        return helper.make_graph(nodes, tag, [], [float_value(f"{tag}_c", [1, 8, SIDE, SIDE])])

    nodes = [
        conv("x", "w0", "a", "stem"),
        node("Relu", ["a"], ["r"], "relu"),
        node("Shape", ["x"], ["shape"], "shape"),
        node("Gather", ["shape", "first"], ["count"], "count"),
        node("Less", ["count", "four"], ["is_small"], "is_small"),
        node("If", ["is_small"], ["i"], "if", then_branch=branch("s"), else_branch=branch("l")),
        conv("i", "head", "y", "head", size=1),
    ]
    weights = {
        "w0": filters(16, 3, 3, 3, seed=35),
        "large": large,
        "undone": undone,
        "head": filters(4, 8, 1, 1, seed=35),
        "first": np.array(0),
        "four": np.array(4),
    }
    return shaped(make_model(nodes, weights), "x", [1, 3, SIDE, SIDE])


def test_what_breaks_inside_a_branch_breaks_the_model(stored):
    network = stored(branching_network())
    layers = [layer for (layer,) in network.rows("select layer from layers order by depth")]
    assert len(layers) == 6
    assert sum("_branch" in layer for layer in layers) == 4
    for target in ("int8_tensor", "int8_channel"):
        assert network.facts(target).verdict == "broken", target


# Ways to write a network


def test_constants_in_files_of_their_own_are_read_and_run_without_a_complaint(stored):
    """The checker would look for them in the folder it was started in."""
    weights = {"w0": filters(16, 3, 3, 3, seed=25), "w1": filters(4, 8, 3, 3, seed=25)}
    constants = weights | {"sizes": np.array([8, 8])}
    nodes = [
        *(
            node("Constant", [], [name], name, value=helper.make_tensor(name, *numbers(array)))
            for name, array in constants.items()
        ),
        conv("x", "w0", "a", "first"),
        node("Split", ["a", "sizes"], ["b", "c"], "split", axis=1),
        node("Mul", ["b", "c"], ["m"], "product"),
        conv("m", "w1", "y", "second"),
    ]
    model = shaped(make_model(nodes, {}), "x", [1, 3, SIDE, SIDE])
    shaped(model, "y", [1, 4, SIDE, SIDE])
    offset = 0
    for constant in model.graph.node[:3]:
        tensor = constant.attribute[0].t
        size = len(tensor.raw_data)
        move_outside(tensor, stored.file.with_name("model.data"), offset=offset)
        offset += size
    network = stored(model)
    assert network.rows("select count(*) from layers") == [(2,)]
    assert network.db("int8_channel") > AT_RISK_BELOW_DB
    assert "invalid" not in network.findings()


def numbers(array):
    """What a tensor is made of: type, shape and bytes."""
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    return kind, array.shape, array.tobytes(), True


def test_half_precision_behind_casts_is_read_and_run(stored):
    """onnxruntime refuses the scales of a Resize in half precision; int8 does not care."""
    half = TensorProto.FLOAT16
    nodes = [
        node("Cast", ["w0"], ["w0_single"], "weights", to=TensorProto.FLOAT),
        conv("x", "w0_single", "a", "first"),
        node("Cast", ["a"], ["h"], "to_half", to=half),
        node("Resize", ["h", "", "scales"], ["u"], "resize", mode="nearest"),
        conv("u", "w1", "v", "second"),
        node("Cast", ["v"], ["y"], "to_single", to=TensorProto.FLOAT),
    ]
    weights = {
        "w0": filters(16, 3, 3, 3, seed=26).astype(np.float16),
        "w1": filters(4, 16, 3, 3, seed=26).astype(np.float16),
        "scales": np.array([1, 1, 2, 2], np.float16),
    }
    model = shaped(make_model(nodes, weights, opset=13), "x", [1, 3, SIDE, SIDE])
    with pytest.raises(Exception, match="Resize"):
        run(model, x=np.zeros((1, 3, SIDE, SIDE), np.float32))
    network = stored(model)
    assert network.rows("select count(*) from layers") == [(2,)]
    assert network.facts("int8_channel").verdict == "fine"


def test_shapes_that_the_file_has_wrong_keep_nobody_from_running_it(stored):
    cells = SIDE**2
    nodes = [
        conv("x", "w0", "a", "stem"),
        node("Relu", ["a"], ["r"], "relu"),
        conv("r", "w1", "h", "head", size=1),
        node("Reshape", ["h", "shape"], ["rows"], "rows"),
        node("Split", ["rows", "sizes"], ["boxes", "classes"], "split", axis=1),
        node("Sigmoid", ["classes"], ["scores"], "scores"),
        node("Concat", ["boxes", "scores"], ["y"], "join", axis=1),
    ]
    weights = {
        "w0": filters(16, 3, 3, 3, seed=27),
        "w1": filters(24, 16, 1, 1, seed=27),
        "shape": np.array([1, 24, cells]),
        "sizes": np.array([16, 8]),
    }
    model = shaped(make_model(nodes, weights), "x", [1, 3, SIDE, SIDE])
    shaped(model, "y", [1, 76, cells])
    for name in ("boxes", "classes", "scores"):
        model.graph.value_info.append(float_value(name, [1, 18, cells]))
    assert stored(model).facts("int8_channel").verdict == "fine"


# A decoder with a cache


def decoder_with_a_cache():
    """One step of attention: the mask is as long as what was and what is new."""
    heads, width = 2, 16
    size = heads * width
    nodes = [node("Gather", ["table", "input_ids"], ["x"], "embed")]
    for letter in "qkv":
        nodes += [
            node("MatMul", ["x", f"w{letter}"], [f"{letter}0"], f"{letter}_projection"),
            node("Reshape", [f"{letter}0", "apart"], [f"{letter}1"], f"{letter}_heads"),
            node("Transpose", [f"{letter}1"], [letter], f"{letter}_turn", perm=[0, 2, 1, 3]),
        ]
    nodes += [
        node("Concat", ["past_key_values.0.key", "k"], ["keys"], "keys", axis=2),
        node("Concat", ["past_key_values.0.value", "v"], ["values"], "values", axis=2),
        node("Transpose", ["keys"], ["turned"], "turn", perm=[0, 1, 3, 2]),
        node("MatMul", ["q", "turned"], ["scores"], "scores"),
        node("Cast", ["attention_mask"], ["mask"], "mask", to=TensorProto.FLOAT),
        node("Sub", ["mask", "one"], ["hidden"], "hidden"),
        node("Mul", ["hidden", "thirty"], ["far"], "far"),
        node("Unsqueeze", ["far", "axes"], ["spread"], "spread"),
        node("Add", ["scores", "spread"], ["masked"], "masked"),
        node("Softmax", ["masked"], ["shares"], "softmax", axis=-1),
        node("MatMul", ["shares", "values"], ["mixed"], "mix"),
        node("Transpose", ["mixed"], ["back"], "back", perm=[0, 2, 1, 3]),
        node("Reshape", ["back", "joined"], ["rows"], "join"),
        node("MatMul", ["rows", "wo"], ["y"], "head"),
    ]
    weights = {
        "table": filters(100, size, seed=31, gain=np.sqrt(size)),
        **{f"w{letter}": filters(size, size, seed=31, gain=1) for letter in "qkv"},
        "wo": filters(size, 100, seed=31, gain=1),
        "apart": np.array([0, 0, heads, width]),
        "joined": np.array([0, 0, size]),
        "one": np.array(1, np.float32),
        "thirty": np.array(30, np.float32),
        "axes": np.array([1, 2]),
    }
    caches = [f"past_key_values.0.{name}" for name in ("key", "value")]
    model = make_model(nodes, weights, inputs=("input_ids", "attention_mask", *caches))
    shaped(model, "input_ids", ["batch_size", "sequence_length"], TensorProto.INT64)
    mask = ["batch_size", "past_sequence_length + 1"]
    shaped(model, "attention_mask", mask, TensorProto.INT64)
    for name in caches:
        shaped(model, name, ["batch_size", heads, "past_sequence_length", width])
    return model


def test_lengths_that_are_computed_from_others_fit_together(stored, tmp_path):
    network = stored(decoder_with_a_cache())
    facts = network.facts("int8_channel")
    assert facts.output_sqnr_db > AT_RISK_BELOW_DB
    # Nobody can make up what a cache holds.
    assert facts.provisional == CANNOT_BE_IMITATED
    random, past = np.random.default_rng(31), 16
    inputs = {
        "input_ids": random.integers(0, 100, (8, 1, 1)),
        "attention_mask": np.ones((8, 1, past + 1), np.int64),
    }
    for name in ("key", "value"):
        cache = random.standard_normal((8, 1, 2, past, 16)).astype(np.float32)
        inputs[f"past_key_values.0.{name}"] = cache
    np.savez(tmp_path / "steps.npz", **inputs)
    choices = Choices(target="int8_channel", drift=False)
    runs.run(network.file, network.path, str(tmp_path / "steps.npz"), choices)
    facts = network.facts("int8_channel")
    assert (facts.evidence, facts.provisional) == ("run", None)
    assert facts.output_sqnr_db > AT_RISK_BELOW_DB


# Files of integers


def test_convolutions_of_integers_are_run_in_float_under_the_names_of_the_file(stored):
    """onnxruntime's CPU has no ConvInteger of signed weights."""
    nodes, weights, given = [], {}, "x"
    for index, (inputs, outputs) in enumerate([(3, 16), (16, 8)]):
        floats = filters(outputs, inputs, 3, 3, seed=32)
        scale = np.float32(np.abs(floats).max() / 127)
        weights |= {
            f"w{index}": np.rint(floats / scale).astype(np.int8),
            f"w{index}_scale": np.array(scale),
            f"w{index}_zero": np.array(0, np.int8),
        }
        last = "y" if index else "o0"
        nodes += [
            node("DynamicQuantizeLinear", [given], [f"{each}{index}" for each in "qsz"]),
            node(
                "ConvInteger",
                [f"q{index}", f"w{index}", f"z{index}", f"w{index}_zero"],
                [f"i{index}"],
                f"conv{index}",
                pads=[1] * 4,
            ),
            node("Cast", [f"i{index}"], [f"f{index}"], to=TensorProto.FLOAT),
            node("Mul", [f"s{index}", f"w{index}_scale"], [f"m{index}"]),
            node("Mul", [f"f{index}", f"m{index}"], [last]),
        ]
        if not index:
            nodes.append(node("Relu", ["o0"], ["r0"], "relu"))
            given = "r0"
    model = shaped(make_model(nodes, weights, opset=11), "x", [1, 3, SIDE, SIDE])
    network = stored(model)
    assert network.rows("select already_quantized from layers") == [(True,)] * 2
    facts = network.facts("int8_channel")
    assert facts.verdict == "fine"
    assert facts.worst_output == "y"
    assert "old opset" in network.findings()


def clipping_pairs():
    """Pairs of QuantizeLinear and DequantizeLinear; what an addition makes is cut off at 1."""
    nodes, weights = [], {}

    def rounded(name, largest):
        weights[f"{name}_scale"] = np.array(largest / 127, np.float32)
        weights[f"{name}_zero"] = np.array(0, np.int8)
        scale = [f"{name}_scale", f"{name}_zero"]
        nodes.append(node("QuantizeLinear", [name, *scale], [f"{name}_q"], f"{name}_q"))
        nodes.append(node("DequantizeLinear", [f"{name}_q", *scale], [f"{name}_d"], f"{name}_d"))
        return f"{name}_d"

    def stored(name, floats):
        scale = (np.abs(floats).max((1, 2, 3)) / 127).astype(np.float32)
        codes = np.rint(floats / scale.reshape(-1, 1, 1, 1)).astype(np.int8)
        zeros = np.zeros(len(scale), np.int8)
        weights.update({f"{name}_q": codes, f"{name}_scale": scale, f"{name}_zero": zeros})
        parts = [f"{name}_q", f"{name}_scale", f"{name}_zero"]
        nodes.append(node("DequantizeLinear", parts, [name], f"{name}_d", axis=0))
        return name

    given = rounded("x", 4)
    nodes.append(conv(given, stored("w0", filters(16, 3, 3, 3, seed=33)), "a", "first"))
    nodes.append(node("Relu", ["a"], ["r"], "relu"))
    skipped = rounded("r", 6)
    small = stored("w1", filters(16, 16, 3, 3, seed=33, gain=0.2))
    nodes.append(conv(skipped, small, "b", "second"))
    nodes.append(node("Add", [skipped, rounded("b", 40)], ["sum"], "add"))
    given = rounded("sum", 1)
    last = stored("w2", filters(8, 16, 1, 1, seed=33))
    nodes.append(conv(given, last, "y", "head", size=1))
    return shaped(make_model(nodes, weights, opset=13), "x", [1, 3, SIDE, SIDE])


def test_a_file_of_integers_says_that_its_first_loss_is_not_known(stored):
    network = stored(clipping_pairs())
    assert network.rows("select already_quantized from layers") == [(True,)] * 3
    sentence = verdict_sentence(network.facts("int8_weights"))
    assert STORED_SO in sentence
    assert LOSS_UNKNOWN in sentence


# The list of layers


def test_one_weight_far_out_puts_its_layer_first_and_a_scale_per_channel_cures_it(stored):
    first = filters(16, 3, 3, 3, seed=12)
    first[6, 1, 1, 1] = -22
    nodes = [
        conv("x", "w0", "a", "model.0", strides=[2, 2]),
        node("Relu", ["a"], ["b"], "relu0"),
        conv("b", "w1", "c", "model.1"),
        node("Relu", ["c"], ["d"], "relu1"),
        conv("d", "w2", "y", "model.2", size=1),
    ]
    weights = {
        "w0": first,
        "w1": filters(32, 16, 3, 3, seed=12),
        "w2": filters(20, 32, 1, 1, seed=12),
    }
    network = stored(shaped(make_model(nodes, weights), "x", [1, 3, 64, 64]))

    def reached(scheme):
        return network.rows(f"""
            select layer, channel_sqnr_p10_db from layer_errors
            where scheme = '{scheme}' order by channel_sqnr_p10_db
        """)

    (worst, worst_db), (_, next_db), _ = reached("int8_tensor_symmetric")
    assert worst == "model.0"
    assert worst_db < AT_RISK_BELOW_DB < WATCH_BELOW_DB < next_db
    assert dict(reached("int8_channel_symmetric"))["model.0"] > 40
