"""Integer kernels: which processors saturate, what that costs, and how it is found out."""

import math

import numpy as np
import onnx
import pytest

from quantstore.graph.findings import of_run
from quantstore.graph.findings.base import MOST_GAP_DB
from quantstore.pipeline.files import demo_paths
from quantstore.run import kernels, qdq_file
from quantstore.run.emulator import FixedEmulator
from quantstore.run.runtime import Session
from tests.support.clamping import products_of_file, run_without_vnni
from tests.support.graphs import float_value, gaussian, make_model, node
from tests.support.planned import trial_on, trial_on_noise

# Processors

CPUINFO = {
    "Ice Lake": ("flags\t\t: fpu sse4_1 avx2 avx512f avx512_vnni\n", False),
    "Alder Lake": ("processor : 0\nflags\t\t: avx2 avx_vnni fma\n", False),
    "Haswell": ("vendor_id : GenuineIntel\nflags\t\t: sse4_1 avx avx2\n", True),
    "Skylake-X": ("flags\t\t: avx2 avx512f avx512bw\n", True),
    "a word that begins so": ("flags\t\t: avx2 avx_vnni_int16_unknown\n", True),
    "Raspberry Pi": ("Features\t: fp asimd crc32\nCPU architecture: 8\n", False),
    "RISC-V": ("isa\t\t: rv64imafdc\n", True),
    "nothing": ("", True),
}


@pytest.mark.parametrize(("text", "may"), CPUINFO.values(), ids=CPUINFO)
def test_x86_without_vnni_may_saturate_and_so_may_what_is_not_known(text, may):
    assert kernels.can_saturate(text) is may


def test_where_there_is_no_cpuinfo_kernels_are_run():
    assert kernels.can_saturate(None)


# Networks


