"""Running what was uploaded: the file is chosen again, or kept; inputs are uploaded as well."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from quantstore import store
from quantstore.app.queue import RunQueue
from quantstore.app.sections import rescue_form, run_form
from quantstore.app.widgets import inputs_box, model_files, reach
from quantstore.pipeline import kept
from quantstore.pipeline.files import demo_paths
from tests.support.visits import fails, texts

MODEL, OTHER = "digits-plain", "digits-rescaled"
FILES = {path.stem: path for path in demo_paths()}


@pytest.fixture
def path(demo_store, tmp_path):
    """The demo models, as if they were uploaded."""
    path = Path(shutil.copy(demo_store, tmp_path / "own.duckdb"))
    with store.writing(path) as con:
        con.rows("update models set source = 'upload ' || model || '.onnx'")
    return path


@pytest.fixture(autouse=True)
def on_loopback(monkeypatch):
    monkeypatch.setattr(reach, "is_this_computer_only", lambda: True)


@pytest.fixture
def asked(monkeypatch):
    """What is asked of the queue, instead of being run."""
    asked = []

    def add(self, path, store_path, inputs, choices, *, when_finished, **more):
        asked.append((path, inputs, choices, when_finished, more["description"]))
        return len(asked)

    monkeypatch.setattr(RunQueue, "add", add)
    return asked


def box(app, label):
    return next(box for box in app.get("file_uploader") if box.label == label)


def press(app, label):
    next(button for button in app.button if button.label == label).click().run()


def a_picture(seed=0):
    stream = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (8, 8), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, "png")
    return stream.getvalue()


@pytest.mark.slow
def test_an_upload_is_run_from_the_file_that_is_chosen_again(open_app, path, asked):
    app = open_app(path, "drift", model=MODEL)
    assert run_form.NOT_AT_HAND in texts(app)
    assert not [button for button in app.button if button.label == "Run"]
    # Another file is refused by its content, with its name here.
    box(app, model_files.CHOOSE_AGAIN).upload("x.onnx", FILES[OTHER].read_bytes()).run()
    (error,) = (one.value.replace("\\", "") for one in app.error)
    assert error == (
        f"x.onnx is not the file of {MODEL}: the content differs. This is the file of {OTHER}."
    )
    box(app, model_files.CHOOSE_AGAIN).upload("y.onnx", FILES[MODEL].read_bytes()).run()
    assert fails(app) == []
    assert app.selectbox(key="run_model").value == MODEL
    press(app, "Run")
    assert fails(app) == []
    ((file, inputs, _, when_finished, _),) = asked
    assert (file.read_bytes(), inputs) == (FILES[MODEL].read_bytes(), "noise")
    assert file.parents[1].stat().st_mode & 0o777 == 0o700
    when_finished()
    assert kept.sizes(path) == {}


@pytest.mark.slow
def test_a_file_that_is_chosen_again_is_kept_on_request(open_app, path, asked):
    app = open_app(path, "rescue", model=MODEL)
    assert rescue_form.NO_FILE in texts(app)
    app.checkbox(key="rescue_file_keep").set_value(True)
    box(app, model_files.CHOOSE_AGAIN).upload("y.onnx", FILES[MODEL].read_bytes()).run()
    assert fails(app) == []
    assert len(kept.sizes(path)) == 1
    # Another session finds it.
    app = open_app(path, "rescue", model=MODEL)
    assert [button for button in app.button if button.label == "Rescue"]


@pytest.mark.slow
def test_what_is_no_model_is_a_sentence(open_app, path):
    app = open_app(path, "model", model=MODEL)
    box(app, model_files.CHOOSE_AGAIN).upload("letter.onnx", b"Dear sir or madam").run()
    (error,) = app.error
    assert error.value.replace("\\", "").startswith("letter.onnx: not an ONNX file")


@pytest.fixture
def runnable(path):
    with store.writing(path) as con:
        con.rows("update models set source = 'example ' || model || '.onnx'")
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "key", "button"), [("drift", "run", "Run"), ("rescue", "rescue", "Rescue")]
)
def test_pictures_that_are_uploaded_become_the_inputs(open_app, runnable, asked, page, key, button):
    app = open_app(runnable, page, model=MODEL)
    pictures = [
        ("a.png", a_picture(), "image/png"),
        ("../a.png", a_picture(1), "image/png"),
    ]
    box(app, inputs_box.UPLOAD_LABEL).set_value(pictures).run()
    assert fails(app) == []
    assert app.selectbox(key=f"{key}_kind").value == inputs_box.UPLOADED
    press(app, button)
    assert fails(app) == []
    ((_, inputs, _, when_finished, description),) = asked
    folder = Path(inputs)
    assert folder.name == inputs_box.FOLDER
    assert sorted(file.name for file in folder.iterdir()) == ["1-a.png", "a.png"]
    assert description.endswith(", 2 uploaded images")
    when_finished()
    assert not folder.parent.exists()


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        ([], inputs_box.NO_INPUTS),
        (["a.npz", "b.png"], inputs_box.ONE_KIND),
        (["a.npz", "b.npz"], inputs_box.ONE_KIND),
        (["a.exe"], inputs_box.ONE_KIND),
    ],
)
def test_inputs_that_do_not_go_together_are_refused(names, problem):
    files = []
    for name in names:
        file = io.BytesIO(b"0")
        file.name, file.size = name, 1
        files.append(file)
    assert inputs_box._copied(files).problem == problem


def test_one_file_of_arrays_keeps_its_name():
    file = io.BytesIO(b"0")
    file.name, file.size = "test.npz", 1
    inputs = inputs_box._copied([file])
    assert (Path(inputs.path).name, inputs.title) == ("test.npz", "test.npz")
    inputs.release()
    assert not Path(inputs.path).exists()
