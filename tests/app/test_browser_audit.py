"""An audit as a person starts it: from two stored models to why the int8 file is worse."""

import re
from pathlib import Path

import pytest

from quantstore import queries, store
from quantstore.pipeline.files import demo_paths
from quantstore.pipeline.ingest import ingest_file
from quantstore.pipeline.outcome import IngestChoices
from quantstore.wording import audit_tables as tables
from quantstore.wording import audits as wording
from tests.support.browsing import expect

MODEL, INT8 = "digits-rescaled", "digits-rescaled-int8"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def int8_file(tmp_path_factory) -> Path:
    """The float model in int8, by the tool that most people take."""
    quantization = pytest.importorskip("onnxruntime.quantization")
    path = tmp_path_factory.mktemp("int8") / f"{INT8}.onnx"
    source = next(one for one in demo_paths() if one.stem == MODEL)
    quantization.quantize_dynamic(source, path, weight_type=quantization.QuantType.QInt8)
    return path


def test_a_file_is_audited_from_the_page(visit, full_app, served, int8_file) -> None:
    ingest_file(int8_file, served.path, IngestChoices(probe=False))
    visitor = visit(full_app)
    page = visitor.page
    visitor.open(f"/audit?model={INT8}")
    visitor.shows(f"No audit of {INT8} yet")
    visitor.shows(wording.WHAT_IT_IS[:60])
    assert visitor.violations() == []
    page.get_by_role("spinbutton", name="Roundings to undo").fill("4")
    page.get_by_role("button", name="Audit", exact=True).click()
    visitor.shows("audit against")
    expect(
        page.get_by_role("heading", name=re.compile(f"{INT8} has an output SQNR"))
    ).to_be_visible(timeout=60_000)
    visitor.shows("done: ")
    visitor.settle()
    visitor.shows(tables.LAYERS)
    expect(page.locator("[data-testid=stVegaLiteChart] svg.marks")).to_be_attached()
    with store.reading(served.path) as con:
        (row,) = queries.audits(con).to_dict("records")
    # Of the models whose layers fit, the one with the likest name was proposed.
    assert (row["int8_model"], row["float_model"]) == (INT8, MODEL)
    visitor.reaches("audit", str(row["audit_id"]))
    assert visitor.violations() == []
    for width in (800, 390, 1440):
        page.set_viewport_size({"width": width, "height": 900})
        visitor.open(f"/audit?model={INT8}")
        visitor.shows(tables.OUTPUTS)
        visitor.settle()
        # The chart takes its width from its place a moment after it is drawn.
        page.wait_for_timeout(1500)
        # The sidebar keeps the width of the window that it was opened in.
        main = "document.querySelector('[data-testid=stMain]')"
        assert page.evaluate(f"{main}.scrollWidth - {main}.clientWidth") <= 0
    page.get_by_role("row").filter(has_text="Conv").first.click()
    visitor.arrives("layer", INT8)
    visitor.leaves_no_trace()
