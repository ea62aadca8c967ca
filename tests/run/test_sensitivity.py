"""Which tensors and weights cost how much, and the fewest whose return to float is enough."""

import itertools
import math
import time

import numpy as np
import pytest

from quantstore.run.comparison import Reference
from quantstore.run.emulator import Emulator
from quantstore.run.sensitivity import (
    MOST_SAMPLES,
    SCOPES,
    Bench,
    Budget,
    Unit,
    UnitSensitivity,
    find_float_set,
    measure_sensitivity,
    units_of,
)
from quantstore.schemes import LOST_DB, TARGETS
from tests.support.graphs import float_value, gaussian, make_model, node
from tests.support.trials import as_samples, trial_of_model

EVERYWHERE = TARGETS["int8_tensor"]
PLENTY = 1e6


def small_network():
    """Two layers with biases, a Relu between them."""
    nodes = [
        node("Gemm", ["x", "w", "b"], ["h"], "first"),
        node("Relu", ["h"], ["r"], "relu"),
        node("Gemm", ["r", "v", "c"], ["y"], "second"),
    ]
    weights = {"w": gaussian(5, 8), "b": gaussian(8), "v": gaussian(8, 3), "c": gaussian(3)}
    return with_shape(make_model(nodes, weights), [1, 5])


def ruined_twice():
    """Behind a layer an offset swallows the signal, in two tensors one after the other."""
    nodes = [
        node("MatMul", ["x", "w"], ["h"], "layer"),
        node("Tanh", ["h"], ["t"], "tanh"),
        node("Add", ["t", "offset"], ["lifted"], "lift"),
        node("Mul", ["lifted", "factor"], ["stretched"], "stretch"),
        node("Sub", ["stretched", "back"], ["y"], "lower"),
    ]
    weights = {
        "w": gaussian(5, 8),
        "offset": np.float32([1000]),
        "factor": np.float32([2]),
        "back": np.float32([2000]),
    }
    return with_shape(make_model(nodes, weights), [2, 3, 5])


def with_shape(model, shape):
    model.graph.input[0].CopyFrom(float_value("x", shape))
    return model


class Tried:
    """A network under full int8 on a bench; ``figure`` runs a plan by hand."""

    def __init__(self, model, folder, *, count=8):
        shape = [size.dim_value for size in model.graph.input[0].type.tensor_type.shape.dim]
        self.trial = trial_of_model(
            model, folder, feed=lambda index: {"x": gaussian(*shape, seed=index)}, count=count
        )
        self.placed = self.trial.placed(EVERYWHERE)
        self.plan = self.trial.plan_of(EVERYWHERE)
        self.emulator = Emulator(self.trial.network, [self.placed])
        self.units = units_of(self.emulator, self.placed, self.plan, {})
        self.bench = Bench(self.emulator, self.plan, as_samples(self.trial.test), self.units)

    def figure(self, plan, indices=None):
        network = self.trial.network
        chosen = [self.trial.test[at] for at in indices or range(len(self.trial.test))]
        expected = [network.session.run(network.fed(one), network.outputs) for one in chosen]
        emulator = Emulator(network, [self.placed])
        return Reference(network.outputs, expected).median_db(emulator.run(plan, chosen))

    def unit(self, name):
        (found,) = [unit for unit in self.units if unit.name == name]
        return found

    def without(self, units):
        return self.figure(self.plan.without([name for unit in units for name in unit.names]))


@pytest.fixture
def small(tmp_path):
    return Tried(small_network(), tmp_path)


@pytest.fixture
def ruined(tmp_path):
    return Tried(ruined_twice(), tmp_path)


# --- units -------------------------------------------------------------------------------------


def test_everything_that_is_rounded_is_one_unit_a_bias_with_its_weights(small):
    assert [(unit.name, unit.kind) for unit in small.units] == [
        ("first", "weights"),
        ("second", "weights"),
        ("x", "tensor"),
        ("r", "tensor"),
        ("y", "tensor"),
    ]
    assert "b" in small.unit("first").names
    assert "c" in small.unit("second").names
    parts = [name for unit in small.units for name in unit.names]
    assert sorted(parts) == sorted([*small.plan.grids, *small.plan.constants])


def test_a_tensor_names_the_node_that_makes_it_and_an_input_none(small):
    assert small.unit("r").node_name == "relu"
    assert small.unit("x").node_name is None
    assert small.unit("first").node_name is None


