"""From the store and the file of a model to the files that other viewers read."""

import json
import shutil
from pathlib import Path

import onnx
import pytest

from quantstore import store
from quantstore.charts.palette import BANDS, LIGHT
from quantstore.errors import ModelFileError, QuantstoreError
from quantstore.pipeline import overlays
from quantstore.pipeline.files import file_of
from quantstore.records import FloatSetRecord
from quantstore.rescuing.overlay import BandScale, open_original
from quantstore.schemes import TARGETS
from tests.support.runs import TENSOR, a_run, a_sensitivity, a_tensor, add, layer_names

MODEL = "digits-rescaled"
TARGET = TARGETS["int8_tensor"]


@pytest.fixture
def path(demo_store, tmp_path):
    """The demo models, none of which was run: to add to."""
    return Path(shutil.copy(demo_store, tmp_path / "own.duckdb"))


def graph_facts_of(path, target=TARGET, model=MODEL):
    with store.reading(path) as con:
        return overlays.graph_facts_of(con, model, target)


def scale_of(graph_facts):
    return BandScale(graph_facts.limits, dict(zip(BANDS, LIGHT.band_fills, strict=True)))


def original_of(graph_facts):
    return open_original(file_of(graph_facts.origin.source))


def facts_by_node(graph_facts):
    return {fact.node: fact for fact in graph_facts.nodes}


def put_run(path, *, goal_db=None, units=(), minute=0):
    """A run of the target with two tensors, sensitivities, and perhaps a set of float units."""
    with store.writing(path) as con:
        first, second, *_ = layer_names(con, MODEL)
        run = add(
            con,
            MODEL,
            a_run(db=12.0, source="photos/", minute=minute),
            [
                a_tensor(0, 31.0, first),
                a_tensor(0, 35.0, first, kind="local"),
                a_tensor(1, None, "/stem/relu/Relu"),
                a_tensor(2, 3.0, second),
            ],
        )
        model = store.find_model(con, MODEL)
        store.add_sensitivities(
            con,
            model,
            [
                a_sensitivity(0, 18.0, mode="both", target=TARGET.name, unit_kind="weights"),
                a_sensitivity(
                    None,
                    None,
                    mode="both",
                    target=TARGET.name,
                    unit_kind="tensor",
                    unit="t",
                    node_name="/stem/relu/Relu",
                ),
                a_sensitivity(1, 5.0, mode="both", target="int8_channel", scheme=TENSOR),
            ],
        )
        records = [
            FloatSetRecord(
                goal_db=goal_db, position=at, unit=unit, unit_kind=kind, output_sqnr_db=10.0
            )
            for at, (unit, kind) in enumerate(units)
        ]
        store.add_float_set(con, run, records)
    return first, second


# What the store knows


def test_without_a_run_the_band_and_the_remedy_of_every_layer_are_known(path):
    graph_facts = graph_facts_of(path)
    with store.reading(path) as con:
        assert [fact.node for fact in graph_facts.nodes] == layer_names(con, MODEL)
    stem = graph_facts.nodes[0]
    assert (stem.band, stem.sensitivity_db, stem.accumulated_db) == ("broken", None, None)
    assert stem.remedy.startswith("best: per channel, +")
    assert "\u00a0" not in stem.remedy


def test_under_a_scale_per_channel_there_is_no_such_remedy(path):
    assert {fact.remedy for fact in graph_facts_of(path, TARGETS["int8_channel"]).nodes} == {
        "fine as it is"
    }


def test_values_of_the_latest_run_of_the_target_are_laid_on_its_nodes(path):
    first, second = put_run(path)
    facts = facts_by_node(graph_facts_of(path))
    assert (facts[first].accumulated_db, facts[first].local_db) == (31.0, 35.0)
    assert (facts[second].accumulated_db, facts[second].local_db) == (3.0, None)
    assert facts[first].sensitivity_db == 18.0
    # What was found for another target does not count.
    assert facts[second].sensitivity_db is None
    relu = facts["/stem/relu/Relu"]
    assert relu.sensitivity_db == relu.accumulated_db == float("inf")
    assert relu.band is None
    others = facts_by_node(graph_facts_of(path, TARGETS["int8_channel"]))
    assert others[first].accumulated_db is None


