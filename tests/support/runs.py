"""Made-up runs for a store: figures that nobody could take for one another."""

import dataclasses
import math
from datetime import datetime, timedelta

import numpy as np

from quantstore import store
from quantstore.records import ActivationErrorRecord, SensitivityRecord, SimulationRecord
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
