"""Models of formats that are not run: no page offers what cannot work, each says why."""

import pytest

from quantstore import cli
from quantstore.app.sections import overlays, targets, ways_on
from quantstore.file_formats import HAS_NO_GRAPH, RUNS_ONNX_ONLY, why_not_run_sentence
from quantstore.pipeline.ingest import ingest_file
from quantstore.wording import runs, stories
from quantstore.wording.text import markdown
from tests.support.graphs import gaussian
from tests.support.tflite_files import CONV, T, one_layer, saved
from tests.support.visits import opened, texts
from tests.support.weight_files import save_gguf, save_tensors


@pytest.fixture(scope="module")
def path(tmp_path_factory, prober):
    """A store with a model of each such format; their files are there."""
    folder = tmp_path_factory.mktemp("formats")
    weights = {f"h.{number}.weight": gaussian(32, 32, seed=number) for number in range(3)}
    lite = one_layer(
        "CONV_2D",
        T(name="w", values=gaussian(4, 3, 3, 2)),
        data=(1, 6, 6, 2),
        result=(1, 4, 4, 4),
        options="Conv2DOptions",
        settings=CONV,
    )
    files = (
        save_tensors(folder / "loose.safetensors", weights),
        save_gguf(folder / "blocks.gguf", {name: (w, "Q8_0") for name, w in weights.items()}),
        saved(folder / "lite.tflite", lite),
    )
    store_path = folder / "s.duckdb"
    for file in files:
        ingest_file(file, store_path, prober=prober)
    return store_path


REASONS = {"loose": HAS_NO_GRAPH, "blocks": HAS_NO_GRAPH, "lite": RUNS_ONNX_ONLY}
every_model = pytest.mark.parametrize("model", REASONS)


def labels(app):
    return [button.label for button in app.button]


@pytest.mark.slow
@every_model
def test_the_page_of_the_model_says_why_and_offers_no_run(path, model):
    app = opened("model", path, model=model)
    shown = texts(app)
    assert REASONS[model] in shown
    never = (ways_on.FINISH_TEST, ways_on.RESCUE, targets.MEASURE_OTHERS, targets.MEASURE_AGAIN)
    assert [label for label in labels(app) if label.startswith(never)] == []
    assert runs.HEADING not in shown
    assert targets.NO_FILE not in shown


@pytest.mark.slow
@every_model
def test_only_what_has_a_graph_is_drawn_as_one(path, model):
    shown = texts(opened("model", path, model=model))
    has_graph = model == "lite"
    assert (overlays.HEADING in shown) == has_graph
    assert (stories.WITHOUT_GRAPH in shown) != has_graph


@every_model
@pytest.mark.parametrize("page", ["rescue", "drift"])
def test_the_forms_say_why_instead(path, model, page):
    app = opened(page, path, model=model)
    sentence = why_not_run_sentence("TensorFlow Lite" if model == "lite" else "GGUF")
    assert markdown(sentence) in texts(app)
    assert [label for label in labels(app) if label in ("Rescue", "Run")] == []


def test_several_models_offer_no_test_either(path):
    app = opened("compare", path, model=list(REASONS))
    never = (ways_on.FINISH_TEST, ways_on.RESCUE)
    assert [label for label in labels(app) if label.startswith(never)] == []


def test_the_command_that_measures_targets_refuses_with_the_reason_and_changes_nothing(
    path, capsys
):
    before = path.read_bytes()
    assert cli.main(["probe", "loose", "--db", str(path)]) == 1
    assert HAS_NO_GRAPH in capsys.readouterr().err
    assert path.read_bytes() == before
