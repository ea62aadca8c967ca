"""A float model in, the model and its quantized twin out: by our grid, or by onnxruntime's."""

import contextlib
import ctypes
import gc
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from quantstore import graph
from quantstore.errors import InputsError, RunError
from quantstore.records import Array
from quantstore.run import ranges, sensitivity, surgery, twin
from quantstore.run.inputs import Samples
from quantstore.run.runtime import Session, quantizable, quantize_file
from quantstore.run.surgery import TwinPair
from quantstore.run.workplace import Workplace
from quantstore.schemes import SCHEMES


@dataclass(frozen=True, slots=True)
class RoundedWeights:
    """The twin is the same graph with other weights in ``slots``."""

    pair: TwinPair
    model: twin.FloatModel
    slots: tuple[twin.Slot, ...]


@dataclass(frozen=True, slots=True)
class RoundedActivations:
    """The twin was written by onnxruntime's quantizer.

    ``depth_of`` says which operator of the twin is which layer of the file, by what
    :func:`quantstore.run.surgery.key_of` makes of its node.
    """

    pair: TwinPair
    depth_of: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class ExportedModel:
    """A model as onnxruntime reads it; ``output_of``: what each layer computes, by its name."""

    whole: onnx.ModelProto
    output_of: Mapping[str, str]


def round_weights(work: Workplace, model: twin.FloatModel) -> RoundedWeights:
    """Our own grid: the same graph with other weights.

    Raises:
        InputsError: no layer has a name that shall be excluded.
    """
    scheme = SCHEMES[work.choices.scheme]
    slots = twin.lift_weights(model, fold=work.choices.fold)
    excluded = _excluded(work, {slot.site.name for slot in slots})
    as_float = work.outside(twin.to_proto(model), "float")
    chosen = tuple(slot for slot in slots if slot.site.name not in excluded)
    for done, slot in enumerate(chosen):
        twin.fill([slot], [twin.quantized_weights(model, slot, scheme)])
        work.say("quantizing", done + 1, len(chosen))
    quantized = work.outside(twin.to_proto(model), "quantized")
    twin.fill(chosen, [twin.float_weights(slot) for slot in chosen])
    names = frozenset(str(slot.value.name) for slot in chosen)
    return RoundedWeights(TwinPair(as_float, quantized, names), model, chosen)


def export(model: twin.FloatModel) -> ExportedModel:
    """What :func:`round_activations` takes, so that the model itself can go."""
    return ExportedModel(
        twin.to_proto(model),
        {site.name: str(site.node.outputs[0].name) for site in graph.find_sites(model.file)},
    )


def round_activations(
    work: Workplace, exported: ExportedModel, calibration: Samples, depth_of: Mapping[str, int]
) -> RoundedActivations:
    """onnxruntime's own quantizer, around every operator that it knows.

    Args:
        calibration: where the ranges of activations are found.
        depth_of: the depth of every layer by its name.

    Raises:
        InputsError: no layer or node has a name that shall be excluded.
        RunError: the quantizer fails, or finds nothing to do.
    """
    quantizer_folder = work.folder / "work"
    quantizer_folder.mkdir()
    source = quantizable(exported.whole, quantizer_folder, fold=work.choices.fold)
    work.outside(exported.whole, "whole")
    as_float = onnx.load(source)
    surgery.name_every_node(as_float)
    onnx.save(as_float, source)
    work.outside(as_float, "float")
    excluded = _excluded_nodes(work, exported, as_float)
    target = _quantized_file(work, source, as_float, calibration, excluded)
    give_memory_back()
    quantized = onnx.load(target)
    if not any(node.op_type == "QuantizeLinear" for node in quantized.graph.node):
        raise RunError(
            "onnxruntime's quantizer finds nothing to quantize in this model",
            "try --mode weights",
        )
    pair = TwinPair(as_float, work.outside(quantized, "quantized"))
    if work.choices.mode == "activations":
        pair = TwinPair(as_float, surgery.with_float_constants(pair))
    quantized_depths = {name: depth for name, depth in depth_of.items() if name not in excluded}
    return RoundedActivations(pair, _operator_depths(pair, exported, quantized_depths))


def switchboard(
    work: Workplace, rounded: RoundedWeights | RoundedActivations, depth_of: Mapping[str, int]
) -> sensitivity.Switchboard:
    """The pair as one model whose layers can be quantized one by one."""
    if isinstance(rounded, RoundedWeights):
        return _swapped_weights(work, rounded, depth_of)
    return _switches(work, rounded)


