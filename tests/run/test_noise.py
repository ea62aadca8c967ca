"""What a network is fed where nobody has inputs: shapes, kinds of input, and what fills them."""

import math
from itertools import pairwise

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from quantstore.errors import RunError
from quantstore.run import noise, pictures, probe_figures, readers, states, tokens, waveforms
from quantstore.run.noise import Input
from quantstore.run.plan import PLAN
from tests.support.graphs import gaussian, node, save

IMAGES = [(1, 3, 64, 64), (1, 64, 64, 3), (1, 1, 8, 8), (2, 3, 16, 24)]


def parsed(nodes, weights=None, *, inputs, outputs=("y",), kinds=None):
    """A model in onnx-ir; ``kinds`` are types of inputs that are not float."""
    return ir.from_proto(written(nodes, weights, inputs=inputs, outputs=outputs, kinds=kinds))


def written(nodes, weights=None, *, inputs, outputs=("y",), kinds=None):
    kinds = kinds or {}
    graph = helper.make_graph(
        nodes,
        "test",
        [
            helper.make_tensor_value_info(name, kinds.get(name, TensorProto.FLOAT), shape)
            for name, shape in inputs.items()
        ],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [
            numpy_helper.from_array(np.asarray(array, np.float32), name)
            for name, array in (weights or {}).items()
        ],
    )
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8)


def first_choice(shape, *nodes, kind=TensorProto.FLOAT, weights=None, name="x"):
    """How the first input is decided."""
    model = parsed(
        nodes or [node("Relu", [name], ["y"])], weights, inputs={name: shape}, kinds={name: kind}
    )
    return next(noise.choices(model))[0]


def image(shape=(1, 3, 32, 32), dtype="float32", scale=noise.UNIT):
    return Input("x", shape, np.dtype(dtype), "image", scale=scale)


def drawn(one, count=1, *, seed=0):
    """Samples of a single input, stacked."""
    return np.stack([feeds[one.name] for feeds in noise.samples((one,), count, seed=seed)])


# --- shapes of inputs that a model leaves open -------------------------------------------------


def test_fixed_dimensions_stay():
    model = parsed([node("Relu", ["x"], ["y"])], inputs={"x": [2, 3, 5, 7]})
    assert [inputs[0].shape for inputs in noise.choices(model)] == [(2, 3, 5, 7)]


def test_an_image_has_one_batch_three_channels_and_sides_from_a_list():
    model = parsed([node("Relu", ["x"], ["y"])], inputs={"x": ["n", "c", "h", "w"]})
    shapes = [inputs[0].shape for inputs in noise.choices(model)]
    assert shapes == [(1, 3, side, side) for side in noise.IMAGE_SIDES]


def test_channels_may_come_last():
    assert first_choice(["n", "h", "w", 3]).shape == (1, 320, 320, 3)


def test_the_first_convolution_knows_how_many_channels_there_are():
    weights = {"w": gaussian(2, 5, 3, 3), "mean": gaussian(1)}
    nodes = [node("Sub", ["x", "mean"], ["c"]), node("Conv", ["c", "w"], ["y"])]
    assert first_choice(["n", "c", 8, 8], *nodes, weights=weights).shape == (1, 5, 8, 8)


@pytest.mark.parametrize("op_type", ["MatMul", "Gemm"])
def test_a_linear_layer_knows_its_inputs_even_where_the_file_gives_no_shape(op_type):
    chosen = first_choice(None, node(op_type, ["x", "w"], ["y"]), weights={"w": gaussian(6, 2)})
    assert chosen.shape == (1, 6) if op_type == "Gemm" else (64, 6)


def test_an_input_of_which_nothing_is_known_is_refused():
    with pytest.raises(RunError, match="shape of input 'x'"):
        first_choice(None)


def test_a_sequence_has_64_steps():
    assert first_choice(["n", "steps"], kind=TensorProto.INT64).shape == (1, 64)


def test_shapes_are_told_in_words():
    assert noise.shapes_text((first_choice(["n", 3, "h", "w"]),)) == "x 1x3x320x320"


