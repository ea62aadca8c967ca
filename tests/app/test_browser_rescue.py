"""A rescue as a person starts it: from the Model page, on inputs of their own, to the file."""

import re
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from quantstore import store
from quantstore.app.sections import answers
from tests.support.browsing import expect

MODEL = "digits-rescaled"
pytestmark = pytest.mark.slow


def test_a_model_is_rescued_from_the_page(visit, full_app, served, tmp_path) -> None:
    inputs = tmp_path / "images.npz"
    rng = np.random.default_rng(0)
    np.savez(inputs, image=rng.random((16, 1, 8, 8), dtype=np.float32))
    visitor = visit(full_app)
    page = visitor.page
    visitor.open(f"/model?model={MODEL}&target=int8_tensor")
    visitor.shows(answers.HEADING)
    page.get_by_role("button", name=answers.BUTTONS["rescue"]).click()
    visitor.arrives("rescue", "No rescue of")
    visitor.reaches("model", MODEL)
    assert visitor.violations() == []

    page.get_by_role("textbox", name="Image, image folder, .npz or .npy").fill(str(inputs))
    page.get_by_role("textbox", name="Folder for the files").fill(str(tmp_path / "out"))
    page.get_by_role("button", name="Rescue", exact=True).click()
    visitor.shows("images.npz")
    visitor.settle()
    # It goes on while another page is looked at.
    visitor.go("Worked example")
    visitor.go("Rescue")
    visitor.shows("done: output SQNR")
    expect(page.get_by_role("heading", name=re.compile(r"on 4\sunseen inputs"))).to_be_visible()
    visitor.settle()
    for chart in page.locator("[data-testid=stVegaLiteChart]").all():
        expect(chart.locator("svg.marks")).to_be_attached()
    assert visitor.violations() == []
    assert visitor.sideways() <= 0

    with page.expect_download() as downloading:
        page.get_by_role("button", name=f"{MODEL}.rescued.onnx").click()
    content = Path(downloading.value.path()).read_bytes()
    with store.reading(served.path) as con:
        rows = con.rows("select path, sha256 from rescue_files where kind = 'rescued'")
    assert rows == [(str(tmp_path / "out" / f"{MODEL}.rescued.onnx"), sha256(content).hexdigest())]

    visitor.leaves_no_trace()