def test_layers_have_the_names_and_depths_that_the_file_gives_them(small):
    weights = small.unit("second").names[0]
    named = units_of(small.emulator, small.placed, small.plan, {weights: ("block/second", 7)})
    assert [(unit.name, unit.depth) for unit in named if unit.kind == "weights"] == [
        ("first", None),
        ("block/second", 7),
    ]


def test_constants_that_are_rounded_like_activations_are_units_of_their_own(ruined):
    assert {"offset", "factor"} <= {unit.name for unit in ruined.units}
    assert ruined.unit("offset").kind == "tensor"


# --- one at a time -----------------------------------------------------------------------------


def test_alone_and_all_but_are_what_these_plans_give(small):
    rows = measure_sensitivity(small.bench, Budget(PLENTY))
    assert [(row.unit, row.scope) for row in rows] == [
        (unit, scope) for scope in SCOPES for unit in small.units
    ]
    for row in rows:
        names = row.unit.names
        alone = row.scope == "alone"
        plan = small.plan.only(names) if alone else small.plan.without(names)
        assert row.output_sqnr_db == pytest.approx(small.figure(plan), abs=1e-3)
        assert row.sample_count == 8


def test_rows_see_the_same_samples_at_even_distances_and_say_how_many(tmp_path):
    many = Tried(small_network(), tmp_path, count=40)
    rows = measure_sensitivity(many.bench, Budget(PLENTY))
    assert {row.sample_count for row in rows} == {MOST_SAMPLES}
    indices = many.bench.spread(MOST_SAMPLES)
    assert len(set(indices)) == MOST_SAMPLES
    assert set(np.diff(indices)) == {2, 3}
    first = rows[0]
    known = many.figure(many.plan.only(first.unit.names), list(indices))
    assert first.output_sqnr_db == pytest.approx(known, abs=1e-3)


def test_progress_counts_rows(small):
    said = []
    measure_sensitivity(small.bench, Budget(PLENTY), lambda *progress: said.append(progress))
    assert said == [(done, 10) for done in range(1, 11)]


def test_outputs_that_are_no_numbers_are_lost(small, monkeypatch):
    monkeypatch.setattr(
        small.emulator, "run", lambda plan, samples: ([np.full((1, 3), np.nan)] for _ in samples)
    )
    expected = [[np.ones((1, 3))], [np.zeros((1, 3))]]
    small.bench._references[0, 1] = small.trial.test[:2], Reference(("y",), expected)
    assert small.bench.without((), (0, 1)) == LOST_DB


# --- budgets -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_budget_is_of_processor_time():
    budget = Budget(0.1)
    time.sleep(0.2)
    assert not budget.is_over
    while time.process_time() < budget._start + 0.11:
        pass
    assert budget.is_over
    assert budget.spent > 0.1


def test_where_the_budget_runs_out_there_are_fewer_rows(small):
    assert measure_sensitivity(small.bench, Budget(0)) == ()


def test_a_small_budget_takes_fewer_samples(small, monkeypatch):
    """A clock that goes on by a second at each look."""
    seconds = itertools.count()
    monkeypatch.setattr(time, "process_time", lambda: float(next(seconds)))
    rows = measure_sensitivity(small.bench, Budget(14))
    assert {row.sample_count for row in rows} == {2}
    assert 0 < len(rows) <= 10


# --- the fewest ----------------------------------------------------------------------------------


def test_two_units_that_ruin_the_outputs_one_after_the_other_are_both_found(ruined):
    everything = ruined.without([])
    lifted, stretched = ruined.unit("lifted"), ruined.unit("stretched")
    # One by one they gain nothing.
    assert everything < 5
    assert ruined.without([lifted]) < 5
    assert ruined.without([stretched]) < 5
    assert ruined.without([lifted, stretched]) > 25
    rows = measure_sensitivity(ruined.bench, Budget(PLENTY))
    found = find_float_set(ruined.bench, rows, 25, Budget(PLENTY))
    assert found.is_reached
    assert set(found.units) == {lifted, stretched}
    assert found.goal_db == 25
    # Each with those before it in float, measured on all samples.
    for count, figure in enumerate(found.figures_db, start=1):
        assert figure == pytest.approx(ruined.without(found.units[:count]), abs=1e-3)
    assert found.figures_db[-1] >= 25


