"""What pages say of runs: verdicts with their evidence, drift, and weights against reality."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from streamlit.testing.v1 import AppTest

from quantstore import store
from quantstore.app.pages import reality
from quantstore.app.pages.drift import NO_DRIFT_RUN_YET
from quantstore.app.queue import RunQueue
from quantstore.app.sections import run_form
from quantstore.app.widgets import inputs_box, model_files, pickers
from quantstore.numerics.correlation import Correlation
from quantstore.pipeline.files import demo_paths, file_of
from quantstore.process.queue import Job
from quantstore.run.choices import CALIBRATIONS, Choices, Progress
from quantstore.schemes import TARGETS
from quantstore.wording import headlines, notes, sensitivity
from quantstore.wording import runs as run_words
from tests.support.facts import finding, many
from tests.support.runs import CHANNEL, TENSOR, a_run, a_sensitivity, a_tensor, add, layer_names
from tests.support.visits import (
    opened,
    said,
    trusting_no_chart,
    turned_to,
    unopened,
    without_what_only_tests_bring,
)


@pytest.fixture
def open_app(monkeypatch: pytest.MonkeyPatch):
    """Run the app on a store and go to a page, with the address that a link would carry."""

    def run(path: Path, page: str, **address: str | list[str]) -> AppTest:
        monkeypatch.setenv("QUANTSTORE_DB", str(path))
        without_what_only_tests_bring(monkeypatch)
        return unopened(page, **({"target": "int8_tensor"} | address)).run()

    return run


def fails(app: AppTest) -> list[str]:
    return [*(str(e.value) for e in app.exception), *(str(e.value) for e in app.error)]


def seen(path: Path, page: str, /, **address: str | list[str]) -> AppTest:
    """A page that others look at as well."""
    app = opened(page, path, **({"target": "int8_tensor"} | address))
    assert fails(app) == []
    return app


@pytest.fixture
def path(demo_store, tmp_path):
    """The demo models, none of which was run: to add to."""
    return Path(shutil.copy(demo_store, tmp_path / "runs.duckdb"))


@pytest.fixture(scope="module")
def probed(demo_store, tmp_path_factory):
    """Read it, never write to it."""
    path = Path(shutil.copy(demo_store, tmp_path_factory.mktemp("probed") / "runs.duckdb"))
    with store.writing(path) as con:
        add(con, "digits-plain", a_run(39.7))
        add(con, "digits-plain", a_run(46.7, mode="weights"))
        add(con, "digits-rescaled", a_run(0.7))
        add(con, "digits-rescaled", a_run(1.8, CHANNEL))
        add(con, "digits-separable", a_run(34.0, mode="weights", compared="before the Softmax"))
        add(con, "digits-separable-unfolded", a_run(None, failure="it was stopped after 20 s"))
    return path


# Verdicts


@pytest.mark.slow
def test_compare_speaks_from_the_probe_and_says_so(probed):
    app = seen(probed, "compare")
    untested = finding("untested", reason="it was stopped")
    of_each = [*many(1, 0, 2, mode="both"), untested, untested]
    per_channel = [finding("broken", "both", target="int8_channel"), untested, untested, untested]
    assert app.header[0].value == headlines.models_headline(
        of_each, per_channel, TARGETS["int8_tensor"]
    )
    assert notes.PROBE_NOTE in said(app)
    assert notes.UNTESTED_NOTE in said(app)


@pytest.mark.slow
def test_a_run_on_own_inputs_is_shown_with_their_number(open_app, path):
    with store.writing(path) as con:
        add(con, "digits-plain", a_run(39.7, source="12 images", provisional="guess <b>"))
    app = open_app(path, "model", model="digits-plain")
    assert app.header[0].value.replace("\u00a0", " ") == (
        f"Fine with {TARGETS['int8_tensor'].title}: output SQNR 40 dB, on 3 of your inputs,"
        " provisional"
    )
    assert notes.RUN_NOTE in said(app)
    assert "guess &lt;b&gt;" in said(app)


def test_without_a_run_compare_says_nothing_of_a_probe(demo_store):
    app = seen(demo_store, "compare")
    assert notes.PROBE_NOTE not in said(app)
    assert notes.WEIGHTS_NOTE in said(app)


@pytest.mark.slow
def test_a_model_opens_with_what_the_probe_found(probed):
    app = seen(probed, "model", model="digits-plain")
    headline = headlines.model_headline(
        finding("fine", "both", 39.7), finding(), TARGETS["int8_tensor"]
    )
    assert said(app).splitlines()[1] == headline.replace("\u00a0", " ")
    assert "input 1x1x8x8" in said(app)
    assert [b.label for b in app.button if b.key == "to_reality"]


@pytest.mark.slow
def test_a_model_that_its_activations_break_says_so_where_it_breaks(open_app, path):
    with store.writing(path) as con:
        add(con, "digits-plain", a_run(4.9))
        add(con, "digits-plain", a_run(35.0, mode="weights"))
    app = open_app(path, "model", model="digits-plain")
    assert fails(app) == []
    assert (
        "Activations break the model, not weights: the output SQNR is 35.0 dB with int8 weights"
        " only, but 4.9 dB in full int8 (estimated with noise)." in said(app)
    )
    app.button(key="why_drift").click().run()
    assert fails(app) == []
    assert app.title[0].value == "Drift"
    assert dict(app.query_params)["model"] == "digits-plain"


@pytest.mark.parametrize(
    ("weights_db", "both_db"),
    [
        (39.0, 34.0),
        pytest.param(18.0, 4.0, marks=pytest.mark.slow),
        pytest.param(21.0, 19.0, marks=pytest.mark.slow),
        (None, 5.0),
    ],
)
@pytest.mark.slow
def test_weights_that_suffer_too_are_not_let_off(open_app, path, weights_db, both_db):
    with store.writing(path) as con:
        add(con, "digits-plain", a_run(both_db))
        add(con, "digits-plain", a_run(weights_db, mode="weights"))
    assert "It is the activations" not in said(open_app(path, "model", model="digits-plain"))


@pytest.mark.slow
def test_a_failed_probe_is_said_with_its_reason(probed):
    app = seen(probed, "model", model="digits-separable-unfolded")
    assert f"{run_words.PROBE_FAILED} it was stopped" in said(app)


@pytest.mark.slow
def test_a_model_that_was_not_run_says_how_to(demo_store):
    app = seen(demo_store, "model", model="digits-plain")
    assert run_words.NOT_RUN in said(app)


# Weights against reality


def test_reality_without_a_run_says_what_is_missing(demo_store):
    app = seen(demo_store, "reality")
    assert app.header[0].value == reality.NO_RUN_YET


def test_two_models_are_too_few_to_tell(open_app, probed, monkeypatch):
    trusting_no_chart(monkeypatch)
    app = open_app(probed, "reality")
    assert fails(app) == []
    assert said(app).splitlines()[1].startswith("Too few models: only 2 models measured")
    assert len(app.get("vega_lite_chart")) == 1


@pytest.mark.slow
def test_four_models_give_a_correlation_with_its_n(open_app, probed, tmp_path):
    path = Path(shutil.copy(probed, tmp_path / "four.duckdb"))
    with store.writing(path) as con:
        add(con, "digits-separable", a_run(32.0))
        add(con, "digits-separable-unfolded", a_run(31.0))
    app = open_app(path, "reality")
    assert fails(app) == []
    assert "4 models" in said(app).splitlines()[1]
    app = open_app(path, "reality", statistic="Worst channel p10", quantized="weights only")
    assert fails(app) == []
    assert app.session_state["statistic"] == "Worst channel p10"


@pytest.mark.parametrize(
    ("correlation", "said"),
    [
        (Correlation(-0.95, 4, -1.0, 0.2), "Too few models: the summed noise-to-signal"),
        (Correlation(-0.9, 42, -0.95, -0.8), "predicts the measured ranking very well"),
        (Correlation(-0.7, 42, -0.8, -0.5), "predicts the measured ranking fairly well"),
        (Correlation(-0.4, 42, -0.6, -0.1), "No weight statistic predicts"),
    ],
)
def test_the_headline_claims_no_more_than_the_interval_allows(correlation, said):
    correlations = {"Noise to signal": correlation}
    scheme = TARGETS["int8_tensor"].scheme
    assert said in reality._headline(correlations, correlation.n, scheme, "both")


def test_a_scheme_without_figures_says_which_have_some(probed):
    app = seen(probed, "reality", target="int4_weights")
    assert "There are values for: int8 per tensor, symmetric" in app.info[0].value


# Drift


@pytest.fixture(scope="module")
def drifted(probed, tmp_path_factory):
    """Two runs of one model, and one of another. Read it, never write to it."""
    path = Path(shutil.copy(probed, tmp_path_factory.mktemp("drifted") / "runs.duckdb"))
    keys = []
    with store.writing(path) as con:
        for model, scheme, mode in (
            ("digits-rescaled", TENSOR, "both"),
            ("digits-rescaled", CHANNEL, "both"),
            ("digits-plain", TENSOR, "weights"),
        ):
            names = layer_names(con, model)
            tensors = [
                a_tensor(0, None, names[0]),
                a_tensor(1, 55, "Relu_1"),
                a_tensor(2, 30, names[1]),
                a_tensor(2, 44, names[1], "local"),
                a_tensor(3, 12, "Add_3"),
                a_tensor(4, 8, names[2]),
            ]
            run = a_run(8, scheme, mode, source="12 images of photos/", minute=len(keys))
            keys.append(add(con, model, run, tensors))
    return path, keys


@pytest.fixture
def own_drifted(drifted, tmp_path):
    """The same to write to."""
    path, keys = drifted
    return Path(shutil.copy(path, tmp_path / "drifted.duckdb")), keys


def test_before_the_first_run_drift_explains_itself_and_offers_one(demo_store):
    app = seen(demo_store, "drift")
    assert app.header[0].value == NO_DRIFT_RUN_YET
    assert run_form.WHAT_IT_IS in said(app)


def test_drift_names_the_end_and_the_steepest_fall(open_app, drifted, monkeypatch):
    trusting_no_chart(monkeypatch)
    path, keys = drifted
    app = open_app(path, "drift", runs=[str(keys[0])])
    assert fails(app) == []
    assert said(app).splitlines()[1] == (
        "Broken: the output SQNR of digits-rescaled is 8.0 dB. Largest drop: Add_3, 30.0 dB →"
        " 12.0 dB."
    )
    assert len(app.get("vega_lite_chart")) == 2


@pytest.mark.parametrize(
    ("shift", "words"),
    [(-0.004, "0.00"), pytest.param(-0.25, "−0.25", marks=pytest.mark.slow)],
)
def test_what_rounds_to_zero_has_no_sign(open_app, own_drifted, shift, words):
    path, keys = own_drifted
    with store.writing(path) as con:
        con.rows("update activation_errors set mean_shift = ?", [shift])
    app = open_app(path, "drift", runs=[str(keys[0])])
    assert f"mean shift {words} standard deviations" in said(app)


def test_the_address_brings_runs_and_tensor(drifted):
    path, keys = drifted
    runs = [str(keys[0]), str(keys[2])]
    app = seen(path, "drift", runs=runs, of=runs[1], tensor="tensor_3")
    assert app.multiselect(key="runs").value == runs
    assert (app.session_state["of"], app.session_state["tensor"]) == (runs[1], "tensor_3")
    assert "accumulated SQNR 12.0 dB" in said(app)


@pytest.mark.slow
def test_drift_begins_with_the_model_and_the_scheme_looked_at(open_app, drifted):
    path, keys = drifted
    app = open_app(path, "drift", model="digits-rescaled", target="int8_channel")
    assert app.multiselect(key="runs").value == [str(keys[1])]
    # Another scheme brings its run of the same model.
    app.selectbox(key="target").set_value("int8_tensor").run()
    assert fails(app) == []
    assert app.multiselect(key="runs").value == [str(keys[0])]


@pytest.mark.slow
def test_runs_are_called_and_chosen_by_target(open_app, own_drifted):
    path, keys = own_drifted
    with store.writing(path) as con:
        for number, target in enumerate(("int8_channel_fused", "int8_tensor_power_of_two")):
            record = a_run(
                12,
                TARGETS[target].scheme.name,
                source="12 images of photos/",
                target=target,
                minute=10 + number,
            )
            names = layer_names(con, "digits-rescaled")
            tensors = [a_tensor(2, 30, names[1]), a_tensor(4, 8, names[2])]
            keys = [*keys, add(con, "digits-rescaled", record, tensors)]
    app = open_app(path, "drift", model="digits-rescaled", target="int8_channel_fused")
    assert fails(app) == []
    runs = app.multiselect(key="runs")
    assert runs.value == [str(keys[3])]
    # AppTest has options as they are shown.
    shown = [option.split(": ")[1] for option in runs.options]
    assert "per-channel int8, fused, 12 images of photos/" in shown
    assert "per-channel int8, 12 images of photos/" in shown
    assert "int8 per tensor, symmetric, weights only, 12 images of photos/" in shown
    # What was not run for the new target stays.
    for target, key in (("int8_tensor_power_of_two", keys[4]), ("int8_dynamic", keys[4])):
        app.selectbox(key="target").set_value(target).run()
        assert fails(app) == []
        assert app.multiselect(key="runs").value == [str(key)]


def test_a_model_without_a_run_is_offered_one_and_never_shown_as_another(
    open_app, drifted, on_loopback
):
    path, keys = drifted
    app = open_app(path, "drift", model="digits-separable")
    assert fails(app) == []
    assert app.header[0].value == r"No run of digits\-separable yet"
    assert app.expander[0].proto.expanded
    assert app.selectbox(key="run_model").value == "digits-separable"
    # The runs of others may still be picked; then the page is about them.
    app.multiselect(key="runs").set_value([str(keys[2])]).run()
    assert fails(app) == []
    assert app.header[0].value.startswith(r"Broken\: the output SQNR of digits\-plain is")
    assert not app.expander[0].proto.expanded
    assert dict(app.query_params)["model"] == "digits-plain"


@pytest.mark.slow
@pytest.mark.parametrize("model", ["digits-plain", "digits-separable"])
def test_from_another_model_drift_shows_that_one(open_app, drifted, model):
    path, keys = drifted
    app = open_app(path, "drift", model="digits-rescaled")
    assert app.multiselect(key="runs").value == [str(keys[0])]
    turned_to(app, "model").run()
    app.selectbox(key="model").set_value(model).run()
    app.button(key="to_drift").click().run()
    assert fails(app) == []
    own = [str(keys[2])] if model == "digits-plain" else []
    assert app.multiselect(key="runs").value == own
    assert dict(app.query_params)["model"] == model
    turned_to(app, "model").run()
    assert app.selectbox(key="model").value == model


def test_a_model_whose_file_is_gone_is_named_and_its_file_can_be_chosen_again(
    open_app, own_drifted, on_loopback
):
    path, _ = own_drifted
    with store.writing(path) as con:
        con.rows("update models set source = '/gone.onnx' where model = 'digits-separable'")
    app = open_app(path, "drift", model="digits-separable")
    assert f"**digits-separable** {run_form.NOT_AT_HAND}" in said(app)
    assert model_files.CHOOSE_OR_ENTER in said(app)


def test_a_run_that_is_gone_leaves_the_others(drifted):
    path, keys = drifted
    app = seen(path, "drift", runs=["999", str(keys[2])])
    assert [one.value for one in app.warning] == [pickers.not_in_store("drift run numbered", "999")]
    assert app.multiselect(key="runs").value == [str(keys[2])]


@pytest.mark.slow
def test_no_run_chosen_is_no_failure(open_app, drifted):
    path, keys = drifted
    app = open_app(path, "drift", runs=[str(keys[0])])
    app.multiselect(key="runs").set_value([]).run()
    assert fails(app) == []
    assert app.header[0].value == "Choose a run"


def test_sensitivity_is_held_against_the_ranking_by_weights(open_app, own_drifted):
    path, keys = own_drifted
    with store.writing(path) as con:
        model_id = store.find_model(con, "digits-rescaled")
        records = [a_sensitivity(depth, 10.0 + depth) for depth in range(10)]
        store.add_sensitivities(con, model_id, records)
    app = open_app(path, "drift", runs=[str(keys[0])])
    assert fails(app) == []
    assert "Spearman" in said(app)
    assert "over 10 layers" in said(app)
    assert "Only the weights of this layer are quantized" in said(app)


@pytest.mark.parametrize(
    ("unit_kind", "mode", "parts"),
    [
        ("weights", "both", "weights"),
        ("layer", "both", "weights, inputs and outputs"),
        ("layer", "weights", "weights"),
        ("layer", "activations", "inputs and outputs"),
    ],
)
def test_sensitivity_says_what_is_quantized_at_a_time(unit_kind, mode, parts):
    """Release 0.1.0 took layers, with what they read and make."""
    row = {"unit_kind": unit_kind, "mode": mode, "target": "int8_tensor", "input_source": "mine"}
    assert f"Only the {parts} of this layer are quantized" in sensitivity.subject([row])


@pytest.mark.slow
def test_names_of_runs_and_tensors_are_never_markup(open_app, own_drifted):
    path, keys = own_drifted
    evil = "<img src=x onerror=alert(1)> **bold** $x$ [a](http://b)"
    with store.writing(path) as con:
        con.rows("update activation_errors set node_name = ?, tensor = tensor || ?", [evil, evil])
        con.rows("update simulations set input_source = ?, failure = ?", [evil, None])
        con.rows("update simulations set compared = ?, input_shape = ?", [evil, evil])
        con.rows("update simulations set failure = ? where output_sqnr_db is null", [evil])
    for page, address in (
        ("drift", {"runs": [str(keys[0]), str(keys[1])]}),
        ("model", {"model": "digits-rescaled"}),
        ("reality", {}),
        ("compare", {}),
    ):
        app = open_app(path, page, **address)
        assert fails(app) == []
        kinds = (app.title, app.header, app.markdown, app.caption, app.info)
        raw = "\n".join(
            [str(element.value) for kind in kinds for element in kind]
            + [element.proto.body for element in app.get("html")]
        )
        assert "<img" not in raw.replace("\\<img", "")


def test_a_model_that_is_gone_is_said(drifted):
    path, _ = drifted
    app = seen(path, "drift", model="gone")
    assert [one.value for one in app.warning] == [pickers.not_in_store("model named", "gone")]


# Starting a run


class Never:
    """A run that waits to be cancelled."""

    progress = None

    def cancel(self):
        """Nothing to stop."""

    def wait(self):
        raise AssertionError("not in this test")


@pytest.fixture
def asked(monkeypatch):
    """What the form asks for, without running it."""
    asked = []

    def add(self, path, store_path, inputs, choices, *, name, description, when_finished):
        asked.append((path, store_path, inputs, choices, name, description))
        return len(asked)

    monkeypatch.setattr(RunQueue, "add", add)
    return asked


@pytest.fixture
def on_loopback(monkeypatch):
    monkeypatch.setattr(run_form, "is_offered", lambda: True)


def test_a_run_is_asked_for_with_what_was_chosen(open_app, path, asked, on_loopback):
    app = open_app(path, "drift")
    # First the target of the sidebar.
    assert app.selectbox(key="run_target").value == "int8_tensor"
    app.selectbox(key="run_model").set_value("digits-plain")
    app.selectbox(key="run_target").set_value("int8_channel_fused")
    app.selectbox(key="run_calibration").set_value("mse")
    app.number_input(key="run_samples").set_value(5)
    next(b for b in app.button if b.label == "Run").click().run()
    assert fails(app) == []
    ((file, store_path, inputs, arguments, name, what),) = asked
    assert file == next(p for p in demo_paths() if p.stem == "digits-plain")
    assert (store_path, inputs, name) == (path, "noise", "digits-plain")
    choices = Choices(**arguments)
    assert choices.rounded is TARGETS["int8_channel_fused"]
    assert (choices.calibration, choices.samples) == ("mse", 5)
    assert what == "Per-channel int8, fused, noise"


def test_a_run_may_round_every_target_and_what_no_target_is():
    for target in TARGETS.values():
        offered = run_form.roundings(target)
        assert next(iter(offered)) == target.name
        rounded = [Choices(**arguments) for _, arguments in offered.values()]
        names = [choices.target_name for choices in rounded]
        assert sorted(filter(None, names)) == sorted(TARGETS)
        others = [(one.scheme, one.mode) for one in rounded if one.target_name is None]
        assert (TENSOR, "weights") in others
        assert [mode for _, mode in others].count("activations") == 1
        titles = [title for title, _ in offered.values()]
        assert len(set(titles)) == len(titles)


def test_the_form_offers_every_calibration():
    assert tuple(run_form.CALIBRATIONS) == CALIBRATIONS


@pytest.mark.slow
def test_inputs_that_are_not_there_are_asked_for_again(open_app, path, asked, on_loopback):
    app = open_app(path, "drift")
    app.selectbox(key="run_kind").set_value(inputs_box.OWN_DATA)
    next(b for b in app.button if b.label == "Run").click().run()
    assert app.error[0].value == inputs_box.NO_INPUTS
    app.text_input(key="run_folder").set_value("/nowhere/at all")
    next(b for b in app.button if b.label == "Run").click().run()
    assert app.error[0].value.endswith("does not exist. Check the path.")
    assert asked == []


def test_nobody_starts_a_run_from_another_computer(open_app, path, monkeypatch):
    monkeypatch.setattr(run_form, "is_offered", lambda: False)
    app = open_app(path, "drift")
    assert fails(app) == []
    assert not [b for b in app.button if b.label == "Run"]
    assert run_form.FROM_A_TERMINAL in said(app)
    assert app.code[0].value.startswith(f"quantstore --db {path} simulate ")


def test_the_file_of_a_model_is_found_where_it_still_is(tmp_path):
    file = tmp_path / "a.onnx"
    file.write_bytes(b"")
    assert file_of(str(file)) == file
    assert file_of("example digits-plain.onnx").name == "digits-plain.onnx"
    for gone in ("upload a.onnx", "example none.onnx", str(tmp_path / "b.onnx"), "a\0b", ""):
        assert file_of(gone) is None


@pytest.mark.slow
def test_a_run_under_way_is_shown_and_its_result_appears(open_app, drifted, monkeypatch):
    path, keys = drifted
    job = Job(1, "digits-plain", "both, noise", "running", Progress("calibrating", 3, 12))
    jobs = [job]
    monkeypatch.setattr(RunQueue, "snapshot", lambda self: list(jobs))
    app = open_app(path, "drift", runs=[str(keys[0])])
    assert fails(app) == []
    assert "calibrating 3 of 12" in said(app)
    assert [b.label for b in app.button if b.key == "cancel_run_1"] == ["Cancel"]
    app.session_state["own_jobs"] = {1}
    result = SimpleNamespace(simulation_id=keys[2], notes=["the opset was raised to 13"])
    jobs[0] = Job(1, "digits-plain", "both, noise", "done", result=result)
    app.run()
    assert fails(app) == []
    assert app.multiselect(key="runs").value == [str(keys[2]), str(keys[0])]
