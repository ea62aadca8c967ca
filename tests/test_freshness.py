"""Whether the file that a model was read from is still what was measured."""

import dataclasses
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from graphs import conv_model, save

from quantstore.freshness import all_fresh, freshness
from quantstore.ingestion import content_of
from quantstore.measure import MEASURES_VERSION
from quantstore.queries import Origin


def utc_now():
    return datetime.now(UTC).replace(tzinfo=None)


@pytest.fixture
def origin(tmp_path):
    """A model that was measured a minute after its file was written."""
    path = save(conv_model(), tmp_path / "net.onnx")
    an_hour_ago = utc_now() - timedelta(hours=1)
    before = (an_hour_ago - timedelta(minutes=1)).replace(tzinfo=UTC).timestamp()
    os.utime(path, (before, before))
    return Origin(
        model="net",
        source=str(path),
        file_bytes=path.stat().st_size,
        sha256=content_of(path),
        folded=True,
        ingested_at=an_hour_ago,
        measures_version=MEASURES_VERSION,
    )


def test_a_file_that_nobody_wrote_is_not_read_again(origin, monkeypatch):
    monkeypatch.setattr("quantstore.freshness.content_of", lambda _: pytest.fail("it was read"))
    assert freshness(origin).kind == "same"
    assert freshness(origin).is_in_order


def test_the_same_content_written_again_is_the_same(origin):
    os.utime(origin.source)
    assert freshness(origin).kind == "same"


def test_other_content_is_a_change_that_needs_care(origin):
    other = conv_model()
    other.producer_name = "another hand"
    save(other, origin.source)
    state = freshness(origin)
    assert (state.kind, state.needs_care, state.can_be_refreshed) == ("changed", True, True)
    assert state.sha256 == content_of(Path(origin.source))


def test_an_older_copy_that_is_larger_is_a_change_too(origin):
    written = Path(origin.source).stat()
    other = conv_model()
    other.doc_string = "longer " * 9
    save(other, origin.source)
    os.utime(origin.source, (written.st_atime, written.st_mtime))
    assert freshness(origin).kind == "changed"


def test_what_is_no_model_any_more_says_why_and_cannot_be_measured(origin, tmp_path):
    (tmp_path / "net.onnx").write_text("Dear sir")
    state = freshness(origin)
    assert (state.kind, state.can_be_refreshed) == ("unreadable", False)
    assert state.message.startswith("not an ONNX file")


@pytest.mark.parametrize(
    ("source", "kind"),
    [("example net.onnx", "no file"), ("/nowhere/net.onnx", "gone"), ("/a\0b", "gone")],
)
def test_without_a_file_there_is_nothing_to_do(origin, source, kind):
    state = freshness(dataclasses.replace(origin, source=source))
    assert (state.kind, state.needs_care) == (kind, False)


def test_a_measurement_of_an_older_release_needs_care(origin):
    old = dataclasses.replace(origin, measures_version=MEASURES_VERSION - 1)
    state = freshness(old)
    assert (state.kind, state.needs_care, state.can_be_refreshed) == ("same", True, True)


def test_beyond_the_budget_a_file_is_perhaps_changed(origin):
    os.utime(origin.source)
    twin = dataclasses.replace(origin, model="twin")
    found = all_fresh([origin, twin], budget_bytes=origin.file_bytes)
    assert [found[name].kind for name in ("net", "twin")] == ["same", "perhaps changed"]


def test_where_others_reach_the_app_no_file_is_looked_at(origin, monkeypatch):
    monkeypatch.setattr("quantstore.freshness.Path", lambda _: pytest.fail("it was looked at"))
    state = freshness(origin, may_look=False)
    assert (state.kind, state.is_in_order, state.can_be_refreshed) == ("out of reach", True, False)
    assert all_fresh([origin], may_look=False) == {origin.model: state}