def test_an_integer_that_stands_alone_is_frozen():
    model = parsed(
        [node("Relu", ["x"], ["y"])],
        inputs={"x": [1], "sr": [], "n": []},
        kinds={"sr": TensorProto.INT64, "n": TensorProto.INT32},
    )
    assert {name: int(value) for name, value in noise.frozen_inputs(model).items()} == {
        "sr": 16000,
        "n": 1,
    }


# --- the kind of an input ----------------------------------------------------------------------

LOOKED_UP = (node("Gather", ["table", "x"], ["y"]),)
CAST_FIRST = (
    node("Cast", ["x"], ["c"], to=TensorProto.INT64),
    node("Gather", ["table", "c"], ["y"]),
)
LINEAR = (node("MatMul", ["x", "w"], ["y"]),)


@pytest.mark.parametrize(
    ("name", "shape", "type_", "nodes", "rows", "kind"),
    [
        ("x", [1, 3, 32, 32], TensorProto.FLOAT, (), None, "image"),
        ("x", [1, 32, 32, 3], TensorProto.FLOAT, (), None, "image"),
        ("x", [1, 1, 8, 8], TensorProto.FLOAT, (), None, "image"),
        ("x", [1, 3, 32, 32], TensorProto.UINT8, (), None, "image"),
        ("x", [1, 4096], TensorProto.FLOAT, (), None, "sound"),
        ("x", [1, 2, 4096], TensorProto.FLOAT, (), None, "sound"),
        ("x", [1, 4096, 1], TensorProto.FLOAT, (), None, "sound"),
        ("x", [1, 4096, 80], TensorProto.FLOAT, (), None, "number"),
        ("waveforms", [None, None], TensorProto.FLOAT, (), None, "sound"),
        ("waveforms_lens", [None], TensorProto.INT64, (), None, "length"),
        ("input_lengths", [1], TensorProto.INT32, (), None, "length"),
        ("x.length", [1], TensorProto.INT64, (), None, "length"),
        ("lenient", [1], TensorProto.INT64, (), None, "number"),
        ("x", [1, 512], TensorProto.FLOAT, LINEAR, 512, "number"),
        ("x", [1, 80, 3000], TensorProto.FLOAT, (), None, "number"),
        ("mel", [1, 1, 80, 100], TensorProto.FLOAT, (), None, "number"),
        ("x", [1, 16], TensorProto.FLOAT, (), None, "number"),
        ("x", [1, 16], TensorProto.UINT8, CAST_FIRST, 256, "bytes"),
        ("x", [1, 16], TensorProto.INT64, LOOKED_UP, 258, "bytes"),
        ("x", [1, 16], TensorProto.INT64, LOOKED_UP, 30522, "tokens"),
        ("x", [1, 16], TensorProto.INT64, LOOKED_UP, 7, "tokens"),
        ("x", [1, 16], TensorProto.INT64, (), None, "number"),
        ("attention_mask", [1, 16], TensorProto.INT64, (), None, "constant"),
        ("token_type_ids", [1, 16], TensorProto.INT64, (), None, "constant"),
        ("h0", [2, 1, 128], TensorProto.FLOAT, (), None, "state"),
        ("past_key", [1, 4, 8, 16], TensorProto.FLOAT, (), None, "state"),
    ],
)
def test_name_shape_and_readers_tell_what_an_input_holds(name, shape, type_, nodes, rows, kind):
    weights = {} if rows is None else {"table": gaussian(rows, 2), "w": gaussian(rows, 2)}
    assert first_choice(shape, *nodes, kind=type_, weights=weights, name=name).content == kind


def test_a_length_is_that_of_the_open_axis_so_that_nothing_is_padding():
    model = parsed(
        [node("Relu", ["x"], ["y"])],
        inputs={"x": [None, 80, None], "x_lens": [None]},
        kinds={"x_lens": TensorProto.INT64},
    )
    features, length = next(noise.choices(model))
    assert features.shape == (1, 80, 64)
    assert drawn(length)[0].tolist() == [64]


