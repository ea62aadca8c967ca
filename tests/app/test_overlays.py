"""The section on other viewers: what it hands out, and what it says where the file is not there."""

import io
import json
import shutil
import zipfile
from pathlib import Path

import onnx
import pytest

from quantstore import queries, store
from quantstore.app.sections import overlays
from quantstore.app.widgets import reach
from quantstore.schemes import TARGETS
from tests.support.visits import fails, texts

MODEL = "digits-rescaled"


@pytest.fixture
def path(demo_store, tmp_path):
    return Path(shutil.copy(demo_store, tmp_path / "own.duckdb"))


@pytest.fixture
def on_loopback(monkeypatch):
    monkeypatch.setattr(reach, "is_this_computer_only", lambda: True)


@pytest.fixture
def handed(monkeypatch):
    """What each button of the section would hand out, by its label."""
    handed = {}
    monkeypatch.setattr(
        overlays.st,
        "download_button",
        lambda label, content, **_: handed.update({label: content}),
    )
    return handed


def labels(app):
    return [one.label for one in app.get("download_button") if one.label in overlays.LABELS]


@pytest.mark.slow
def test_a_model_whose_file_is_there_is_handed_out_annotated(open_app, path, on_loopback):
    app = open_app(path, "model", model=MODEL)
    assert fails(app) == []
    assert labels(app) == list(overlays.LABELS)
    assert overlays.NO_FILE not in texts(app)


@pytest.mark.slow
@pytest.mark.parametrize("is_offered", [True, False])
def test_what_is_handed_out_is_made_on_the_click(path, handed, monkeypatch, is_offered):
    monkeypatch.setenv("QUANTSTORE_DB", str(path))
    monkeypatch.setattr(reach, "is_this_computer_only", lambda: is_offered)
    with store.reading(path) as con:
        (origin,) = queries.origins(con, [MODEL])
    overlays.section(origin, TARGETS["int8_tensor"])
    made = {label: content() for label, content in handed.items()}
    with zipfile.ZipFile(io.BytesIO(made["Model Explorer"])) as archive:
        assert archive.namelist() == [
            f"{MODEL}.band.node_data.json",
            f"{MODEL}.remedy.node_data.json",
        ]
        data = json.loads(archive.read(archive.namelist()[0]))
    # Without the file nothing tells the name of the graph.
    assert ("results" in data) is not is_offered
    assert made["Exclude list"].startswith(b"/stem/conv/Conv\n")
    if is_offered:
        onnx.checker.check_model(made["Netron"])
    else:
        assert "Netron" not in made


@pytest.mark.slow
def test_an_app_for_others_looks_into_no_file(open_app, path, monkeypatch):
    monkeypatch.setattr(reach, "is_this_computer_only", lambda: False)
    app = open_app(path, "model", model=MODEL)
    assert fails(app) == []
    assert labels(app) == ["Model Explorer", "Exclude list"]
    assert overlays.FROM_A_TERMINAL in texts(app)


@pytest.mark.slow
def test_a_file_that_is_gone_or_changed_is_told(open_app, path, tmp_path, on_loopback):
    source = tmp_path / "net.onnx"
    with store.writing(path) as con:
        con.rows("update models set source = ? where model = ?", [str(source), MODEL])
    app = open_app(path, "model", model=MODEL)
    assert labels(app) == ["Model Explorer", "Exclude list"]
    assert overlays.NO_FILE in texts(app)
    shutil.copy(path, source)
    app = open_app(path, "model", model=MODEL)
    assert labels(app) == ["Model Explorer", "Exclude list"]
    assert overlays.CHANGED in texts(app)
