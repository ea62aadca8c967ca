"""A file, inputs and choices in, a network on the bench out."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from quantstore.errors import InputsError, RunError
from quantstore.records import Array
from quantstore.rescuing.bench import RescueBench, RescueBudget
from quantstore.rescuing.branches import with_branches
from quantstore.rescuing.choices import RescueChoices
from quantstore.rescuing.draft import Draft, Drafting, candidate_grids
from quantstore.rescuing.judge import Judge
from quantstore.rescuing.macs import count_macs
from quantstore.rescuing.scaling import scalable_tensors
from quantstore.rescuing.statistics import values_by_channel
from quantstore.run import subject, twin
from quantstore.run.choices import NOISE
from quantstore.run.comparison import sqnr_db
from quantstore.run.emulator import Emulator
from quantstore.run.feeding import choose_samples, read_inputs
from quantstore.run.inputs import Samples
from quantstore.run.layers import LayerKey
from quantstore.run.network import Network
from quantstore.run.placement import Placement, placement
from quantstore.run.ranges import observe
from quantstore.run.subject import PreparedModel
from quantstore.run.workplace import Workplace
from quantstore.schemes import Target

# With every rounding off the emulator gives what the float network gives; less is a bug.
FLOAT_CHECK_DB = 100.0
# Below, calibration and validation share their samples.
_FEWEST = 8

WAS_QUANTIZED = "the file already computes with integers, so its original weights are lost"


@dataclass(frozen=True)
class Opened:
    """Everything a rescue begins with.

    ``depth_of``: of the layers, as the store counts. ``is_shared``: whether validation and
    calibration are the same samples; ``is_test_shared``: the test as well. ``branches``: by the
    name of its own that a depthwise input got, the tensor.
    """

    bench: RescueBench
    subject: PreparedModel
    sha256: str
    depth_of: dict[LayerKey, int]
    float_check_db: float
    description: str
    shapes: str
    samples: Samples
    branches: dict[str, str]
    is_shared: bool
    is_test_shared: bool
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Shares:
    calibration: Samples
    validation: Samples
    test: Samples
    notes: tuple[str, ...]
    is_test_shared: bool = False


def open_model(path: Path, inputs: str, choices: RescueChoices, work: Workplace) -> Opened:
    """Read a model and its inputs, find ranges, and load the emulator.

    Raises:
        ModelFileError: the model cannot be read.
        InputsError: the inputs cannot, or do not fit.
        RunError: the model is quantized already, or onnxruntime refuses it.
    """
    budget = RescueBudget(choices.budget_seconds)
    work.say("reading", 0, 1)
    depth_of = subject.stored_depths(path)
    model = twin.open_float(path)
    if model.was_quantized:
        raise RunError(WAS_QUANTIZED, "rescue the float model that it was made from")
    sha256 = model.file.sha256
    shares = _shares(work, model, inputs, choices)
    cut_model = subject.cut(model, shares.calibration)
    del model
    opened = cut_model.prepared(work.folder, fold=choices.fold)
    del cut_model
    network, target = opened.network, choices.rounded
    placed = placement(network, target)
    branches: dict[str, str] = {}
    if target.placement == "mac_inputs":
        network, branches = with_branches(network, placed)
        placed = _with_sources(placement(network, target), branches)
    scalable = tuple(scalable_tensors(network, placed))
    chained = tuple(dict.fromkeys(name for tensor in scalable for name in tensor.chain))
    drafting = _drafting(
        network, placed, target, chained, branches, shares.calibration, work, "calibrating"
    )
    base = drafting.plan(Draft())
    hints = candidate_grids(
        (name, ends[0].size, drafting.trailing_axes(name))
        for name in chained
        if (ends := drafting.channel_ends(name)) is not None
    )
    emulator = Emulator(network, [placed], [hints, base.grids])
    validation = [shares.validation[index] for index in range(len(shares.validation))]
    test = [shares.test[index] for index in range(len(shares.test))]
    compared_parts = opened.points.parts
    validation_judge = Judge(emulator, compared_parts, validation)
    bench = RescueBench(
        network=network,
        placed=placed,
        drafting=drafting,
        scalable=scalable,
        macs=count_macs(network),
        calibration=shares.calibration,
        validation=validation_judge,
        test=Judge(emulator, compared_parts, test),
        folder=work.folder,
        budget=budget,
        steps=work.steps,
        is_real=inputs != NOISE,
    )
    float_check_db = _float_check(opened, validation_judge, validation[0])
    if float_check_db < FLOAT_CHECK_DB:
        raise RunError(
            "with all rounding off, the emulator agrees with the float model to only"
            f" {float_check_db:.0f} dB",
            "report this as a bug of quantstore, with the model",
        )
    return Opened(
        bench=bench,
        subject=opened,
        sha256=sha256,
        depth_of=depth_of,
        float_check_db=float_check_db,
        description=shares.validation.description,
        shapes=shares.validation.shapes,
        samples=shares.test,
        branches=branches,
        is_shared=shares.calibration is shares.validation,
        is_test_shared=shares.is_test_shared,
        notes=shares.notes,
    )


def _drafting(
    network: Network,
    placed: Placement,
    target: Target,
    chained: Sequence[str],
    branches: Mapping[str, str],
    samples: Samples,
    work: Workplace,
    stage: str,
) -> Drafting:
    """Ranges, and some values of what can be rescaled, over these samples."""
    by_channel = frozenset(chained) | placed.depthwise
    observed = observe(
        network,
        [*placed.grid_of.values(), *sorted(by_channel)],
        samples,
        work.folder,
        work.steps(stage),
        has_histograms=True,
        by_channel=by_channel,
    )
    values = values_by_channel(network, chained, samples, work.folder)
    return Drafting(network, placed, target, observed, values, branches)


def calibrated_on_all(opened: Opened, work: Workplace) -> Drafting:
    """Ranges over all inputs of the search, for the plan that was chosen.

    What the validation inputs reach beyond the others is clipped no longer, nor what unseen inputs
    reach likewise.
    """
    bench = opened.bench
    chained = tuple(dict.fromkeys(name for tensor in bench.scalable for name in tensor.chain))
    calibration, validation = bench.calibration, bench.validation.samples
    together = Samples(
        opened.description,
        len(calibration) + len(validation),
        lambda index: (
            calibration[index]
            if index < len(calibration)
            else dict(validation[index - len(calibration)])
        ),
    )
    return _drafting(
        bench.network,
        bench.placed,
        bench.drafting.target,
        chained,
        opened.branches,
        together,
        work,
        "calibrating on all search inputs",
    )


def _with_sources(placed: Placement, branches: Mapping[str, str]) -> Placement:
    """The placement of a network with branches, and what the target rounds without them."""
    sources = tuple(dict.fromkeys(branches.values()))
    return dataclasses.replace(
        placed,
        grid_of={**placed.grid_of, **dict(zip(sources, sources, strict=True))},
        activations=(*placed.activations, *sources),
    )


def _float_check(opened: PreparedModel, judge: Judge, sample: dict[str, Array]) -> float:
    """The emulator with everything off against the network itself, in dB."""
    expected = opened.network.session.run(opened.network.fed(sample), opened.network.outputs)
    return min(
        sqnr_db(before, after)
        for before, after in zip(expected, judge.expected[0], strict=True)
        if before.dtype.kind == "f"
    )


def _shares(
    work: Workplace, model: twin.FloatModel, inputs: str, choices: RescueChoices
) -> _Shares:
    """By position: half to calibrate on, a quarter to choose by, a quarter that decides nothing."""
    if inputs == NOISE:
        drawn = choose_samples(work, model.model, NOISE)
        both = drawn.compared
        return _Shares(
            drawn.calibration,
            both.some(range(0, len(both), 2)),
            both.some(range(1, len(both), 2) if len(both) > 1 else [0]),
            drawn.notes,
        )
    samples = read_inputs(work, model.model, inputs)
    if choices.test_inputs is not None:
        if choices.test_inputs == NOISE:
            raise InputsError("a test on noise is meaningless", "name a folder of images or arrays")
        test = read_inputs(work, model.model, choices.test_inputs)
        search, notes = samples, tuple(dict.fromkeys((*samples.notes, *test.notes)))
        tested: list[int] = []
        calibration = [index for index in range(len(search)) if index % 3 != 1]
        validation = [index for index in range(len(search)) if index % 3 == 1]
    else:
        search, test, notes = samples, samples, samples.notes
        positions = range(len(samples))
        calibration = [index for index in positions if index % 4 in (0, 2)]
        validation = [index for index in positions if index % 4 == 1]
        # With fewer than four, the last.
        tested = [index for index in positions if index % 4 == 3] or [len(samples) - 1]
        test = samples.some(tested)
    if len(samples) < _FEWEST or not validation:
        searched = [
            index for index in range(len(search)) if choices.test_inputs or index not in tested
        ]
        note = (
            f"There are only {len(samples)} inputs, so calibration and search used the same"
            f" ones. Give {_FEWEST} or more to use separate inputs."
        )
        if not searched:
            note = (
                "There is only one input, so calibration, search and test used the same one."
                " The result says nothing about other inputs."
            )
        few = search.some(searched or [0])
        return _Shares(few, few, test, (*notes, note), is_test_shared=not searched)
    return _Shares(search.some(calibration), search.some(validation), test, notes)