def test_a_sound_with_its_channel_last_is_the_same_sound():
    first, last = (
        drawn(Input("x", shape, np.dtype("float32"), "sound"))[0]
        for shape in ((1, 600), (1, 600, 1))
    )
    np.testing.assert_array_equal(last[..., 0], first)


def sentence(*kinds, size=100):
    return noise.provisional(
        tuple(
            Input(
                f"x{number}", (1, 3, 8, 8) if kind == "image" else (1, size), np.dtype("f4"), kind
            )
            for number, kind in enumerate(kinds)
        )
    )


def test_what_cannot_be_imitated_is_said_in_one_sentence():
    assert sentence("number") == noise.CANNOT_BE_IMITATED
    assert sentence("image", "number") == noise.CANNOT_BE_IMITATED
    assert sentence("sound", "state") is None
    assert sentence("bytes") is None
    assert sentence("tokens", "constant") is None


def test_a_handful_of_numbers_beside_an_image_does_not_count():
    assert sentence("image", "number", size=2) is None
    assert sentence("number", size=2) == noise.CANNOT_BE_IMITATED


def test_more_planes_than_a_picture_has_are_no_picture():
    features = image((1, 64, 16, 16))
    assert noise.provisional((features,)) == noise.CANNOT_BE_IMITATED
    assert drawn(features).shape == (1, 1, 64, 16, 16)


def test_the_probe_says_it_with_its_facts(tmp_path):
    model = written(LINEAR, {"w": gaussian(20, 4)}, inputs={"x": [1, 20]})
    facts = next(iter(probe_figures.figures(save(model, tmp_path / "net.onnx"), PLAN[:1])))
    assert facts.provisional == noise.CANNOT_BE_IMITATED


# --- what is fed -------------------------------------------------------------------------------

EVERY_KIND = (
    image(),
    Input("wave", (1, 600), np.dtype("float32"), "sound"),
    Input("text", (1, 40), np.dtype("uint8"), "bytes", 256),
    Input("ids", (1, 40), np.dtype("int64"), "tokens", 40),
    Input("numbers", (1, 40), np.dtype("float16"), "number"),
)


@pytest.mark.parametrize("one", EVERY_KIND, ids=[one.content for one in EVERY_KIND])
def test_the_seed_decides_and_the_count_does_not(one):
    samples = drawn(one, 7)
    assert samples.dtype == one.dtype
    assert samples.shape == (7, *one.shape)
    np.testing.assert_array_equal(drawn(one, 3), samples[:3])
    assert not np.array_equal(drawn(one, 3, seed=1), samples[:3])


@pytest.mark.parametrize("one", EVERY_KIND, ids=[one.content for one in EVERY_KIND])
def test_a_stream_can_be_taken_up_again(one):
    stream = noise.stream((one,), seed=0)
    taken = [next(stream)[one.name], *(next(stream)[one.name] for _ in range(2))]
    np.testing.assert_array_equal(np.stack(taken), drawn(one, 3))


def test_two_inputs_of_a_kind_are_not_the_same():
    pair = tuple(Input(name, (1, 9), np.dtype("float32"), "number") for name in "ab")
    (feeds,) = noise.samples(pair, 1, seed=0)
    assert not np.array_equal(feeds["a"], feeds["b"])


@pytest.mark.parametrize("shape", IMAGES)
def test_scenes_are_centered_and_scaled_as_photographs_are(shape):
    """By less where they are small and grey: what is averaged varies less, in photographs too."""
    scenes = drawn(image(shape), 60)
    assert scenes.shape == (60, *shape)
    assert np.isfinite(scenes).all()
    assert scenes.mean() == pytest.approx(-0.3, abs=0.2)
    assert 0.5 < scenes.std() < 1


def test_on_the_scale_of_pixels_a_scene_is_what_was_drawn():
    pixels = drawn(image((1, 3, 32, 32), scale=noise.PIXELS), 20)
    # Grain apart, which may lie outside.
    assert 0 <= pixels.min() < 30
    assert 200 < pixels.max() <= 255