def give_memory_back() -> None:
    """Return to the system what a finished stage has freed.

    Objects of the quantizer refer to one another, and glibc keeps some 500 MB of a large session in
    reserve. Giving every block back at once, by its threshold, would take five times as long.
    """
    gc.collect()
    # Only glibc has it.
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def _excluded(work: Workplace, names: Iterable[str]) -> list[str]:
    known_names = set(names)
    missing = [name for name in work.choices.exclude if name not in known_names]
    if missing:
        raise InputsError(
            f"no layer is named {missing[0]!r}", "list them with: quantstore layers MODEL"
        )
    return list(work.choices.exclude)


def _excluded_nodes(work: Workplace, exported: ExportedModel, as_float: Any) -> set[str]:
    """Names of the optimized model's nodes that stay float."""
    producer_of = surgery.producers(as_float)
    node_names = {node.name for node in as_float.graph.node}
    excluded = set()
    for name in _excluded(work, exported.output_of.keys() | node_names):
        tensor = None
        if name in exported.output_of:
            output = exported.output_of[name]
            tensor = surgery.successor(exported.whole, output, producer_of.__contains__)
        excluded.add(name if tensor is None else producer_of[tensor].name)
    return excluded


def _quantized_file(
    work: Workplace, source: Path, as_float: Any, calibration: Samples, excluded: set[str]
) -> Path:
    scheme, method = SCHEMES[work.choices.scheme], work.choices.calibration
    say = work.steps("calibrating")
    say(0, len(calibration))
    cache = None
    if method == "minmax":
        cache = source.parent / "ranges.json"
        ranges.write_minmax(as_float, calibration, work.folder, cache, say)
    fed = [value.name for value in as_float.graph.input]
    return quantize_file(
        source,
        source.parent / "quantized.onnx",
        _CountedFeeds(calibration, fed, lambda count: say(count, len(calibration))),
        per_channel=scheme.is_per_channel,
        calibration=method,
        cache=cache,
        nodes_to_exclude=sorted(excluded),
        extra_options=None if scheme.is_symmetric else {"WeightSymmetric": False},
    )


def _operator_depths(
    pair: TwinPair, exported: ExportedModel, depth_of: Mapping[str, int]
) -> dict[str, int]:
    """Which operator of the twin is which layer of the file."""
    operator_of = {
        result.float_name: surgery.key_of(operator.node)
        for operator in pair.operators()
        for result in operator.results
    }
    depths = {}
    for name, output in exported.output_of.items():
        tensor = surgery.successor(exported.whole, output, operator_of.__contains__)
        if tensor is not None and name in depth_of:
            depths[operator_of[tensor]] = depth_of[name]
    return depths


def _swapped_weights(
    work: Workplace, rounded: RoundedWeights, depth_of: Mapping[str, int]
) -> sensitivity.SwappedWeights:
    model, scheme = rounded.model, SCHEMES[work.choices.scheme]
    slots = {depth_of[slot.site.name]: slot for slot in rounded.slots if slot.site.name in depth_of}
    quantized = {
        depth: twin.quantized_weights(model, slot, scheme) for depth, slot in slots.items()
    }
    as_float = {depth: twin.float_weights(slot) for depth, slot in slots.items()}
    twin.weights_as_inputs(model, list(slots.values()))
    return sensitivity.SwappedWeights(
        Session(work.saved(twin.to_proto(model), "swapped")),
        sorted(slots),
        {depth: str(slot.value.name) for depth, slot in slots.items()},
        as_float,
        quantized,
    )


def _switches(work: Workplace, rounded: RoundedActivations) -> sensitivity.Switches:
    groups = {key: str(depth) for key, depth in rounded.depth_of.items()}
    model, flags = surgery.with_switches(rounded.pair, groups)
    session = Session(work.saved(model, "switches"))
    names: dict[int | None, str] = {
        int(flag.removeprefix(surgery.FLAG)) if flag != surgery.FLAG else None: flag
        for flag in flags
    }
    depths = sorted(depth for depth in names if depth is not None)
    return sensitivity.Switches(session, depths, names)


class _CountedFeeds(Sequence[dict[str, Array]]):
    """Samples as the quantizer wants them, with no array too many, saying how many it has had."""

    def __init__(
        self, samples: Samples, names: Sequence[str], report: Callable[[int], None]
    ) -> None:
        self._samples, self._names, self._report = samples, names, report

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: Any) -> Any:
        self._report(min(index + 1, len(self)))
        feed = self._samples[index]
        return {name: feed[name] for name in self._names}
