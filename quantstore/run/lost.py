"""Which operator first makes NaN or infinity of a network that is rounded."""

from collections.abc import Iterable

import numpy as np

from quantstore.graph.findings import LostFigures
from quantstore.run.emulator import FixedEmulator, Plan
from quantstore.run.network import Network
from quantstore.run.nodes import name_of
from quantstore.run.placement import Placement
from quantstore.run.runtime import Feeds

# Operators that give NaN or infinity for finite numbers.
_RISKY = ("Log", "Div", "Reciprocal", "Sqrt", "Pow", "Exp", "Mod", "ReduceLogSum", "Tan", "Atanh")


def first_lost(
    network: Network, placed: Placement, plan: Plan, samples: Iterable[Feeds]
) -> LostFigures | None:
    """The first operator of the main graph whose result is finite in float, but not rounded.

    Of the first sample that shows one. None where it lies in a body, or is none of those that are
    watched.
    """
    nodes = [node for node in network.model.graph.node if node.op_type in _RISKY]
    names = [str(node.output[0]) for node in nodes]
    if not names:
        return None
    rounded = FixedEmulator(network, placed, plan.grids, names)
    exact = FixedEmulator(network, placed, {}, names)
    for sample in samples:
        arrays = zip(
            nodes,
            rounded.run(plan, sample, names)[-len(names) :],
            exact.run(Plan(), sample, names)[-len(names) :],
            strict=True,
        )
        for node, changed, expected in arrays:
            # The divisor of a Div, what the others read.
            read = [name for name in node.input if name in network.float_tensors]
            if read and np.isfinite(expected).all() and not np.isfinite(changed).all():
                return LostFigures(node=name_of(node), op_type=node.op_type, tensor=read[-1])
    return None
