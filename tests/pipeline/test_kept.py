"""Copies of uploaded models beside the store: made whole, found by content, gone with the model."""

import shutil
from pathlib import Path

import onnx
import pytest

from quantstore import queries, store
from quantstore.graph import open_model
from quantstore.pipeline import keep_child, kept
from quantstore.pipeline.files import demo_paths
from quantstore.pipeline.ingest import ingest_file
from quantstore.pipeline.measure_file import content_of
from quantstore.pipeline.outcome import IngestChoices
from quantstore.pipeline.probes import probe_model
from tests.support.graphs import gaussian
from tests.support.weight_files import save_gguf_parts, save_parts

PLAIN = next(path for path in demo_paths() if path.stem == "digits-plain")
RESCALED = next(path for path in demo_paths() if path.stem == "digits-rescaled")


@pytest.fixture
def path(tmp_path, empty_store):
    return Path(shutil.copy(empty_store, tmp_path / "s.duckdb"))


def uploaded(path: Path, folder: Path, *, keep: bool, file: Path = PLAIN):
    """Ingest a copy as the app does an upload, and remove it."""
    folder.mkdir(exist_ok=True)
    copy = Path(shutil.copy(file, folder))
    choices = IngestChoices(source=f"upload {copy.name}", probe=False, keep=keep)
    result = ingest_file(copy, path, choices)
    copy.unlink()
    return result


def origin_of(path: Path, model: str):
    with store.reading(path) as con:
        return queries.origins(con, [model])[0]


def at_hand(path: Path, model: str):
    origin = origin_of(path, model)
    return kept.file_at_hand(origin.source, origin.sha256, path)


@pytest.mark.slow
def test_a_kept_upload_can_be_run_later_and_another_cannot(path, tmp_path):
    uploaded(path, tmp_path / "u", keep=True)
    uploaded(path, tmp_path / "u", keep=False, file=RESCALED)
    copy = at_hand(path, "digits-plain")
    assert copy.read_bytes() == PLAIN.read_bytes()
    assert probe_model("digits-plain", path, ["int8_weights"]).is_complete
    assert at_hand(path, "digits-rescaled") is None
    assert kept.sizes(path) == {copy.parent.name: PLAIN.stat().st_size}


def test_what_is_kept_is_nobody_elses_to_read(path, tmp_path):
    uploaded(path, tmp_path / "u", keep=True)
    assert kept.folder_of(path).stat().st_mode & 0o777 == 0o700


def test_external_data_is_kept_with_its_model(path, tmp_path):
    folder = tmp_path / "u" / "net"
    (folder / "w").mkdir(parents=True)
    onnx.save_model(
        onnx.load(PLAIN), folder / "net.onnx", save_as_external_data=True, location="w/net.bin"
    )
    sha256 = content_of(folder / "net.onnx")
    ingest_file(folder / "net.onnx", path, IngestChoices(source="u", probe=False, keep=True))
    shutil.rmtree(folder)
    copy = kept.kept_file(path, sha256)
    assert (copy.parent / "w" / "net.bin").is_file()
    assert content_of(copy) == sha256


def test_a_model_that_is_stored_already_is_kept_all_the_same(path, tmp_path):
    uploaded(path, tmp_path / "u", keep=False)
    assert uploaded(path, tmp_path / "u", keep=True).outcome == "already stored"
    assert at_hand(path, "digits-plain") is not None


@pytest.mark.slow
def test_the_copy_goes_with_its_model_and_no_other(path, tmp_path):
    for file in (PLAIN, RESCALED):
        uploaded(path, tmp_path / "u", keep=True, file=file)
    stranger = kept.folder_of(path) / "notes"
    stranger.mkdir()
    with store.writing(path) as con:
        store.remove_model_named(con, "digits-plain")
    assert kept.sweep(path) == [content_of(PLAIN)]
    assert at_hand(path, "digits-rescaled") is not None
    assert stranger.is_dir()


def test_a_store_that_cannot_be_read_deletes_nothing(path, tmp_path):
    uploaded(path, tmp_path / "u", keep=True)
    content = content_of(PLAIN)
    path.write_bytes(b"no store")
    assert kept.sweep(path) == []
    path.unlink()
    assert kept.sweep(path) == []
    assert kept.kept_file(path, content) is not None


def test_a_copy_that_cannot_be_written_is_said_and_the_model_is_stored(path, tmp_path):
    kept.folder_of(path).write_text("in the way")
    result = uploaded(path, tmp_path / "u", keep=True)
    assert result.outcome == "stored"
    assert result.keep_failure.startswith("digits-plain.onnx could not be kept: ")
    assert origin_of(path, "digits-plain").model == "digits-plain"


def test_what_is_put_aside_comes_back(path, tmp_path):
    uploaded(path, tmp_path / "u", keep=True)
    content = content_of(PLAIN)
    (tmp_path / "aside").mkdir()
    kept.put_aside(path, [content, "0" * 64], tmp_path / "aside")
    assert kept.kept_file(path, content) is None
    kept.put_back(path, tmp_path / "aside")
    assert kept.kept_file(path, content) is not None


@pytest.mark.parametrize("sha256", ["..", "", "../../etc", "0" * 63, "G" * 64])
def test_what_is_no_content_leads_nowhere(path, sha256):
    assert kept.kept_file(path, sha256) is None
    kept.remove(path, sha256)


@pytest.mark.slow
def test_a_path_given_later_becomes_the_file_of_an_upload(path, tmp_path):
    uploaded(path, tmp_path / "u", keep=False)
    result = ingest_file(PLAIN, path, IngestChoices(probe=False))
    assert (result.outcome, result.is_linked) == ("already stored", True)
    assert origin_of(path, "digits-plain").source == str(PLAIN)
    assert at_hand(path, "digits-plain") == PLAIN
    # Of two places where the file is, the first stays.
    other = Path(shutil.copy(PLAIN, tmp_path / "other.onnx"))
    assert not ingest_file(other, path, IngestChoices(probe=False)).is_linked
    assert origin_of(path, "digits-plain").source == str(PLAIN)


@pytest.mark.slow
def test_a_file_that_is_chosen_again_is_known_by_its_content(path, tmp_path):
    uploaded(path, tmp_path / "u", keep=False)
    content = origin_of(path, "digits-plain").sha256
    assert keep_child.content_of(RESCALED, keep_if=content, store_path=path) != content
    assert kept.sizes(path) == {}
    assert keep_child.content_of(PLAIN, keep_if=content, store_path=path) == content
    assert list(kept.sizes(path)) == [content]
    assert kept.keep(open_model(PLAIN), path) == kept.kept_file(path, content)


@pytest.mark.parametrize("make", [save_parts, lambda *made: save_gguf_parts(*made)[0]])
def test_a_model_in_parts_is_kept_with_all_of_them(path, tmp_path, make):
    folder = tmp_path / "upload"
    folder.mkdir()
    whole = make(folder, {f"h.{n}.weight": gaussian(4, 5, seed=n) for n in range(4)})
    choices = IngestChoices(source=f"upload {whole.name}", probe=False, keep=True, name="parts")
    ingest_file(whole, path, choices)
    shutil.rmtree(folder)
    copy = at_hand(path, "parts")
    assert copy is not None
    assert copy.name == whole.name
    assert content_of(copy) == origin_of(path, "parts").sha256
