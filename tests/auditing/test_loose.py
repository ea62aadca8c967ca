"""A quantized GGUF file held against its F16 parent: weights alone, for neither can be run."""

import gguf
import numpy as np
import pytest

from quantstore import cli, queries, store
from quantstore.auditing.audit import TWO_FORMATS, audit
from quantstore.auditing.loose import NOT_QUANTIZED, NOTHING_RUN, QUANTIZED
from quantstore.checks import Limits, audited
from quantstore.errors import RunError
from quantstore.numerics.quantization import sqnr_db
from quantstore.pipeline.ingest import ingest_file
from quantstore.wording import audits as wording
from quantstore.wording import frames
from tests.support.graphs import conv_model, gaussian, save
from tests.support.weight_files import save_gguf, save_tensors

NAMES = [f"blk.{block}.{part}" for block in range(3) for part in ("attn_q", "ffn_up")]
WEIGHTS = {
    f"{name}.weight": gaussian(64, 256, seed=number) for number, name in enumerate(NAMES)
} | {"output_norm.weight": gaussian(64)}


def quantized(type_name, weights=WEIGHTS):
    return {
        name: (array, type_name) if array.ndim > 1 else array for name, array in weights.items()
    }


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A file in half precision and the one that its writer made from it, in 4 bits."""
    folder = tmp_path_factory.mktemp("pair")
    halves = {name: array.astype(np.float16) for name, array in WEIGHTS.items()}
    in_floats = {name: array.astype(np.float32) for name, array in halves.items()}
    return (
        save_gguf(folder / "F16.gguf", halves),
        save_gguf(folder / "Q4_0.gguf", quantized("Q4_0", in_floats)),
    )


@pytest.fixture(scope="module")
def record(pair):
    return audit(*pair, "noise").record


def test_every_layer_is_paired_by_its_weights(record):
    assert (record.float_layers, record.int8_layers, record.paired_layers) == (6, 6, 6)
    assert [layer.matched_by for layer in record.layers] == ["value"] * 6
    assert [layer.float_depth for layer in record.layers] == list(range(6))


def test_what_the_weights_keep_is_what_the_package_says(record, pair):
    before, after = (
        {
            tensor.name: gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float64)
            for tensor in gguf.GGUFReader(path).tensors
        }
        for path in pair
    )
    for layer, name in zip(record.layers, NAMES, strict=True):
        weights, stored = (
            tensors[f"{name}.weight"].reshape(64, 256) for tensors in (before, after)
        )
        expected = sqnr_db(np.square(weights).sum(), np.square(stored - weights).sum())
        assert layer.stored_sqnr_db == pytest.approx(expected, abs=1e-6)
        assert layer.stored_scheme == "q4_0 per block of 32"


def test_nothing_was_run_and_what_stays_empty_is_said(record):
    assert not record.was_run
    at_outputs = (
        *(record.grid_db, record.integer_db, record.exact_db),
        *(record.weights_db, record.activations_db, record.neither_db),
    )
    assert np.isnan(at_outputs).all()
    assert (record.tensors, record.outputs, record.notes) == ((), (), (NOTHING_RUN,))
    # Blocks have a grid each: no single scale, and no plain rounding of the same kind.
    assert {layer.rounding for layer in record.layers} == {None}
    assert np.isnan([layer.plain_p10_db for layer in record.layers]).all()


def test_renamed_layers_are_paired_by_value(pair, tmp_path):
    halves = {
        f"model.layers.{number}.weight": WEIGHTS[f"{name}.weight"]
        for number, name in enumerate(NAMES)
    }
    before = save_tensors(tmp_path / "model.safetensors", halves)
    paired = audit(before, pair[1], "noise").record
    assert [layer.matched_by for layer in paired.layers] == ["value"] * 6
    assert [layer.float_depth for layer in paired.layers] == list(range(6))


def test_fewer_bits_keep_less(pair, tmp_path):
    coarse = save_gguf(tmp_path / "TQ2_0.gguf", quantized("TQ2_0"))
    in_4_bits, in_2_bits = (audit(pair[0], path, "noise").record for path in (pair[1], coarse))
    for fine, rough in zip(in_4_bits.layers, in_2_bits.layers, strict=True):
        assert rough.stored_sqnr_db < fine.stored_sqnr_db - 6


def test_files_that_are_no_pair(pair, tmp_path):
    for wrong, reason in (((pair[1], pair[1]), QUANTIZED), ((pair[0], pair[0]), NOT_QUANTIZED)):
        with pytest.raises(RunError, match=reason):
            audit(*wrong, "noise")
    other = save_gguf(tmp_path / "o.gguf", {"x.weight": (gaussian(8, 32), "Q8_0")})
    with pytest.raises(RunError, match="only 0 of 1 layers"):
        audit(pair[0], other, "noise")
    with pytest.raises(RunError) as failure:
        audit(save(conv_model(), tmp_path / "m.onnx"), pair[1], "noise")
    assert failure.value.args[0] == TWO_FORMATS[0]


# In the store


@pytest.fixture(scope="module")
def stored(pair, tmp_path_factory):
    """What the command line stored and said of the pair, in a store."""
    path = tmp_path_factory.mktemp("store") / "s.duckdb"
    assert cli.main(["audit", *map(str, pair), "--db", str(path)]) == 0
    return path


def test_an_audit_without_a_run_is_no_verdict(stored):
    with store.reading(stored) as con:
        (row,) = queries.audits(con).to_dict("records")
        assert (row["int8_model"], row["float_model"]) == ("Q4_0", "F16")
        assert frames.figure_or_none(row["grid_db"]) is None
        assert not isinstance(row["band"], str)
        assert con.rows("select distinct verdict from verdicts") == [("untested",)]
        (verdict, *_) = queries.verdicts(con, ["Q4_0"]).to_dict("records")
        assert queries.model_facts(verdict).audited_against is None
        layers = queries.audit_layers(con, int(row["audit_id"]))
    record = frames.audit_record(row, layers)
    assert np.isnan(record.grid_db)
    headline = wording.headline(record, "Q4_0", "F16")
    assert headline.startswith("In the median layer of Q4_0, 90")
    lowest, pairing = wording.sentences(record, frames.audit_layer_names(layers))
    assert lowest.startswith("Lowest: blk.")
    assert pairing.startswith("6 of 6")
    assert wording.figures(record) == []
    assert wording.result_of(record.grid_db, record.sample_count) == "weights only"


def test_limits_on_outputs_are_open_and_those_on_layers_hold(stored):
    with store.reading(stored) as con:
        subject = audited.read(con, "Q4_0", "F16")

    def judged(**limits):
        (check,) = audited.judge("Q4_0", "scheme", Limits(audit="F16", **limits), subject)
        return check

    open_checks = (
        judged(),
        judged(min_audit_db=10),
        judged(max_integer_gap_db=1),
        judged(max_saturated_share=0.1),
    )
    for check in open_checks:
        assert (check.outcome, check.message) == ("not measured", audited.NOTHING_RUN)
    assert judged(min_audit_layer_db=10).outcome == "pass"
    assert judged(min_audit_layer_db=40).outcome == "fail"


@pytest.mark.slow
def test_the_command_prints_layers_and_says_what_is_empty(pair, stored, capsys):
    assert cli.main(["audit", "F16", "Q4_0", "--db", str(stored)]) == 0
    printed = capsys.readouterr()
    assert "blk.2.ffn_up" in printed.out
    assert "float arithmetic" not in printed.out
    assert NOTHING_RUN in printed.err
    assert "weights only in" in printed.err


@pytest.mark.slow
def test_a_model_that_was_ingested_before_is_audited_by_its_name(pair, tmp_path):
    path = tmp_path / "s.duckdb"
    for file in pair:
        ingest_file(file, path)
    assert cli.main(["audit", "F16", "Q4_0", "--db", str(path)]) == 0