def one_sided(random):
    """Matrix products with large weights whose neighbours agree in sign, on inputs above zero."""

    def weights(rows, columns):
        signs = random.choice([-1.0, 1.0], size=(rows // 2, columns)).repeat(2, axis=0)
        sizes = random.uniform(0.75, 1.0, size=(rows, columns))
        return (0.1 * signs * sizes).astype(np.float32)

    model = make_model(
        [
            node("Gemm", ["x", "w1", "b1"], ["h1"], "first"),
            node("Relu", ["h1"], ["r1"], "relu"),
            node("MatMul", ["r1", "w2"], ["y"], "second"),
        ],
        {"w1": weights(64, 96), "b1": np.full(96, 0.5, np.float32), "w2": weights(96, 8)},
    )
    model.graph.input[0].CopyFrom(float_value("x", [16, 64]))
    return model


@pytest.fixture(scope="module")
def saturating(tmp_path_factory):
    random = np.random.default_rng(0)
    model = one_sided(random)
    draw = [{"x": random.uniform(0.4, 1, (16, 64)).astype(np.float32)} for _ in range(8)]
    folder = tmp_path_factory.mktemp("saturating")
    return trial_on(model, ("y",), draw[:4], draw[4:], "int8_channel", folder)


def file_of(trial, **options):
    return qdq_file.qdq_model(trial.network, trial.placed, trial.rounding, trial.plan, **options)


def clamped_db(trial, model):
    names = trial.network.outputs
    return trial.reference.median_db(
        [run_without_vnni(model, sample, names) for sample in trial.samples]
    )


def float_db(trial, model):
    session = Session(model)
    return trial.reference.median_db(
        [session.run(sample, trial.network.outputs) for sample in trial.samples]
    )


def products_of(trial):
    return list(kernels.products(trial.network, trial.placed, trial.plan))


def clamped_layers_of(trial):
    """What the first sample shows of every layer."""
    if not kernels.has_mixed_products(trial.rounding):
        return {}
    names = kernels.observed_tensors(trial.network, trial.placed, trial.plan)
    emulator = FixedEmulator(trial.network, trial.placed, trial.plan.grids, names)
    arrays = emulator.run(trial.plan, trial.samples[0], names)[-len(names) :]
    return kernels.clamped_layers(products_of(trial), dict(zip(names, arrays, strict=True)))


def figures_of(trial, tmp_path, **options):
    return kernels.measure(
        trial.network,
        trial.placed,
        trial.rounding,
        trial.plan,
        trial.samples,
        trial.reference,
        tmp_path,
        clamped=clamped_layers_of(trial),
        **options,
    )


def test_clamped_sums_lose_a_network_that_float_arithmetic_keeps(saturating):
    model = file_of(saturating)
    assert float_db(saturating, model) > 34
    assert clamped_db(saturating, model) < 18


def test_the_same_weights_as_uint8_lose_nothing(saturating):
    model = file_of(saturating, weights_unsigned=True)
    # Nothing there is multiplied as uint8 with int8.
    assert list(products_of_file(model)) == []
    assert float_db(saturating, model) == pytest.approx(
        float_db(saturating, file_of(saturating)), abs=0.01
    )


def exact_product(data, weights):
    return data.astype(np.int64) @ weights.astype(np.int64)


def test_but_for_the_clamping_the_model_of_the_processor_computes_what_onnxruntime_does(tmp_path):
    """Groups, padding, strides and dilations; a Conv and a transposed Gemm."""
    model = make_model(
        [
            node(
                "Conv",
                ["x", "w", "b"],
                ["h"],
                "conv",
                group=2,
                pads=[1, 0, 2, 1],
                strides=[2, 1],
                dilations=[1, 2],
            ),
            node("Flatten", ["h"], ["f"], "flatten"),
            node("Gemm", ["f", "v"], ["y"], "gemm", transB=1),
        ],
        {"w": gaussian(4, 3, 3, 2), "b": gaussian(4), "v": gaussian(5, 140)},
    )
    model.graph.input[0].CopyFrom(float_value("x", [2, 6, 9, 8]))
    random = np.random.default_rng(1)
    draw = [{"x": random.normal(size=(2, 6, 9, 8)).astype(np.float32)} for _ in range(4)]
    trial = trial_on(model, ("y",), draw[:2], draw[2:], "int8_channel", tmp_path)
    written = file_of(trial)
    assert [one.node.name for one in products_of_file(written)] == ["conv", "gemm"]
    step = float(trial.plan.grids["y"].scale[0])
    for sample in trial.samples:
        (expected,) = Session(written, is_optimized=False).run(sample)
        (actual,) = run_without_vnni(written, sample, ["y"], exact_product)
        # Sums of another order may fall on the other side of a tie, a step away.
        assert np.abs(actual - expected).max() <= step * 1.001


@pytest.mark.slow
def test_the_digits_lose_what_a_processor_without_vnni_was_seen_to_lose(test_split, tmp_path):
    """38.0 to 19.2 dB with the kernels of a real one; the layer is foreseen."""
    images, _ = test_split
    path = next(path for path in demo_paths() if path.stem == "digits-plain")
    model = onnx.load(path)
    name = model.graph.input[0].name
    samples = [{name: image[None]} for image in images[:72]]
    outputs = tuple(value.name for value in model.graph.output)
    trial = trial_on(model, outputs, samples[:48], samples[48:], "int8_channel", tmp_path)
    written = file_of(trial)
    assert float_db(trial, written) > 34
    assert clamped_db(trial, written) == pytest.approx(19.2, abs=2)
    figures = figures_of(trial, tmp_path, float_arithmetic_db=38.0, may_saturate=False)
    assert figures.saturating_layer == "/features/features.0/Conv"
    assert figures.may_saturate_elsewhere


# What is measured


def test_a_processor_that_saturates_is_found_out_and_the_cure_is_proven(
    saturating, tmp_path, monkeypatch
):
    """Its kernels are those of the model of the processor, as this one may have better ones."""

    class WithoutVnni(Session):
        def __init__(self, path, *, has_integer_kernels=False, is_optimized=True):
            super().__init__(path, is_optimized=is_optimized)
            self._model = onnx.load(path) if has_integer_kernels else None

        def run(self, feeds, outputs=None):
            if self._model is None:
                return super().run(feeds, outputs)
            return run_without_vnni(self._model, feeds, outputs)

    monkeypatch.setattr(kernels, "Session", WithoutVnni)
    figures = figures_of(saturating, tmp_path, may_saturate=True)
    assert figures.saturates
    assert figures.gap_db > 10
    assert figures.unsigned_weights_db == pytest.approx(figures.float_arithmetic_db, abs=0.01)
    (finding,) = of_run(figures)
    record = finding.record()
    assert (record.kind, record.severity, record.depth) == ("saturates", "warning", None)


def test_a_processor_that_cannot_saturate_runs_nothing_and_warns_of_others(saturating, tmp_path):
    figures = figures_of(saturating, tmp_path, float_arithmetic_db=36.0, may_saturate=False)
    assert math.isnan(figures.integer_kernels_db)
    assert not figures.saturates
    assert figures.saturating_layer == "first"
    assert figures.saturating_share > 0.05
    assert "without VNNI" in of_run(figures)[0].message


@pytest.mark.skipif(
    kernels.can_saturate(kernels.cpuinfo()), reason="this processor may saturate by itself"
)
def test_kernels_that_add_in_32_bits_give_what_float_arithmetic_gives(saturating, tmp_path):
    figures = figures_of(saturating, tmp_path, may_saturate=True)
    assert abs(figures.gap_db) < MOST_GAP_DB
    assert math.isnan(figures.unsigned_weights_db)
    assert of_run(figures) == []


@pytest.mark.parametrize(
    "target",
    ["int8_weights", "int8_channel_symmetric_activations", "int8_channel_int16", "int8_dynamic"],
)
def test_without_uint8_times_int8_there_is_nothing_to_measure(tmp_path, target):
    path = next(path for path in demo_paths() if path.stem == "digits-plain")
    figures = figures_of(trial_on_noise(path, target, tmp_path), tmp_path)
    assert math.isnan(figures.float_arithmetic_db)
    assert figures.saturating_layer is None


def test_depthwise_layers_and_those_without_a_rounded_result_are_no_such_products(tmp_path):
    path = next(path for path in demo_paths() if path.stem == "digits-separable")
    names = [one.node.name for one in products_of(trial_on_noise(path, "int8_channel", tmp_path))]
    assert names
    assert not any("depthwise" in name for name in names)


def test_a_convolution_whose_result_is_not_rounded_stays_in_float(tmp_path):
    model = make_model([node("Conv", ["x", "w"], ["y"], "conv")], {"w": gaussian(4, 3, 3, 3)})
    model.graph.input[0].CopyFrom(float_value("x", [1, 3, 8, 8]))
    draw = [{"x": gaussian(1, 3, 8, 8, seed=seed)} for seed in range(4)]
    everywhere, fused = (
        trial_on(model, ("y",), draw[:2], draw[2:], target, tmp_path)
        for target in ("int8_channel", "int8_channel_fused")
    )
    assert len(products_of(everywhere)) == 1
    assert products_of(fused) == []


def test_products_and_their_codes_are_those_of_the_file_that_is_written(saturating, tmp_path):
    """A tensor that only moves values of a rounded one has its codes, too."""
    model = make_model(
        [
            node("Conv", ["x", "w"], ["h"], "conv", pads=[1, 1, 1, 1]),
            node("Relu", ["h"], ["r"], "relu"),
            node("MaxPool", ["r"], ["p"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
            node("Conv", ["p", "v"], ["c"], "conv behind the pool"),
            node("Flatten", ["c"], ["f"], "flatten"),
            node("Gemm", ["f", "u", "b"], ["y"], "gemm", transB=1),
        ],
        {
            "w": abs(gaussian(4, 3, 3, 3)),
            "v": abs(gaussian(6, 4, 2, 2)),
            "u": abs(gaussian(5, 54)),
            "b": gaussian(5),
        },
    )
    model.graph.input[0].CopyFrom(float_value("x", [1, 3, 8, 8]))
    draw = [{"x": abs(gaussian(1, 3, 8, 8, seed=seed))} for seed in range(4)]
    for trial in (saturating, trial_on(model, ("y",), draw[:2], draw[2:], "int8_tensor", tmp_path)):
        written = file_of(trial)
        of_file = list(products_of_file(written))
        assert [one.node.name for one in products_of(trial)] == [one.node.name for one in of_file]
        observed = onnx.ModelProto.FromString(written.SerializeToString())
        del observed.graph.output[:]
        names = list(dict.fromkeys(one.observed for one in of_file))
        observed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
        arrays = Session(observed, is_optimized=False).run(trial.samples[0], names)
        expected = kernels.clamped_layers(of_file, dict(zip(names, arrays, strict=True)))
        assert clamped_layers_of(trial) == expected
        assert any(layer.share > 0 for layer in expected.values())
