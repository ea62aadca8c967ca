"""A network with samples and ranges, ready to be rounded for any target."""

from dataclasses import dataclass
from pathlib import Path

import onnx

from quantstore.errors import RunError
from quantstore.run import noise, points, twin
from quantstore.run.comparison import Reference
from quantstore.run.emulator import Emulator, Plan
from quantstore.run.inputs import Samples
from quantstore.run.network import Network, prepare
from quantstore.run.placement import Placement, placement
from quantstore.run.plans import Planner, Rounding
from quantstore.run.probe_figures import fix_shapes
from quantstore.run.ranges import observe
from quantstore.schemes import TARGETS


@dataclass(frozen=True)
class Trial:
    """One network under one target."""

    network: Network
    placed: Placement
    rounding: Rounding
    plan: Plan
    planner: Planner
    samples: list
    reference: Reference

    def emulated(self):
        """What the emulator gives, sample by sample."""
        grids = () if self.rounding.activations is None else [self.plan.grids]
        return list(Emulator(self.network, [self.placed], grids).run(self.plan, self.samples))


def trial_on(model: onnx.ModelProto, names, calibration, samples, target, folder: Path) -> Trial:
    """On samples of one's own; ``names``: the outputs that are compared."""
    return _trial(prepare(model, names, folder, fold=True), calibration, samples, target, folder)


def trial_on_noise(path: Path, target: str, folder: Path) -> Trial:
    """On noise, cut where the probe cuts."""
    model = twin.open_float(path)
    for name, value in noise.frozen_inputs(model.model).items():
        twin.freeze_input(model.model, name, value)
    compared = points.cut(model.model)
    for inputs in noise.choices(model.model):
        whole = twin.to_proto(model)
        fix_shapes(whole, inputs)
        calibration_count, count = noise.sample_counts(inputs)
        calibration = noise.samples(inputs, calibration_count, seed=11)
        samples = noise.samples(inputs, count, seed=12)
        try:
            network = prepare(whole, compared.names, folder, fold=True)
            return _trial(network, calibration, samples, target, folder)
        except RunError:
            continue
    raise AssertionError(f"{path.name} runs on no shape")


def _trial(network: Network, calibration, samples, target: str, folder: Path) -> Trial:
    aim = TARGETS[target]
    placed = placement(network, aim)
    activations = aim.activations
    by_channel = activations is not None and activations.is_per_channel_at_depthwise
    observed = observe(
        network,
        [*placed.grid_of.values(), *placed.depthwise],
        Samples("given", len(calibration), lambda index: dict(calibration[index])),
        folder,
        by_channel=placed.depthwise if by_channel else (),
    )
    planner = Planner(network, observed)
    expected = [network.session.run(network.fed(one), network.outputs) for one in samples]
    rounding = Rounding.of(aim)
    plan = planner.plan(placed, rounding)
    return Trial(
        network, placed, rounding, plan, planner, samples, Reference(network.outputs, expected)
    )