def test_a_scene_has_colors_and_a_grey_input_gets_grey():
    random = np.random.default_rng(0)
    colored = pictures.scene(random, 3, 64, 64)
    assert np.abs(colored[0] - colored[2]).max() > 0.5
    assert pictures.scene(random, 1, 64, 64).shape == (1, 64, 64)
    assert pictures.scene(random, 4, 48, 64).shape == (4, 48, 64)


def test_channels_last_is_the_same_picture():
    first, last = drawn(image((1, 3, 16, 24)))[0], drawn(image((1, 16, 24, 3)))[0]
    np.testing.assert_array_equal(np.moveaxis(last, 3, 1), first)


def test_one_over_f_falls_as_one_over_f_and_its_channels_look_alike():
    random = np.random.default_rng(0)
    images = np.stack([pictures.one_over_f(random, 3, 64, 64) for _ in range(20)])
    assert images.mean((2, 3)) == pytest.approx(0, abs=1e-5)
    assert images.std((2, 3)) == pytest.approx(1, abs=1e-5)
    power = (np.abs(np.fft.rfft2(images)) ** 2).mean((0, 1))
    # Amplitude 1/f is power 1/f^2: a quarter for twice the frequency.
    for low in (2, 4, 8):
        for at in ((low, 0), (0, low)):
            twice = tuple(2 * one for one in at)
            assert power[at] / power[twice] == pytest.approx(4, rel=0.5)
    pairs = np.array([np.corrcoef(one.reshape(3, -1))[0, 1] for one in images])
    assert pairs.mean() == pytest.approx(pictures.CHANNEL_CORRELATION, abs=0.03)


def test_a_picture_of_one_pixel_is_a_number():
    random = np.random.default_rng(0)
    for draw in (pictures.one_over_f, pictures.scene):
        assert np.isfinite(draw(random, 3, 1, 2)).all()


def test_bytes_of_a_picture_use_their_range():
    values = drawn(image((1, 3, 64, 64), "uint8", noise.PIXELS), 20)
    assert values.dtype == np.uint8
    assert values.mean() == pytest.approx(95, abs=15)
    assert values.std() == pytest.approx(55, abs=15)


def test_integers_are_small_positive_and_inside_the_table_they_look_into():
    ids = Input("ids", (1, 64), np.dtype("int64"), "tokens", noise.INTEGER_LIMIT)
    assert (drawn(ids).min(), drawn(ids).max()) == (1, 63)
    chosen = first_choice(
        ["n", "t"], *LOOKED_UP, kind=TensorProto.INT64, weights={"table": gaussian(7, 4)}
    )
    assert drawn(chosen).max() == 6


def test_masks_are_one_segments_zero_and_states_start_at_zero():
    for name, kind, value in (
        ("attention_mask", "constant", 1),
        ("token_type_ids", "constant", 0),
        ("sr", "constant", 16000),
        ("state", "state", 0),
    ):
        assert (drawn(Input(name, (1, 8), np.dtype("int64"), kind)) == value).all()


def test_text_has_letters_by_their_frequency_and_a_third_is_binary():
    one = Input("x", (1, 4000), np.dtype("uint8"), "bytes", 256)
    *texts, binary = drawn(one, 3)
    for text in texts:
        assert set(np.unique(text)) <= set(tokens.LETTERS.tolist())
        counts = [int((text == ord(letter)).sum()) for letter in " eas"]
        assert counts == sorted(counts, reverse=True)
    assert binary.max() > 200
    # Skewed: half of them lie below the mean of an exponential distribution times ln 2.
    assert np.median(binary) == pytest.approx(math.log(2) * tokens.MEAN_BINARY, abs=5)


def test_bytes_stay_inside_a_smaller_table():
    weights = {"table": gaussian(128, 4)}
    chosen = first_choice([1, 900], *LOOKED_UP, kind=TensorProto.INT64, weights=weights)
    assert (chosen.content, chosen.limit) == ("bytes", 128)
    assert drawn(chosen, 3).max() == 127


