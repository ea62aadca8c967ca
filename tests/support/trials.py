"""A network on noise: in float, in the emulator, and in the file of onnxruntime's quantizer."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import onnx

from quantstore.run import noise, points, probe_figures, twin
from quantstore.run.comparison import Reference
from quantstore.run.emulator import Emulator, Plan
from quantstore.run.inputs import Samples
from quantstore.run.network import Network, prepare
from quantstore.run.placement import placement
from quantstore.run.plans import Planner, Rounding
from quantstore.run.ranges import observe
from quantstore.run.runtime import Session
from tests.support.referees import quantize_file


def as_samples(feeds):
    return Samples("test", len(feeds), lambda index: dict(feeds[index]))


@dataclass
class Trial:
    """A network with samples to find ranges on and samples to compare on."""

    network: Network
    folder: Path
    calibration: list
    test: list
    exclude: tuple = ()

    @cached_property
    def reference(self):
        session, names = self.network.session, self.network.outputs
        return Reference(names, [session.run(self.network.fed(one), names) for one in self.test])

    def placed(self, target):
        return placement(self.network, target, self.exclude)

    def planner(self, *placements, **choices):
        roots = [root for placed in placements for root in placed.grid_of.values()]
        by_channel = {name for placed in placements for name in placed.depthwise}
        observed = observe(
            self.network,
            [*roots, *sorted(by_channel)],
            as_samples(self.calibration),
            self.folder,
            by_channel=by_channel,
            has_histograms=choices.get("calibration", "minmax") != "minmax",
        )
        return Planner(self.network, observed, **choices)

    def plan_of(self, target, **choices):
        placed = self.placed(target)
        return self.planner(placed, **choices).plan(placed, Rounding.of(target))

    def emulated(self, target, **choices):
        """What the emulator computes under a target, sample by sample."""
        plan = self.plan_of(target, **choices)
        emulator = Emulator(self.network, [self.placed(target)], [plan.grids])
        return list(emulator.run(plan, self.test))

    def figure(self, target, **choices):
        return self.reference.median_db(self.emulated(target, **choices))

    def figures(self, *targets):
        """The figures of several targets, all from one session, and that of none."""
        placements = [self.placed(target) for target in targets]
        planner = self.planner(*placements)
        plans = [
            planner.plan(placed, Rounding.of(target))
            for placed, target in zip(placements, targets, strict=True)
        ]
        emulator = Emulator(self.network, placements, [plan.grids for plan in plans])
        in_float, *rounded = (
            self.reference.median_db(emulator.run(plan, self.test)) for plan in (Plan(), *plans)
        )
        return in_float, rounded, planner

    def refereed(self, target, *, ranges=None, **options):
        """The figure of the file that onnxruntime's quantizer writes, run without optimizations."""
        only_mac_inputs = target.placement == "mac_inputs"
        written = quantize_file(
            self.folder / "float.onnx",
            self.folder / f"{target.name}.onnx",
            self.calibration,
            per_channel=target.scheme.is_per_channel,
            is_symmetric=target.scheme.is_symmetric,
            only_mac_inputs=only_mac_inputs,
            ranges_file=self.folder / f"ranges-{only_mac_inputs}.json",
            ranges=ranges,
            **options,
        )
        names = self.network.outputs
        session = Session(written, is_optimized=False)
        source = Session(self.folder / "float.onnx")
        reference = Reference(names, [source.run(one, names) for one in self.test])
        return reference.median_db([session.run(one, names) for one in self.test])


def trial_of_file(path, folder, *, fold=True):
    """The file as the probe has it, on the probe's own noise."""
    model = twin.open_float(path)
    for name, value in noise.frozen_inputs(model.model).items():
        twin.freeze_input(model.model, name, value)
    compared = points.cut(model.model)
    prepared, inputs = probe_figures.prepared(model, compared.names, folder, fold=fold)
    calibration, test = (
        noise.samples(inputs, count, seed=seed)
        for count, seed in zip(noise.sample_counts(inputs), (11, 12), strict=True)
    )
    return Trial(prepared, folder, calibration, test)


def trial_of_model(model, folder, *, feed, count=8, exclude=(), calibration=None):
    """A model made by hand; ``feed`` gives the sample of a number."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    names = tuple(value.name for value in model.graph.output)
    network = prepare(model, names, folder, fold=True)
    every = [feed(index) for index in range(2 * count)]
    return Trial(network, folder, calibration or every[:count], every[count:], exclude)
