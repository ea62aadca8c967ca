"""Made-up runs for a store: figures that nobody could take for one another."""

import dataclasses
import math
from datetime import datetime, timedelta

import numpy as np

from quantstore import store
from quantstore.records import (
    ActivationErrorRecord,
    AuditLayerRecord,
    AuditOutputRecord,
    AuditRecord,
    AuditTensorRecord,
    RescueDriftRecord,
    RescueFileRecord,
    RescueRecord,
    RescueStepRecord,
    RescueUnitRecord,
    SensitivityRecord,
    SimulationRecord,
)
from quantstore.schemes import target_of

TENSOR, CHANNEL = "int8_tensor_symmetric", "int8_channel_symmetric"
WHEN = datetime(2026, 11, 23, 7, 0)


def a_run(db=25.0, scheme=TENSOR, mode="both", source="noise", minute=0, **changes):
    """A row of ``simulations``; of the target that rounds just that, unless told otherwise."""
    record = SimulationRecord(
        scheme=scheme,
        mode=mode,
        calibration=None if mode == "weights" else "minmax",
        input_source=source,
        input_shape="input 1x1x8x8",
        compared="the outputs",
        sample_count=3,
        output_sqnr_db=math.nan if db is None else db,
        top1_agreement=math.nan,
        seconds=1.5,
        onnxruntime_version="1.32.0",
        created_at=WHEN + timedelta(minutes=minute),
        failure=None,
        target=target_of(scheme, mode),
    )
    return dataclasses.replace(record, **changes)


def a_tensor(depth, db, node="Relu_0", kind="accumulated", tensor=None, **changes):
    """A row of ``activation_errors``; its float values lie in the middle, the others spread."""
    counts = np.zeros(64, dtype=np.int64)
    counts[30:34] = 100
    quantized = np.full(64, 6, dtype=np.int64)
    record = ActivationErrorRecord(
        depth=depth,
        node_name=node,
        op_type="Conv" if node.startswith("/") or "conv" in node.lower() else "Relu",
        tensor=tensor or f"tensor_{depth}",
        kind=kind,
        sqnr_db=math.nan if db is None else db,
        cosine=0.9,
        mean_shift=-0.25,
        std_ratio=1.5,
        float_min=-1.0,
        float_max=1.0,
        quantized_min=-2.0,
        quantized_max=2.0,
        low=-2.0,
        high=2.0,
        float_counts=counts,
        quantized_counts=quantized,
    )
    return dataclasses.replace(record, **changes)


def add(con, model, run, tensors=()):
    return store.add_simulation(con, store.find_model(con, model), run, tensors)


def layer_names(con, model):
    return [
        row[0]
        for row in con.rows(
            "select layer from model_layers where model = ? order by depth", [model]
        )
    ]


def a_sensitivity(depth, db, **changes):
    record = SensitivityRecord(
        depth=depth,
        scheme=TENSOR,
        mode="weights",
        kind="alone",
        input_source="noise, image-like",
        sample_count=3,
        output_sqnr_db=math.nan if db is None else db,
        created_at=WHEN,
    )
    return dataclasses.replace(record, **changes)


def probed(path, model, scheme, output_sqnr_db, *, mode="both", failure=None, source="noise"):
    """A run of a model that the store holds, written into it."""
    record = SimulationRecord(
        scheme=scheme,
        mode=mode,
        calibration="minmax",
        input_source=source,
        input_shape="x: 1x1x8x8",
        compared="before Softmax",
        sample_count=5,
        output_sqnr_db=output_sqnr_db,
        top1_agreement=math.nan,
        seconds=0.5,
        onnxruntime_version="1.32.0",
        created_at=WHEN,
        failure=failure,
        target=target_of(scheme, mode),
    )
    with store.writing(path) as connection:
        store.add_simulation(connection, store.find_model(connection, model), record)


