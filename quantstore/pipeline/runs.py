"""A simulation from start to store: run in a child process, written when it is whole.

What the command line and the pages call. The child can be cancelled, and may crash; this side turns
that into a sentence. A model that the store does not hold is ingested, so that what is found about
its activations stands beside its weights.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantstore import store
from quantstore.numerics import correlation
from quantstore.pipeline.results import answer_of, stored_as
from quantstore.process import limits
from quantstore.process.child import SINGLE_THREADED, Child
from quantstore.process.running import Running
from quantstore.run import simulate_child
from quantstore.run.choices import Choices, Progress, ReportProgress, Simulation

__all__ = ["Choices", "Done", "Progress", "Running", "Simulation", "run", "start"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What became of a simulation, now in the store.

    ``agreement``: Spearman's correlation between what quantizing each layer alone does to the
    outputs and the layer's own channel SQNR (p10); NaN where it is not known. ``layers``:
    their names by depth.
    """

    model: str
    simulation_id: int
    simulation: Simulation
    was_ingested: bool
    agreement: float
    layers: dict[int, str]
    peak_bytes: int | None
    notes: tuple[str, ...]


def start(
    path: Path, store_path: Path, inputs: str, choices: Choices | None = None
) -> Running[Done]:
    """Begin a simulation and return at once.

    Args:
        inputs: a folder of images, an image, an ``.npz`` or ``.npy`` file, or ``noise``.

    Returns:
        Its progress is :class:`Progress`. Its thread reads what the child says and writes the
        store; cancelled, it stores nothing, unless it was being written already.
    """
    store.require_writable(store_path)
    choices = choices or Choices()
    child = Child(simulate_child.__name__, has_scratch=True, extra_environment=SINGLE_THREADED)

    def work(report: Callable[[Any], None]) -> Done:
        child.ask(simulate_child.request(path.absolute(), inputs, choices), limits.sharing_memory())
        answer = answer_of(child, report, "the run")
        simulation = Simulation.from_json(answer["simulation"])
        return _stored(path, store_path, choices, simulation, answer["peak_bytes"], report)

    return Running(child, work)


def run(
    path: Path,
    store_path: Path,
    inputs: str,
    choices: Choices | None = None,
    report: ReportProgress | None = None,
) -> Done:
    """Simulate, store, and return when it is over.

    Raises:
        QuantstoreError: it failed, in a sentence; nothing is stored then.
    """
    return start(path, store_path, inputs, choices).wait(report)


def _stored(
    path: Path,
    store_path: Path,
    choices: Choices,
    simulation: Simulation,
    peak_bytes: int | None,
    report: ReportProgress,
) -> Done:
    stored = stored_as(path, store_path, simulation.sha256, report, fold=choices.fold)
    with store.writing(store_path) as connection:
        model_id = store.find_model(connection, stored.model)
        simulation_id = store.add_simulation(
            connection, model_id, simulation.record, simulation.activation_errors
        )
        store.add_sensitivities(connection, model_id, simulation.sensitivities)
        store.add_float_set(connection, simulation_id, simulation.float_set)
        layers = connection.rows(
            "select depth, layer, channel_sqnr_p10_db from layers join errors using (layer_id)"
            " where model_id = ? and scheme = ? order by depth",
            [model_id, simulation.record.scheme],
        )
    return Done(
        model=stored.model,
        simulation_id=simulation_id,
        simulation=simulation,
        was_ingested=stored.was_ingested,
        agreement=_agreement(simulation, {depth: p10 for depth, _, p10 in layers}),
        layers={depth: layer for depth, layer, _ in layers},
        peak_bytes=peak_bytes,
        notes=simulation.notes,
    )


def _agreement(simulation: Simulation, p10_by_depth: Mapping[int, float | None]) -> float:
    """Whether the ranking by weights is the ranking at the outputs.

    Args:
        p10_by_depth: the channel SQNR of each layer; None where it is infinite.
    """
    alone = {
        row.depth: row.output_sqnr_db
        for row in simulation.sensitivities
        if row.kind == "alone" and row.depth is not None
    }
    pairs = [
        (alone[depth], p10)
        for depth, p10 in p10_by_depth.items()
        if depth in alone and not math.isnan(alone[depth])
    ]
    by_output = [output_sqnr_db for output_sqnr_db, _ in pairs]
    by_weights = [math.inf if p10 is None else p10 for _, p10 in pairs]
    rho = correlation.spearman(by_output, by_weights).rho
    return math.nan if rho is None else rho
