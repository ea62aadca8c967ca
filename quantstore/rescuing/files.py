"""An assembled plan in, files in a folder out: each written whole, checked and loaded."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx

from quantstore.errors import RunError
from quantstore.records import RescueFileRecord
from quantstore.rescuing import formats
from quantstore.rescuing.assembly import Assembly
from quantstore.rescuing.facts import QuantizedNetwork, QuantizedTensor, QuantizedWeights
from quantstore.rescuing.verification import Verified, check
from quantstore.run import qdq_file
from quantstore.run.grids import ActivationGrid
from quantstore.run.nodes import consumers, name_of, producers
from quantstore.run.placement import MULTIPLYING
from quantstore.run.plans import Rounding
from quantstore.run.runtime import Feeds
from quantstore.schemes import Target

# A grid of so many codes has 8 bits.
_CODES_OF_8_BITS = 256


def write_files(
    folder: Path,
    name: str,
    assembly: Assembly,
    verified: Verified,
    target: Target,
    *,
    sample: Feeds,
    is_proposal: bool,
) -> tuple[tuple[RescueFileRecord, ...], tuple[str, ...]]:
    """Write everything that a plan is handed out as.

    Args:
        folder: it is made where it is not there.
        name: of the model, with which names of files begin.
        sample: one that the network runs on.
        is_proposal: write the list of nodes alone, no model and no scales.

    Returns:
        A record of each file, and what there is to say about them.

    Raises:
        RunError: a file cannot be written, or is no valid model.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_written(folder, error) from error
    files: list[RescueFileRecord] = []
    notes: list[str] = []
    if not is_proposal:
        rounding = Rounding.of(target)
        for file_kind, model in (
            ("rescued", assembly.finished(verified.model)),
            ("ongrid", assembly.finished(assembly.as_float(rounding, is_on_grid=True))),
        ):
            files += _model(folder / formats.KINDS[file_kind].file_name(name), file_kind, model)
    network = facts_of(assembly, target)
    first_outputs = {
        name_of(node): node.output[0] for node in assembly.network.model.graph.node if node.output
    }
    written = formats.texts(
        network,
        name,
        input_shapes={key: array.shape for key, array in sample.items()},
        first_outputs=first_outputs,
    )
    for text in written:
        if is_proposal and text.kind != "exclude":
            continue
        path = folder / text.file_name
        try:
            path.write_text(text.text, encoding="utf-8")
        except OSError as error:
            raise _not_written(path, error) from error
        files.append(_record(path, text.kind))
        if text.skipped:
            count = len(text.skipped)
            notes.append(
                f"{text.file_name} leaves out {count} {'name' if count == 1 else 'names'} that its"
                f" format cannot hold, {text.skipped[0]!r} for example."
            )
    return tuple(files), tuple(notes)


def _not_written(path: Path, error: OSError) -> RunError:
    return RunError(
        f"{path.name} cannot be written: {error.strerror or error}", "choose another folder"
    )


def _model(path: Path, file_kind: str, model: onnx.ModelProto) -> list[RescueFileRecord]:
    qdq_file.save(model, path)
    check(path)
    data = path.with_name(f"{path.name}.data")
    records = [_record(path, file_kind)]
    return records + ([_record(data, f"{file_kind} data")] if data.exists() else [])


def _record(path: Path, file_kind: str) -> RescueFileRecord:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return RescueFileRecord(
        path=str(path), kind=file_kind, sha256=digest, bytes=path.stat().st_size
    )


# What a plan decided


def facts_of(assembly: Assembly, target: Target) -> QuantizedNetwork:
    """Every tensor and all weights of a plan, by the names of its float file."""
    model = assembly.network.model
    activations = target.activations
    if activations is None:
        raise ValueError("a target with float activations has no scales to write")
    return QuantizedNetwork(
        graph_name=model.graph.name or "graph",
        opset=next(used.version for used in model.opset_import if used.domain in ("", "ai.onnx")),
        target=target.name,
        every_node=tuple((name_of(node), node.op_type) for node in model.graph.node),
        tensors=tuple(_tensors(assembly, is_symmetric=activations.is_symmetric)),
        weights=tuple(_weights(assembly, bits=target.scheme.bits)),
        float_nodes=tuple(_float_nodes(assembly)),
        symmetric_activations=activations.is_symmetric,
        activation_bits=activations.bits,
    )


def _tensors(assembly: Assembly, *, is_symmetric: bool) -> Iterator[QuantizedTensor]:
    made_by = producers(assembly.network.model)
    for name in assembly.placed.activations:
        grid = assembly.plan.grids.get(name)
        node = made_by.get(name)
        scale, zero_point, low, high = _numbers(grid, is_symmetric=is_symmetric)
        yield QuantizedTensor(
            tensor=name,
            node_name=None if node is None else name_of(node),
            bits=None if grid is None else _bits(grid),
            scale=scale,
            zero_point=zero_point,
            low=low,
            high=high,
            is_symmetric=is_symmetric,
        )


def _numbers(grid: ActivationGrid | None, *, is_symmetric: bool) -> tuple[float, int, float, float]:
    """Scale, zero point and both ends; of a grid with a scale for each channel the widest."""
    if grid is None:
        return 1.0, 0, 0.0, 0.0
    at = int(np.argmax(grid.scale.ravel()))
    scale, lowest, highest = (
        float(part.ravel()[at if part.size > 1 else 0])
        for part in (grid.scale, grid.lowest, grid.highest)
    )
    zero_point = 0 if is_symmetric else int(-lowest)
    return scale, zero_point, lowest * scale, highest * scale


def _bits(grid: ActivationGrid) -> int:
    return 8 if float(np.max(grid.highest - grid.lowest)) < _CODES_OF_8_BITS else 16


def _weights(assembly: Assembly, *, bits: int) -> Iterator[QuantizedWeights]:
    readers = consumers(assembly.network.model)
    for name in assembly.placed.weights:
        slot = assembly.network.slot_of.get(name)
        if slot is None:
            continue
        grid = assembly.plan.constant_grids.get(name)
        scales = () if grid is None else tuple(float(scale) for scale in grid.scale.ravel())
        axis = slot.site.operand.channel_axis(slot.site.node, assembly.network.constants[name].ndim)
        reading = readers.get(name, [])
        yield QuantizedWeights(
            tensor=slot.site.tensor.name or slot.site.name,
            node_name=name_of(reading[0]) if reading else slot.site.name,
            axis=axis if len(scales) > 1 else None,
            scales=scales,
            bits=None if grid is None else bits,
        )


def _float_nodes(assembly: Assembly) -> Iterator[str]:
    """Nodes that multiply with floats, or with 16 bits, though the target would have it."""
    rounded = {name for name, grid in assembly.plan.grids.items() if _bits(grid) == 8}
    placed = set(assembly.placed.activations)
    for node in assembly.network.model.graph.node:
        if node.op_type not in MULTIPLYING:
            continue
        reads_wide = any(name in placed and name not in rounded for name in node.input)
        slots = [name for name in node.input if name in assembly.network.slot_of]
        in_float = any(name not in assembly.plan.constant_grids for name in slots)
        if reads_wide or in_float:
            yield name_of(node)
