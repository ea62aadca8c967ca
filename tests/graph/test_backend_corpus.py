"""The models that travel with the onnx package: what exporters and operator tests really write."""

from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from quantstore.errors import NoLayersError, QuantstoreError
from quantstore.numerics.sweep import SweepPlan
from quantstore.pipeline.ingest import ingest_file
from quantstore.pipeline.measure_file import measure_file
from quantstore.pipeline.outcome import IngestChoices
from quantstore.schemes import INT8_SCHEMES, SCHEMES

DATA = Path(onnx.__file__).parent / "backend" / "test" / "data"
LIGHT = SweepPlan({name: SCHEMES[name] for name in INT8_SCHEMES}, is_full=False)


@cache
def models(folder):
    return sorted((DATA / folder).rglob("*.onnx"))


def outcome(path):
    """The number of layers, or the one sentence that refuses the model."""
    try:
        return len(measure_file(path, jobs=1, plan=LIGHT).layers)
    except QuantstoreError as error:
        sentence = error.sentence
    assert sentence.isprintable()
    assert "; " in sentence
    return sentence


FOLDERS = [path.name for path in sorted(DATA.iterdir()) if path.is_dir() and path.name != "light"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_model_is_read_or_refused_in_one_sentence(folder):
    found = {path: outcome(path) for path in models(folder)}
    refused = [what for what in found.values() if isinstance(what, str)]
    # They are all sound: what is refused has no weights to measure.
    assert [what for what in refused if not what.startswith("no layer")] == []


def test_a_network_whose_weights_are_computed_by_its_own_nodes():
    """The folder light holds whole networks whose weights are nodes that repeat one number."""
    path = DATA / "light" / "light_squeezenet.onnx"
    if not path.exists():
        pytest.skip(f"onnx {onnx.__version__} does not bring it")
    assert outcome(path) == 26


# Modules that generate one-node models; importing all of them would take longer than reading them.
SAMPLE = ("conv", "convtranspose", "gemm", "matmul", "lstm", "gru", "rnn", "qlinearconv", "einsum")


@pytest.mark.slow
def test_operators_that_onnx_generates_tests_for(tmp_path):
    """Each model is a single node fed by inputs; here all but the first are weights."""
    cases = pytest.importorskip("onnx.backend.test.case.node")
    for name in SAMPLE:
        pytest.importorskip(f"onnx.backend.test.case.node.{name}")
    found = {}
    for case in cases._NodeTestCases:
        model = onnx.ModelProto()
        model.CopyFrom(case.model)
        values = zip(model.graph.input, case.data_sets[0][0], strict=False)
        for value, array in list(values)[1:]:
            if isinstance(array, np.ndarray):
                model.graph.initializer.append(numpy_helper.from_array(array, value.name))
        path = tmp_path / f"{case.name}.onnx"
        path.write_bytes(model.SerializeToString())
        found[case.name] = outcome(path)
    assert len(found) > 20
    layers = {name: what for name, what in found.items() if isinstance(what, int)}
    assert {"test_basic_conv_with_padding", "test_lstm_defaults", "test_gemm_all_attributes"} <= {
        *layers
    }
    assert layers["test_lstm_defaults"] == 2


@pytest.mark.slow
def test_a_model_of_the_package_is_stored(tmp_path):
    path = next(path for path in models("pytorch-converted") if isinstance(outcome(path), int))
    result = ingest_file(path, tmp_path / "s.duckdb", IngestChoices(jobs=1, name="packaged"))
    assert result.outcome == "stored"


def test_a_model_without_weights_names_what_it_met():
    path = next(path for path in models("simple") if isinstance(outcome(path), str))
    with pytest.raises(NoLayersError, match="met"):
        measure_file(path, jobs=1)
