"""The written files themselves, loaded and run on inputs that decided nothing."""

import math
from dataclasses import dataclass
from pathlib import Path

import onnx

from quantstore.errors import RunError
from quantstore.graph.findings.base import MOST_GAP_DB
from quantstore.rescuing.assembly import Assembly, OtherNetworkError, Whole
from quantstore.rescuing.judge import Judge, db_of
from quantstore.run import kernels, qdq_file
from quantstore.run.comparison import sqnr_db
from quantstore.run.nodes import has_subgraph
from quantstore.run.plans import Rounding
from quantstore.run.runtime import Session

# A rescaled float model may differ from the original by what float32 loses, and by no more.
FLOAT_FILE_DB = 110.0
# Below, it is another network.
SAME_NETWORK_DB = 80.0


@dataclass(frozen=True, slots=True)
class Verified:
    """SQNR of a file in dB: in float arithmetic, and with the integer kernels of this computer.

    ``model`` has the compared tensors as outputs besides its own. ``integer_db`` is NaN where the
    file was not run so: see :func:`has_bodies`.
    """

    model: onnx.ModelProto
    file_db: float
    integer_db: float
    signed_integer_db: float
    weights_unsigned: bool


def verify(assembly: Assembly, rounding: Rounding, judge: Judge, folder: Path) -> Verified:
    """Write the quantized file, load it and run it both ways.

    Where sums saturate on this processor the weights are stored as uint8, which loses nothing.

    Raises:
        RunError: QDQ cannot express the plan, or onnxruntime refuses the file or stops.
    """
    model = _quantized(assembly, rounding, weights_unsigned=False)
    if has_bodies(model):
        file_db = _file_db(model, judge, folder, has_integer_kernels=False)
        return Verified(model, file_db, math.nan, math.nan, weights_unsigned=False)
    file_db, integer_db = _both(model, judge, folder)
    if not file_db - integer_db > MOST_GAP_DB or not kernels.has_mixed_products(rounding):
        return Verified(model, file_db, integer_db, integer_db, weights_unsigned=False)
    unsigned = _quantized(assembly, rounding, weights_unsigned=True)
    unsigned_file_db, unsigned_db = _both(unsigned, judge, folder)
    if unsigned_db < integer_db:
        return Verified(model, file_db, integer_db, integer_db, weights_unsigned=False)
    return Verified(unsigned, unsigned_file_db, unsigned_db, integer_db, weights_unsigned=True)


def require_same(whole: Whole, judge: Judge) -> None:
    """Raise unless the whole float network computes what the one on the bench does.

    Raises:
        OtherNetworkError: it does not, where heads lie in a branch for example.
    """
    network, sample = whole.network, judge.samples[0]
    outputs = network.session.run(network.fed(sample), judge.names)
    for name, before, after in zip(judge.names, judge.expected[0], outputs, strict=True):
        if before.dtype.kind != "f":
            continue
        if before.shape != after.shape or sqnr_db(before, after) < SAME_NETWORK_DB:
            raise OtherNetworkError(
                f"{name!r} lies in a branch, so its value is not the one that was compared",
                "remove the branch from the model, and rescue the rest",
            )


def has_bodies(model: onnx.ModelProto) -> bool:
    """Whether a model has branches or loops.

    Where a body reads a rounded tensor of the graph around it, onnxruntime 1.32 crashes while it
    looks for integer operators (``QDQPropagationTransformer``).
    """
    return any(has_subgraph(node) for node in model.graph.node)


def float_file_db(assembly: Assembly, rounding: Rounding, judge: Judge, folder: Path) -> float:
    """How far a rescaled float model is from the original, in dB; +infinity where they are equal.

    Args:
        assembly: of a draft whose biases have no corrections.
    """
    path = qdq_file.save(assembly.as_float(rounding, is_on_grid=False), folder / "rescaled.onnx")
    # As the float network was run: optimizations change the last digits as well.
    session = Session(path, is_optimized=False)
    worst = math.inf
    for sample, expected in zip(judge.samples, judge.expected, strict=True):
        for before, after in zip(expected, session.run(sample, judge.names), strict=True):
            if before.dtype.kind == "f":
                worst = min(worst, sqnr_db(before, after))
    return worst


def check(path: Path) -> None:
    """Raise unless a written file is a valid model that onnxruntime loads.

    Raises:
        RunError: it is none.
    """
    try:
        onnx.checker.check_model(str(path))
    except onnx.checker.ValidationError as error:
        first = str(error).strip().splitlines()[0]
        raise RunError(
            f"the written file is not a valid ONNX model: {first}",
            "report this as a bug of quantstore, with the model",
        ) from error
    Session(path)


def _quantized(
    assembly: Assembly, rounding: Rounding, *, weights_unsigned: bool
) -> onnx.ModelProto:
    return qdq_file.qdq_model(
        assembly.network,
        assembly.placed,
        rounding,
        assembly.plan,
        weights_unsigned=weights_unsigned,
        is_per_channel_allowed=True,
    )


def _both(model: onnx.ModelProto, judge: Judge, folder: Path) -> tuple[float, float]:
    return (
        _file_db(model, judge, folder, has_integer_kernels=False),
        _file_db(model, judge, folder, has_integer_kernels=True),
    )


def _file_db(
    model: onnx.ModelProto, judge: Judge, folder: Path, *, has_integer_kernels: bool
) -> float:
    path = qdq_file.save(model, folder / "verified.onnx")
    session = Session(path, has_integer_kernels=has_integer_kernels)
    return db_of(judge.ratios_of([session.run(sample, judge.names) for sample in judge.samples]))