def test_sounds_are_loud_and_soft_with_pauses_between():
    sounds = drawn(Input("x", (1, 16000), np.dtype("float32"), "sound"), 50)[:, 0]
    peaks = np.abs(sounds).max(1)
    assert peaks.max() <= 1
    is_pause = np.arange(50) % waveforms.PAUSE_EVERY == waveforms.PAUSE_EVERY - 1
    assert peaks[is_pause].max() < 0.05
    voiced = peaks[~is_pause]
    assert voiced.max() / voiced.min() > 10


def test_a_vowel_has_a_pitch_and_resonances():
    vowel = waveforms.vowel(np.random.default_rng(0), 16000)
    spectrum = np.abs(np.fft.rfft(vowel))
    assert spectrum[100:1000].max() > 10 * spectrum[5000:].max()
    lags = np.fft.irfft(np.abs(np.fft.rfft(vowel, 32000)) ** 2)[: 16000 // 60]
    pitch = 16000 / (16000 // 250 + np.argmax(lags[16000 // 250 :]))
    assert waveforms.PITCH[0] - 1 <= pitch <= waveforms.PITCH[1] + 1


def test_pink_noise_loses_half_its_power_with_every_octave():
    random = np.random.default_rng(0)
    many = [np.abs(np.fft.rfft(waveforms.pink(random, 4096))) ** 2 for _ in range(60)]
    power = np.mean(many, axis=0)
    for low in (16, 64, 256):
        octave = power[low : low + 16].mean() / power[2 * low : 2 * low + 32].mean()
        assert octave == pytest.approx(2, rel=0.5)


def test_short_windows_cut_one_sound_into_parts():
    parts = waveforms.LASTING // 576
    windows = drawn(Input("x", (1, 576), np.dtype("float32"), "sound"), parts)[:, 0]
    (whole,) = drawn(Input("x", (1, 576 * parts), np.dtype("float32"), "sound"))[:, 0]
    np.testing.assert_array_equal(windows.ravel(), whole)


# --- how large the pixels are ------------------------------------------------------------------

STEM = node("Conv", ["n", "w"], ["y"])
IMAGENET = (np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375]))


def scale_of(*nodes, shape=(1, 3, 16, 16), kind=TensorProto.FLOAT, **weights):
    weights = {"w": gaussian(4, 3, 3, 3), **weights}
    return first_choice(list(shape), *nodes, kind=kind, weights=weights).scale


def columns(values):
    return np.reshape(values, (1, -1, 1, 1))


def test_mean_and_deviation_that_a_network_takes_away_are_those_of_its_input():
    mean, deviation = IMAGENET
    nodes = (node("Sub", ["x", "a"], ["s"]), node("Div", ["s", "b"], ["n"]), STEM)
    found = scale_of(*nodes, a=columns(mean), b=columns(deviation))
    assert found.mean == pytest.approx(mean, rel=1e-5)
    assert found.deviation == pytest.approx(deviation, rel=1e-5)
    assert (found.lowest, found.highest) == (0, 255)


def test_the_same_written_as_mul_and_add():
    mean, deviation = IMAGENET
    nodes = (node("Mul", ["x", "a"], ["s"]), node("Add", ["b", "s"], ["n"]), STEM)
    found = scale_of(*nodes, a=columns(1 / deviation), b=columns(-mean / deviation))
    assert found.mean == pytest.approx(mean, rel=1e-5)
    assert found.deviation == pytest.approx(deviation, rel=1e-5)


def test_what_a_network_normalizes_is_what_others_are_fed():
    mean, deviation = (columns(one / 255) for one in IMAGENET)
    nodes = (node("Sub", ["x", "a"], ["s"]), node("Div", ["s", "b"], ["n"]), STEM)
    model = parsed(
        nodes,
        {"w": gaussian(4, 3, 3, 3), "a": mean, "b": deviation},
        inputs={"x": [1, 3, 64, 64]},
    )
    values = drawn(next(noise.choices(model))[0], 40)
    assert 0 <= values.min() < values.max() <= 1
    behind = (values - mean) / deviation
    assert behind.mean() == pytest.approx(-0.3, abs=0.25)
    assert behind.std() == pytest.approx(0.85, abs=0.2)