@pytest.mark.parametrize("more_db", [1, 3, 6, 12])
def test_what_is_found_reaches_the_goal_and_none_of_it_is_superfluous(small, more_db):
    goal = small.without([]) + more_db
    rows = measure_sensitivity(small.bench, Budget(PLENTY))
    found = find_float_set(small.bench, rows, goal, Budget(PLENTY))
    assert found.is_reached
    assert small.without(found.units) >= goal
    for unit in found.units:
        assert small.without([one for one in found.units if one is not unit]) < goal
    # As few as any set that reaches it, or one more: greed has its price.
    fewest = next(
        count
        for count in range(len(small.units) + 1)
        if any(small.without(some) >= goal for some in itertools.combinations(small.units, count))
    )
    assert len(found.units) <= fewest + 1


def test_what_joined_in_vain_is_given_back(ruined):
    """Rows that accuse an innocent make the search try it first."""
    innocent = ruined.unit("x")
    accused = [
        UnitSensitivity(unit, scope, -60.0 if unit is innocent else 0.0, 8)
        for unit in ruined.units
        for scope in SCOPES
    ]
    tried = []
    found = find_float_set(
        ruined.bench, accused, 25, Budget(PLENTY), lambda done, _: tried.append(done)
    )
    assert len(tried) > len(found.units)
    assert innocent not in found.units
    assert found.is_reached


def test_a_goal_that_is_reached_already_asks_for_nothing(small):
    found = find_float_set(small.bench, (), 5, Budget(PLENTY))
    assert (found.units, found.figures_db, found.is_reached) == ((), (), True)


def test_with_everything_in_float_any_goal_is_reached(small):
    rows = measure_sensitivity(small.bench, Budget(PLENTY))
    found = find_float_set(small.bench, rows, 500, Budget(PLENTY))
    assert found.is_reached
    assert set(found.units) == set(small.units)
    assert found.figures_db[-1] == math.inf


def test_a_goal_that_the_budget_does_not_allow_for_is_not_reached(ruined):
    rows = measure_sensitivity(ruined.bench, Budget(PLENTY))
    found = find_float_set(ruined.bench, rows, 25, Budget(0))
    assert (found.units, found.is_reached) == ((), False)


def test_a_goal_beyond_what_can_be_left_in_float_is_not_reached(ruined):
    bench = Bench(
        ruined.emulator, ruined.plan, as_samples(ruined.trial.test), [ruined.unit("lifted")]
    )
    rows = measure_sensitivity(bench, Budget(PLENTY))
    found = find_float_set(bench, rows, 25, Budget(PLENTY))
    assert not found.is_reached
    assert found.units == (ruined.unit("lifted"),)
    assert found.figures_db[-1] < 25


def masked_attention():
    """Scores and a mask of the lowest float, added before a Softmax."""
    nodes = [
        node("MatMul", ["x", "w"], ["q"], "query"),
        node("MatMul", ["x", "v"], ["k"], "key"),
        node("Transpose", ["k"], ["kt"], "turn", perm=[0, 2, 1]),
        node("MatMul", ["q", "kt"], ["scores"], "scores"),
        node("Add", ["scores", "mask"], ["masked"], "mask"),
        node("Softmax", ["masked"], ["shares"], "softmax"),
        node("MatMul", ["shares", "q"], ["y"], "mix"),
    ]
    weights = gaussian(5, 6) * np.float32(0.1)
    mask = np.triu(np.full((4, 4), -3.4028235e38, np.float32), 1)
    return with_shape(make_model(nodes, {"w": weights, "v": weights, "mask": mask}), [1, 4, 5])


def test_a_mask_of_the_lowest_float_is_found_out(tmp_path):
    """It stands for minus infinity; on a grid it is the lowest score, and no mask any more."""
    tried = Tried(masked_attention(), tmp_path)
    before = tried.without([])
    rows = measure_sensitivity(tried.bench, Budget(PLENTY))
    alone = {row.unit: row.output_sqnr_db for row in rows if row.scope == "alone"}
    assert min(alone, key=alone.__getitem__) == tried.unit("masked")
    found = find_float_set(tried.bench, rows, before + 10, Budget(PLENTY))
    assert found.is_reached
    assert found.units[0] == tried.unit("masked")


def test_units_are_told_apart_by_their_parts():
    # W and R of an LSTM have the layer's name, both.
    assert Unit("lstm", "weights", ("a",), 0) != Unit("lstm", "weights", ("b",), 1)
