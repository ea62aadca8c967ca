"""Whether the file that a model was read from is still what was measured."""

import dataclasses
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from quantstore.numerics.measure_layer import MEASURES_VERSION
from quantstore.pipeline.freshness import all_fresh, freshness
from quantstore.pipeline.measure_file import content_of
from quantstore.queries import Origin
from quantstore.schemes import SCHEMES
from tests.support.graphs import conv_model, save

AN_HOUR = timedelta(hours=1)


def utc_now():
    return datetime.now(UTC).replace(tzinfo=None)


def measured(path, name="net"):
    """A model whose file nobody has touched since, because it is measured in an hour."""
    return Origin(
        model=name,
        source=str(path),
        file_bytes=path.stat().st_size,
        file_format="ONNX",
        sha256=content_of(path),
        folded=True,
        ingested_at=utc_now() + AN_HOUR,
        measures_version=MEASURES_VERSION,
        schemes=tuple(SCHEMES),
    )


def touched(origin):
    """The same, measured an hour ago: whatever has happened to the file, it was since."""
    return dataclasses.replace(origin, ingested_at=utc_now() - AN_HOUR)


def model_file(path, words=""):
    """A file of other content, and another size, for other words."""
    model = conv_model()
    model.doc_string = words
    return save(model, path)


@pytest.fixture
def origin(tmp_path):
    return measured(model_file(tmp_path / "net.onnx", "middling"))


@pytest.fixture
def reads(monkeypatch):
    """The names of the files that are read, one after the other."""
    found = []

    def content(path):
        found.append(path.name)
        return content_of(path)

    monkeypatch.setattr("quantstore.pipeline.freshness.content_of", content)
    return found


def test_a_file_that_nobody_wrote_is_not_read_again(origin, reads):
    assert freshness(origin).file_state == "same"
    assert freshness(origin).is_in_order
    assert reads == []


def test_the_same_content_written_again_is_the_same_and_read_once(origin, reads):
    os.utime(origin.source)
    assert freshness(touched(origin)).file_state == "same"
    assert all_fresh([touched(origin)], budget_bytes=0)["net"].file_state == "same"
    assert reads == ["net.onnx"]


def test_what_was_read_is_read_again_once_it_is_written_again(origin, reads):
    assert freshness(touched(origin)).file_state == "same"
    model_file(origin.source, "other")
    assert freshness(touched(origin)).file_state == "changed"
    assert reads == ["net.onnx"] * 2


def test_other_content_is_a_change_that_needs_care(origin):
    model_file(origin.source, "another")
    state = freshness(touched(origin))
    assert (state.file_state, state.needs_care, state.can_be_refreshed) == ("changed", True, True)
    assert state.sha256 == content_of(Path(origin.source))


@pytest.mark.parametrize("words", ["", "longer " * 9], ids=["smaller", "larger"])
def test_an_older_file_that_was_moved_to_the_place_is_a_change_too(origin, tmp_path, words):
    other = model_file(tmp_path / "other.onnx", words)
    long_ago = (datetime.now(UTC) - 2 * AN_HOUR).timestamp()
    os.utime(other, (long_ago, long_ago))
    other.replace(origin.source)
    assert freshness(touched(origin)).file_state == "changed"


def test_a_file_that_is_larger_is_a_change_whatever_its_times_say(origin):
    model_file(origin.source, "longer " * 9)
    assert freshness(origin).file_state == "changed"


def test_a_file_is_not_smaller_for_keeping_its_weights_elsewhere(origin, reads):
    whole = dataclasses.replace(origin, file_bytes=10 * origin.file_bytes)
    assert freshness(whole).file_state == "same"
    assert reads == []


def test_what_is_no_model_any_more_says_why_and_cannot_be_measured(origin, tmp_path):
    (tmp_path / "net.onnx").write_text("Dear sir")
    state = freshness(touched(origin))
    assert (state.file_state, state.can_be_refreshed) == ("unreadable", False)
    assert state.message.startswith("not an ONNX file")


@pytest.mark.parametrize(
    ("source", "kind"),
    [("example net.onnx", "no file"), ("/nowhere/net.onnx", "gone"), ("/a\0b", "gone")],
)
def test_without_a_file_there_is_nothing_to_do(origin, source, kind):
    state = freshness(dataclasses.replace(origin, source=source))
    assert (state.file_state, state.needs_care) == (kind, False)


@pytest.mark.parametrize(
    "lack", [{"measures_version": MEASURES_VERSION - 1}, {"schemes": tuple(SCHEMES)[:-1]}]
)
def test_a_measurement_of_an_older_release_needs_care(origin, lack):
    old = dataclasses.replace(origin, **lack)
    state = freshness(old)
    assert (state.file_state, state.needs_care, state.can_be_refreshed) == ("same", True, True)


def test_the_smallest_files_are_read_first_and_those_beyond_the_budget_are_perhaps_changed(
    tmp_path, reads
):
    origins = [
        touched(measured(model_file(tmp_path / f"{name}.onnx", "word " * words), name))
        for name, words in (("large", 900), ("small", 1), ("medium", 30))
    ]
    large = origins[0].file_bytes
    found = all_fresh(origins, budget_bytes=large)
    assert list(found) == ["large", "small", "medium"]
    assert [state.file_state for state in found.values()] == ["perhaps changed", "same", "same"]
    assert [state.is_changed for state in found.values()] == [False] * 3
    assert [state.may_have_changed for state in found.values()] == [True, False, False]
    assert found["large"].needs_care
    assert reads == ["small.onnx", "medium.onnx"]
    # What is known by now takes nothing of the budget.
    assert [state.file_state for state in all_fresh(origins, budget_bytes=large).values()] == [
        "same"
    ] * 3
    assert reads == ["small.onnx", "medium.onnx", "large.onnx"]


def test_external_data_counts_among_what_is_to_be_read(origin, reads):
    whole = touched(dataclasses.replace(origin, file_bytes=10 * origin.file_bytes))
    state = all_fresh([whole], budget_bytes=2 * origin.file_bytes)["net"]
    assert (state.file_state, reads) == ("perhaps changed", [])


def test_where_others_reach_the_app_no_file_is_looked_at(origin, monkeypatch):
    monkeypatch.setattr(
        "quantstore.pipeline.freshness.Path", lambda _: pytest.fail("it was looked at")
    )
    state = freshness(origin, may_look=False)
    assert (state.file_state, state.is_in_order, state.can_be_refreshed) == (
        "out of reach",
        True,
        False,
    )
    assert all_fresh([origin], may_look=False) == {origin.model: state}