def test_the_statistics_of_a_batchnorm_at_the_input_are_taken_as_they_are():
    nodes = (node("BatchNormalization", ["x", "g", "o", "m", "v"], ["n"]), STEM)
    more = {"g": np.full(3, 7.0), "o": np.ones(3), "m": [3.0, 4.0, 5.0], "v": np.full(3, 4.0)}
    found = scale_of(*nodes, **more)
    assert found.mean == pytest.approx((3, 4, 5))
    assert found.deviation == pytest.approx([2] * 3, rel=1e-4)
    assert found.highest == math.inf


@pytest.mark.parametrize(
    ("factor", "offset", "white"),
    [
        (1 / 255, 0.0, 255),
        (1 / 127.5, -1.0, 255),
        (1.0, -117.0, 255),
        (2.0, -1.0, 1),
        (1.0, -0.5, 1),
    ],
)
def test_where_constants_tell_the_range_alone_the_rest_is_typical(factor, offset, white):
    nodes = (node("Mul", ["x", "a"], ["s"]), node("Add", ["s", "b"], ["n"]), STEM)
    found = scale_of(*nodes, a=[factor], b=[offset])
    assert found.highest == white
    assert found.deviation == pytest.approx([64 / 255 * white])
    assert 0.4 * white <= found.mean[0] <= 0.55 * white


def test_a_division_before_a_rounding_is_the_scale_of_a_grid():
    nodes = (node("Div", ["x", "a"], ["s"]), node("Round", ["s"], ["n"]), STEM)
    assert scale_of(*nodes, a=[0.02]) == noise.UNIT


def test_channels_last_and_bytes_are_looked_through():
    mean, deviation = IMAGENET
    nodes = (
        node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
        node("Sub", ["f", "a"], ["s"]),
        node("Div", ["s", "b"], ["d"]),
        node("Transpose", ["d"], ["n"], perm=[0, 3, 1, 2]),
        STEM,
    )
    found = scale_of(*nodes, shape=(1, 16, 16, 3), kind=TensorProto.UINT8, a=mean, b=deviation)
    assert found.mean == pytest.approx(mean, rel=1e-5)
    assert scale_of(nodes[0], shape=(1, 16, 16, 3), kind=TensorProto.UINT8) == noise.PIXELS


@pytest.mark.parametrize(("bias", "scale"), [(0.5, noise.UNIT), (12.0, noise.PIXELS)])
def test_large_biases_of_the_first_layer_ask_for_pixels(bias, scale):
    filters = gaussian(4, 3, 3, 3)
    norm = np.linalg.norm(filters.reshape(4, -1), axis=1)
    (conv,) = (node("Conv", ["x", "w", "b"], ["y"]),)
    assert scale_of(conv, w=filters, b=bias * norm) == scale


def test_a_batchnorm_behind_the_first_layer_counts_as_folded():
    """Its mean is what the filter gives on pixels: 100 times its sum."""
    filters = np.abs(gaussian(4, 3, 3, 3))
    sums = filters.reshape(4, -1).sum(1)
    nodes = (
        node("Conv", ["x", "w"], ["c"]),
        node("BatchNormalization", ["c", "g", "o", "m", "v"], ["y"]),
    )
    more = {"w": filters, "g": np.ones(4), "o": np.zeros(4), "v": np.full(4, 900.0)}
    assert scale_of(*nodes, m=100 * sums, **more) == noise.PIXELS
    assert scale_of(*nodes, m=sums, **more) == noise.UNIT


def test_filters_that_are_zero_have_no_say():
    filters = gaussian(4, 3, 3, 3)
    filters[:3] = 0
    value = parsed(
        [node("Conv", ["x", "w", "b"], ["y"])],
        {"w": filters, "b": np.ones(4)},
        inputs={"x": [1, 3, 8, 8]},
    ).graph.inputs[0]
    assert readers.bias_ratio(value, 17) == pytest.approx(1 / np.linalg.norm(filters[3]), rel=1e-5)


