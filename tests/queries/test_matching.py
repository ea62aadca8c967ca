"""Which layer became which, and what that changed. Read top to bottom, this is the definition."""

import math

import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from quantstore.queries.matching import (
    NO_LAYER_IN_COMMON,
    changes,
    few_layers_match,
    headline,
    how_matched,
    match,
    tally,
    worst_first,
)
from quantstore.wording.units import NO_BREAK_SPACE


def network(*layers, p10=()):
    """Layers from (name, shape) or (name, shape, family), in order; channels first."""
    rows = []
    for depth, (name, shape, *family) in enumerate(layers):
        rows.append(
            {
                "layer": name,
                "operand": "W",
                "op_family": family[0] if family else "conv",
                "channel_count": shape[0],
                "shape": list(shape),
                "depth": depth,
                "channel_sqnr_p10_db": p10[depth] if p10 else 30.0,
            }
        )
    columns = ("layer", "operand", "op_family", "channel_count", "shape", "depth")
    return pd.DataFrame(rows, columns=[*columns, "channel_sqnr_p10_db"])


def told(found):
    """(earlier name, later name, rule) of each row, None for no layer."""
    columns = found[["layer_before", "layer_after", "rule"]].astype(object)
    return list(columns.where(columns.notna(), None).itertuples(index=False, name=None))


SHAPES = st.sampled_from([(8, 3, 3, 3), (8, 1, 3, 3), (16, 8, 1, 1), (16, 8)])
NETWORKS = st.lists(SHAPES, max_size=30).map(
    lambda shapes: network(*((f"layer{i}", shape) for i, shape in enumerate(shapes)))
)


@given(NETWORKS)
def test_a_network_matches_itself_layer_by_layer(one):
    found = match(one, one)
    assert found["layer_before"].tolist() == found["layer_after"].tolist() == one["layer"].tolist()
    assert set(found["rule"]) <= {"name"}
    assert set(changes(one, one)["outcome"]) <= {"unchanged"}


@given(NETWORKS)
def test_new_names_for_all_layers_change_no_pair(one):
    renamed = one.assign(layer=[f"node_{name}" for name in one["layer"]])
    found = match(one, renamed)
    assert found["depth_before"].tolist() == found["depth_after"].tolist()
    assert set(found["rule"]) <= {"shape and order"}


@given(NETWORKS, NETWORKS)
def test_every_layer_is_in_one_row_and_the_later_network_keeps_its_order(one, other):
    found = match(one, other)
    assert sorted(found["layer_before"].dropna()) == sorted(one["layer"])
    assert found["layer_after"].dropna().tolist() == other["layer"].tolist()


def test_a_layer_without_a_partner_stands_where_it_was():
    was = network(("a", (8, 3)), ("gone", (9, 9)), ("b", (4, 8)))
    now = network(("a", (8, 3)), ("b", (4, 8)), ("new", (7, 7)))
    assert told(match(was, now)) == [
        ("a", "a", "name"),
        ("gone", None, "only before"),
        ("b", "b", "name"),
        (None, "new", "only after"),
    ]


def test_between_equal_names_shape_and_order_find_the_renamed():
    was = network(("a", (8, 3)), ("old/1", (8, 8)), ("old/2", (8, 8)), ("z", (4, 8)))
    now = network(("a", (8, 3)), ("new/1", (8, 8)), ("new/2", (8, 8)), ("z", (4, 8)))
    assert told(match(was, now)) == [
        ("a", "a", "name"),
        ("old/1", "new/1", "shape and order"),
        ("old/2", "new/2", "shape and order"),
        ("z", "z", "name"),
    ]


def test_a_pruned_layer_keeps_its_partner():
    was = network(("x", (64, 32)), ("y", (32, 64)))
    now = network(("x", (32, 16)), ("y", (16, 32)))
    assert told(match(was, now)) == [("x", "x", "name"), ("y", "y", "name")]


def test_numbers_that_shift_because_a_layer_came_are_not_believed():
    shapes = [(8 + number, 3) for number in range(10)]
    was = network(*((f"Conv_{i}", shape) for i, shape in enumerate(shapes)))
    now = network(*((f"Conv_{i}", shape) for i, shape in enumerate([(99, 1), *shapes])))
    found = match(was, now)
    assert told(found)[:2] == [
        (None, "Conv_0", "only after"),
        ("Conv_0", "Conv_1", "shape and order"),
    ]
    assert found["rule"].value_counts().to_dict() == {"shape and order": 10, "only after": 1}