def a_rescue(target="int8_channel", before=8.0, after=25.0, minute=0, **changes):
    """A row of ``rescues`` with steps, units and a file."""
    record = RescueRecord(
        target=target,
        reach_db=20.0,
        keep_macs=0.9,
        allowed=("depthwise", "rounding", "int16"),
        input_source="12 images from photos/, imagenet",
        calibration_count=6,
        validation_count=3,
        test_count=3,
        float_check_db=math.inf,
        before_db=before,
        after_db=after,
        file_db=after - 0.25,
        integer_db=after - 0.5,
        float_file_db=118.0,
        agreement_before=0.375,
        agreement_after=0.96875,
        int8_macs=0.9875,
        added_nodes=2,
        weights_unsigned=False,
        is_proposal=False,
        reached=after >= 20.0,
        seconds=12.5,
        cpu_seconds=11.5,
        onnxruntime_version="1.32.0",
        created_at=WHEN + timedelta(minutes=minute),
        notes=("Images resized to 320x320.",),
        steps=(
            RescueStepRecord(
                step=0, remedy="placement", detail="everywhere", validation_db=before - 0.5,
                test_db=before, int8_macs=1.0, kept=True, seconds=1.5,
            ),
            RescueStepRecord(
                step=1, remedy="depthwise", detail="3 depthwise inputs: 3 as a Mul",
                validation_db=18.5, test_db=18.0, int8_macs=1.0, kept=True, seconds=0.5,
            ),
            RescueStepRecord(
                step=2, remedy="ranges", detail="calibration mse; gains 0.2 dB, 1 dB would be"
                " worth it", validation_db=18.75, test_db=17.5, int8_macs=1.0, seconds=0.25,
            ),
            RescueStepRecord(
                step=3, remedy="int16", detail="1 of 4 tensors and weights", predicted_db=23.5,
                validation_db=24.5, test_db=after, int8_macs=0.9875, unit_count=1, kept=True,
                seconds=5.5,
            ),
        ),
        units=(
            RescueUnitRecord(
                unit="Relu_0", kind="tensor", node_name="relu", depth=1, noise_to_signal=0.01,
                sensitivity_db=20.0, macs=4608, rank=0, precision="int16", range_low=-4.0,
                range_high=12.0, cause="outlier channels",
            ),
            RescueUnitRecord(
                unit="conv0", kind="weights", node_name="conv0", depth=0, noise_to_signal=0.001,
                sensitivity_db=30.0, macs=9216,
            ),
        ),
        drift=(
            RescueDriftRecord(
                depth=0, node_name="conv0", op_type="Conv", tensor="h", before_db=20.0,
                after_db=math.inf,
            ),
            RescueDriftRecord(
                depth=1, node_name="depthwise", op_type="Conv", tensor="d", before_db=6.0,
                after_db=26.5,
            ),
        ),
        files=(
            RescueFileRecord(
                path="out/net.rescued.onnx", kind="rescued", sha256="ab" * 32, bytes=12345
            ),
        ),
    )  # fmt: skip
    return dataclasses.replace(record, **changes)


def an_audit(minute=0, **changes):
    """A row of ``audits``: the scale of the second layer is too large, one tensor saturates."""
    record = AuditRecord(
        input_source="6 images from photos/, imagenet",
        input_shape="image 1x1x8x8",
        compared="the outputs",
        sample_count=6,
        float_layers=10,
        int8_layers=10,
        paired_layers=10,
        rounded_tensors=2,
        paired_tensors=2,
        grid_db=18.5,
        integer_db=18.25,
        exact_db=18.5,
        weights_db=19.5,
        activations_db=26.5,
        neither_db=70.5,
        saturates=False,
        seconds=2.5,
        cpu_seconds=2.25,
        onnxruntime_version="1.32.0",
        created_at=WHEN + timedelta(minutes=minute),
        notes=("images resized to 8x8",),
        layers=(an_audited_layer(0), an_audited_layer(1, 9.5, scale_ratio=1.3, gain=7.5)),
        tensors=(
            an_audited_tensor("h", saturated_share=0.125, sqnr_db=12.5, released_gain_db=1.5),
            an_audited_tensor("y", used_share=0.25),
        ),
        outputs=(
            AuditOutputRecord(
                output="logits", part=None, point="before Softmax", decides=True, grid_db=18.5,
                integer_db=18.25, exact_db=18.5, weights_db=19.5, activations_db=26.5,
                neither_db=70.5,
            ),
        ),
    )  # fmt: skip
    return dataclasses.replace(record, **changes)


def an_audited_layer(depth, stored_p10_db=43.5, *, gain=math.nan, **changes):
    record = AuditLayerRecord(
        float_depth=depth,
        int8_depth=depth,
        matched_by="value",
        relative_error=0.0125,
        stored_scheme="int8 per channel",
        stored_sqnr_db=stored_p10_db + 0.5,
        stored_p10_db=stored_p10_db,
        plain_p10_db=43.5,
        per_channel_p10_db=44.5,
        scale_ratio=1.0,
        rounding="plain",
        released_gain_db=gain,
    )
    return dataclasses.replace(record, **changes)


def an_audited_tensor(name, **changes):
    record = AuditTensorRecord(
        float_tensor=name,
        int8_tensor=f"{name}_quantized",
        scale=0.5,
        zero_point=-128,
        grid_low=0.0,
        grid_high=127.5,
        seen_low=-2.0,
        seen_high=255.0,
        saturated_share=0.0,
        used_share=1.0,
        sqnr_db=40.5,
        best_sqnr_db=41.5,
        drift_db=30.5,
        released_gain_db=math.nan,
    )
    return dataclasses.replace(record, **changes)


def audited(path, int8_model, float_model, record=None):
    """An audit of two models that the store holds, written into it; the first becomes int8."""
    with store.writing(path) as connection:
        int8_id = store.find_model(connection, int8_model)
        connection.rows(
            "update layers set already_quantized = true, stored_scheme = 'int8 per channel'"
            " where model_id = ?",
            [int8_id],
        )
        return store.add_audit(
            connection,
            int8_id,
            store.find_model(connection, float_model),
            f"{float_model}.onnx",
            record or an_audit(),
        )