# --- states of recurrent networks --------------------------------------------------------------


def counting(feeds):
    """A network whose state counts the samples."""
    return {"y": feeds["x"], "h_out": feeds["h_in"] + 1}


def counted(count, **more):
    samples = [{"x": np.zeros(2), "h_in": np.zeros(3)} for _ in range(count)]
    return [float(fed["h_in"][0]) for fed in states.streamed(samples, ["h_in"], counting, **more)]


def test_what_comes_out_goes_back_in():
    assert counted(5) == [0, 1, 2, 3, 4]


def test_a_stream_starts_anew_after_so_many_steps():
    assert counted(7, steps=3) == [0, 1, 2, 0, 1, 2, 0]
    assert max(counted(40)) == states.STEPS - 1


def test_states_are_paired_by_shape_by_name_and_else_in_order():
    zeros = {"h": np.zeros(3), "c": np.zeros(3), "other": np.zeros(5)}
    given = {"y": np.zeros(2), "cn": np.zeros(3), "hn": np.zeros(3)}
    assert states.pairs(zeros, given) == {"h": "hn", "c": "cn"}
    unnamed = {"a": np.zeros(3), "b": np.zeros(3)}
    assert states.pairs(zeros, unnamed) == {"h": "a", "c": "b"}
    assert states.pairs({"state": np.zeros(2)}, {"p": np.zeros(2), "stateN": np.zeros(2)}) == {
        "state": "stateN"
    }


def test_states_without_an_output_stay_zero():
    samples = [{"past": np.zeros(3)} for _ in range(3)]
    fed = states.streamed(samples, ["past"], lambda feeds: {"present": np.ones(4)})
    assert not any(one["past"].any() for one in fed)


def test_the_probe_feeds_states_back(tmp_path, monkeypatch):
    """``y = (x + h) w``, and what it gave before comes in as ``h``."""
    nodes = [node("Add", ["x", "h_in"], ["s"]), node("MatMul", ["s", "w"], ["h_out"])]
    model = written(
        nodes,
        {"w": gaussian(4, 4)},
        inputs={"x": [1, 4], "h_in": [1, 4]},
        outputs=("h_out",),
    )
    seen = []
    stream = states.streamed

    def watched(*arguments, **more):
        seen.append(stream(*arguments, **more))
        return seen[-1]

    monkeypatch.setattr(states, "streamed", watched)
    list(probe_figures.figures(save(model, tmp_path / "net.onnx"), PLAN[:1]))
    for samples in seen:
        for before, after in pairwise(samples[: states.STEPS]):
            expected = (before["x"] + before["h_in"]) @ gaussian(4, 4)
            np.testing.assert_allclose(after["h_in"], expected, rtol=1e-4, atol=1e-5)
    assert seen


# --- how many ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "elements", "counts"),
    [
        (image((1, 3, 320, 320)), math.inf, (12, 4)),
        (image((1, 3, 224, 224)), 1000, (12, 4)),
        (image((1, 3, 224, 224)), 32, (24, 8)),
        (image((1, 3, 224, 224)), 10, (48, 16)),
        (image((1, 1, 8, 8)), 1, (48, 48)),
        (image((1, 1, 8, 8)), 1000, (48, 24)),
        (image((1, 1, 8, 8)), 10, (48, 26)),
        (Input("x", (1, 64), np.dtype("int64"), "tokens"), math.inf, (48, 24)),
    ],
)
def test_few_outputs_and_small_inputs_need_more_samples(one, elements, counts):
    assert noise.sample_counts((one,), elements) == counts


def test_elements_are_counted_at_outputs_of_floats_alone():
    outputs = [np.zeros((1, 10), np.float32), np.zeros((1, 30), np.float32), np.zeros(99, np.int64)]
    assert noise.compared_elements(outputs) == 20
    assert noise.compared_elements(outputs[2:]) == math.inf
