"""The command ``overlay``: what it writes, and what it says where it cannot."""

from functools import partial

import pytest

from quantstore import store
from quantstore.pipeline.files import demo_paths

MODEL = "digits-rescaled"


@pytest.fixture
def run(run):
    """Run the command on the demo models: exit code, standard output, standard error."""
    return partial(run, "overlay")


def test_every_file_is_written_and_named(run, tmp_path):
    code, out, err = run(MODEL, "--target", "int8_tensor", "-o", "out")
    assert (code, out) == (0, "")
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == [
        f"{MODEL}.annotated.onnx",
        f"{MODEL}.band.node_data.json",
        f"{MODEL}.remedy.node_data.json",
        "exclude.txt",
    ]
    for name in names:
        assert f"wrote out/{name}\n" in err
    assert "no run for int8_tensor has tensor values" in err
    assert "exclude.txt lists the broken layers" in err


def test_a_file_that_moved_is_named(run, tmp_path):
    with store.writing(tmp_path / "quantstore.duckdb") as con:
        con.rows("update models set source = '/gone/net.onnx' where model = ?", [MODEL])
    code, _, err = run(MODEL)
    assert code == 1
    assert "has been moved or deleted: /gone/net.onnx; name it with --file MODEL.onnx" in err
    file = next(path for path in demo_paths() if path.stem == MODEL)
    assert run(MODEL, "--file", file)[0] == 0
    assert (tmp_path / f"{MODEL}.annotated.onnx").exists()


def test_another_file_is_refused(run):
    other = next(path for path in demo_paths() if path.stem == "digits-plain")
    code, _, err = run(MODEL, "--file", other)
    assert code == 1
    assert f"differs from the file that was measured as '{MODEL}'" in err


def test_a_model_that_is_not_stored_is_told(run):
    code, _, err = run("unheard-of")
    assert code == 2
    assert "quantstore models" in err