def test_a_transposed_weight_is_the_same_layer_and_another_operator_is_not():
    was = network(("fc", (10, 64), "linear"), ("table", (10, 64), "embedding"))
    now = network(("matmul", (10, 64), "linear"), ("other", (10, 64), "conv"))
    now.at[0, "shape"] = [64, 10]
    assert told(match(was, now)) == [
        ("fc", "matmul", "shape and order"),
        ("table", None, "only before"),
        (None, "other", "only after"),
    ]


def test_whole_numbers_stay_whole_where_a_layer_is_missing():
    found = match(network(("a", (8, 3))), network(("a", (8, 3)), ("b", (7, 7))))
    assert found["depth_before"].tolist() == [0, pd.NA]
    assert found["depth_after"].tolist() == [0, 1]


def test_a_change_is_a_gain_of_sqnr_and_below_one_db_it_is_none():
    layers = [(name, (8, 3)) for name in "abcdef"]
    was = network(*layers, p10=[10.0, 31.2, 20.0, None, 40.0, None])
    now = network(*layers, p10=[12.5, 8.4, 20.9, None, None, 40.0])
    found = changes(was, now)
    assert found["change_db"].round(3).tolist() == [2.5, -22.8, 0.9, 0.0, math.inf, -math.inf]
    assert found["outcome"].tolist() == [
        *("better", "worse", "unchanged", "unchanged", "better", "worse"),
    ]


def test_the_tally_counts_each_layer_once():
    was = network(("a", (8, 3)), ("b", (8, 3)), ("gone", (1, 1)), p10=[10.0, 30.0, 5.0])
    now = network(("a", (8, 3)), ("b", (8, 3)), ("new", (2, 2)), p10=[20.0, 10.0, 5.0])
    found = tally(changes(was, now))
    assert (found.better, found.worse, found.unchanged) == (1, 1, 0)
    assert (found.only_before, found.only_after, found.pairs) == (1, 1, 2)


def test_nothing_matches_nothing():
    assert changes(network(), network()).empty


def said(was, now):
    """The headline and the rule, with ordinary spaces."""
    found = changes(was, now)
    sentences = headline(found, "A", "B"), how_matched(found)
    return tuple(sentence.replace(NO_BREAK_SPACE, " ") for sentence in sentences)


def test_the_answer_in_words():
    layers = [(name, (8, 3)) for name in "abc"]
    was = network(*layers, ("old", (9, 1)), p10=[10.0, 31.2, 20.0, 5.0])
    now = network(*layers, ("new", (7, 1)), p10=[12.5, 8.4, 20.9, 5.0])
    assert said(was, now) == (
        "1 layer got better, 1 worse, 1 only in A, 1 only in B; worst change: b 31.2 → 8.4 dB",
        "3 layers are matched by name.",
    )
    assert said(now, was)[0].endswith("worst change: a 12.5 → 10.0 dB")


def test_where_nothing_is_lost_the_largest_gain_is_named():
    was = network(("a", (8, 3)), ("b", (8, 3)), p10=[10.0, 20.0])
    now = network(("a", (8, 3)), ("b", (8, 3)), p10=[40.0, None])
    assert said(was, now) == (
        "2 layers got better; largest gain: b 20.0 dB → exact",
        "Every layer is matched by name.",
    )
    assert said(was, was)[0] == "None of the 2 layers got better or worse"


def test_two_networks_are_no_revisions():
    was = network(*((f"a{i}", (8, i)) for i in range(1, 6)))
    assert said(was, network(*((f"b{i}", (9, i)) for i in range(5))))[0] == NO_LAYER_IN_COMMON
    other = network(("b", (8, 1)), *((f"b{i}", (9, i)) for i in range(4)))
    assert headline(changes(was, other), "A", "B") == few_layers_match(1, 5)


def test_losses_come_first_and_layers_without_a_partner_last():
    layers = [(name, (8, 3)) for name in "abc"]
    was = network(("gone", (1, 1)), *layers, p10=[30.0, 10.0, 30.0, 30.0])
    now = network(*layers, p10=[20.0, 30.0, 10.0])
    assert worst_first(changes(was, now))["layer"].tolist() == ["c", "b", "a", "gone"]
