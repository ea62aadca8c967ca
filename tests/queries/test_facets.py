"""What models can be narrowed down by: any value within a facet, every facet at once."""

import shutil

import pytest

from quantstore import queries, store
from quantstore.queries import ModelTraits
from quantstore.schemes import TARGETS


def model(name, verdict, survives=(), operator=(), tag=(), integers="no"):
    return ModelTraits(
        name,
        {
            "verdict": frozenset([verdict]),
            "survives": frozenset(survives),
            "operator": frozenset(operator),
            "tag": frozenset(tag),
            "integers": frozenset([integers]),
        },
    )


MODELS = (
    model("a", "broken", ["int8_channel"], ["Conv", "depthwise Conv"], ["edge", "Beta"]),
    model("b", "broken", [], ["Conv"], ["edge"]),
    model("c", "fine", ["int8_channel", "int8_tensor"], integers="yes"),
    model("d", "untested", tag=["alpha"]),
)


@pytest.mark.parametrize(
    ("chosen", "names"),
    [
        ({}, "abcd"),
        ({"verdict": [], "tag": []}, "abcd"),
        ({"verdict": ["broken"]}, "ab"),
        ({"verdict": ["broken", "fine"]}, "abc"),
        ({"verdict": ["broken"], "survives": ["int8_channel"]}, "a"),
        ({"verdict": ["broken"], "integers": ["yes"]}, ""),
        ({"operator": ["depthwise Conv", "Gemm"]}, "a"),
        ({"tag": ["alpha", "edge"]}, "abd"),
    ],
)
def test_any_value_of_a_facet_will_do_and_every_facet_must(chosen, names):
    assert queries.passing(MODELS, chosen) == list(names)


def test_a_facet_counts_what_meets_the_others_and_not_what_meets_itself():
    chosen = {"verdict": ["broken"], "tag": ["edge"]}
    assert queries.facet_counts(MODELS, "verdict", chosen) == {"broken": 2}
    assert queries.facet_counts(MODELS, "tag", chosen) == {"edge": 2, "Beta": 1}
    assert queries.facet_counts(MODELS, "survives", chosen) == {"int8_channel": 1}
    assert queries.facet_counts(MODELS, "verdict", {"verdict": ["fine"]}) == {
        "broken": 2,
        "fine": 1,
        "untested": 1,
    }


def test_values_come_the_worst_first_or_by_name():
    assert queries.facet_values(MODELS, "verdict") == ["broken", "fine", "untested"]
    assert queries.facet_values(MODELS, "survives") == ["int8_tensor", "int8_channel"]
    assert queries.facet_values(MODELS, "tag") == ["alpha", "Beta", "edge"]
    assert queries.facet_values(MODELS, "integers") == ["yes", "no"]
    assert queries.facet_values(MODELS, "operator") == ["Conv", "depthwise Conv"]


@pytest.fixture(scope="module")
def con(demo_store, tmp_path_factory):
    """The demo models, one tagged and one with a layer of integers."""
    path = tmp_path_factory.mktemp("facets") / "s.duckdb"
    shutil.copy(demo_store, path)
    with store.writing(path) as connection:
        store.set_tags(connection, "digits-plain", ["door", "gate"])
        connection.rows(
            "update layers set already_quantized = true where layer_id = (select min(layer_id)"
            " from layers join models using (model_id) where model = 'digits-separable')"
        )
    with store.reading(path) as connection:
        yield connection


def traits(con, target):
    found = queries.model_traits(con, TARGETS[target], queries.verdicts(con))
    return {one.model: one.values for one in found}


def test_traits_are_what_the_views_say(con):
    by_model = traits(con, "int8_tensor")
    assert list(by_model) == queries.model_names(con)
    frame = queries.verdicts(con)
    for name, values in by_model.items():
        rows = frame[frame["model"] == name].set_index("target")["verdict"]
        assert values["verdict"] == {rows["int8_tensor"]}
        assert values["survives"] == set(rows.index[rows.isin(queries.SURVIVING)])
    assert by_model["digits-plain"]["tag"] == {"door", "gate"}
    assert [name for name, values in by_model.items() if values["integers"] == {"yes"}] == [
        "digits-separable"
    ]


def test_operators_are_those_of_broken_layers_that_the_target_rounds(con):
    broken = con.rows(
        "select distinct model, op_type, is_depthwise from layer_errors"
        " where scheme = 'int8_tensor_symmetric' and band = 'broken'"
    )
    expected = {(name, f"depthwise {op}" if deep else op) for name, op, deep in broken}
    assert expected
    assert {
        (name, operator)
        for name, values in traits(con, "int8_tensor").items()
        for operator in values["operator"]
    } == expected
    # It rounds matrix products alone, and no convolution breaks it.
    assert not any(
        "Conv" in operator
        for values in traits(con, "int8_dynamic").values()
        for operator in values["operator"]
    )