@pytest.mark.slow
def test_broken_layers_are_excluded_until_a_search_says_what_is_enough(path):
    graph_facts = graph_facts_of(path)
    bands = facts_by_node(graph_facts)
    assert graph_facts.goal_db is None
    assert graph_facts.float_layers == tuple(name for name in bands if bands[name].band == "broken")
    first, second = put_run(path, goal_db=20.0, units=[("x", "weights")])
    put_run(path, goal_db=30.0, units=[(second, "weights"), ("r", "tensor")], minute=5)
    graph_facts = graph_facts_of(path)
    assert (graph_facts.float_layers, graph_facts.float_tensors) == ((second,), ("r",))
    assert graph_facts.goal_db == 30.0
    assert first not in graph_facts.float_layers


# The files


def test_node_data_is_one_file_a_metric_and_only_of_what_is_known(path):
    graph_facts = graph_facts_of(path)
    files = overlays.node_data(graph_facts, scale_of(graph_facts), original_of(graph_facts))
    assert [file.name for file in files] == [
        f"{MODEL}.band.node_data.json",
        f"{MODEL}.remedy.node_data.json",
    ]
    original = original_of(graph_facts)
    for file in files:
        ((graph, data),) = json.loads(file.content).items()
        assert graph == original.graph_name
        assert data["results"].keys() <= original.nodes
        assert len(data["results"]) == len(graph_facts.nodes)


@pytest.mark.slow
def test_a_tensor_in_float_excludes_what_reads_it(path):
    first, _ = put_run(path, goal_db=30.0, units=[])
    original = original_of(graph_facts_of(path))
    relu = next(one for one in original.proto.graph.node if one.op_type == "Relu")
    reading = [one.name for one in original.proto.graph.node if relu.output[0] in one.input]
    put_run(
        path,
        goal_db=30.0,
        units=[(first, "weights"), (relu.output[0], "tensor"), ("unheard of", "weights")],
        minute=5,
    )
    graph_facts = graph_facts_of(path)
    file = overlays.excluded(graph_facts, original)
    assert file.content.decode().splitlines() == [first, *reading]
    assert file.skipped == ("unheard of",)
    # Without the file nobody knows what reads a tensor.
    assert overlays.excluded(graph_facts, None).skipped == (relu.output[0],)


def test_an_annotated_model_loads(path, tmp_path):
    graph_facts = graph_facts_of(path)
    file = overlays.annotated(graph_facts, original_of(graph_facts))
    onnx.checker.check_model(file.content)
    nodes = onnx.load_model_from_string(file.content).graph.node
    assert sum(bool(one.metadata_props) for one in nodes) == len(graph_facts.nodes)


def test_files_are_there_whole_or_not_at_all(path, tmp_path):
    graph_facts = graph_facts_of(path)
    good = overlays.annotated(graph_facts, original_of(graph_facts))
    folder = tmp_path / "new" / "folder"
    assert overlays.write((good,), folder) == (folder / good.name,)
    bad = overlays.File(kind="exclude", name="absent/exclude.txt", content=b"")
    before = sorted(folder.iterdir())
    with pytest.raises(QuantstoreError, match="cannot be written"):
        overlays.write((overlays.File(kind="", name="other.txt", content=b"1"), bad), folder)
    assert sorted(folder.iterdir()) == before


def test_a_model_with_an_odd_name_gets_a_plain_file(path):
    with store.writing(path) as con:
        store.rename_model(con, MODEL, "../a b/c")
    graph_facts = graph_facts_of(path, model="../a b/c")
    assert overlays.annotated(graph_facts, original_of(graph_facts)).name == "a-b-c.annotated.onnx"


# Where the file is


def test_the_file_must_hold_what_was_measured(path, tmp_path):
    origin = graph_facts_of(path).origin
    assert overlays.path_of(origin, None, path).name == f"{MODEL}.onnx"
    other = file_of(graph_facts_of(path, model="digits-plain").origin.source)
    with pytest.raises(
        ModelFileError, match=f"differs from the file that was measured as '{MODEL}'"
    ) as failure:
        overlays.path_of(origin, other, path)
    assert "--replace" in failure.value.hint
    with pytest.raises(ModelFileError, match=r"absent\.onnx: does not exist"):
        overlays.path_of(origin, tmp_path / "absent.onnx", path)


@pytest.mark.parametrize(
    ("source", "said"),
    [("/gone/net.onnx", "has been moved or deleted"), ("net.onnx", "was not kept")],
)
def test_a_file_that_is_not_there_is_asked_for(path, source, said):
    with store.writing(path) as con:
        con.rows("update models set source = ? where model = ?", [source, MODEL])
    with pytest.raises(ModelFileError, match=said) as failure:
        overlays.path_of(graph_facts_of(path).origin, None, path)
    assert "--file" in failure.value.hint
