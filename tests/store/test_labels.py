"""Names, tags and notes: what people write on a model, by hand and on the command line."""

import shutil

import onnx
import pytest

from quantstore import cli, store
from quantstore.errors import LabelError, UnknownModelError
from quantstore.pipeline.ingest import ingest_file
from quantstore.pipeline.outcome import IngestChoices
from quantstore.store import labelling
from tests.support.graphs import conv_model

CHOICES = IngestChoices(probe=False)


@pytest.fixture
def own_store(demo_store, tmp_path):
    """A copy of the demo store that a test may change."""
    path = tmp_path / "own.duckdb"
    shutil.copy(demo_store, path)
    return path


@pytest.fixture
def con(own_store):
    with store.writing(own_store) as connection:
        yield connection


@pytest.fixture
def run(own_store, capsys):
    """A command on the copy: exit code, standard output, standard error."""

    def run(*arguments):
        code = cli.main(["--db", str(own_store), *arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_a_name_is_stored_without_the_space_around_it(con):
    assert store.rename_model(con, "digits-plain", "  门 <b>1</b> ") == "门 <b>1</b>"
    assert store.find_model(con, "门 <b>1</b>")
    with pytest.raises(UnknownModelError):
        store.find_model(con, "digits-plain")


def test_a_model_may_be_given_the_name_it_has(con):
    assert store.rename_model(con, "digits-plain", "digits-plain") == "digits-plain"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (" ", labelling.NEEDS_A_NAME),
        ("digits-rescaled", labelling.name_is_taken("digits-rescaled")),
        ("x" * 201, labelling.is_too_long("a name", 200, 201)),
        ("two\nlines", f"a name {labelling.HOLDS_NO_CONTROL_CHARACTERS}"),
        ("\x1b[31m", f"a name {labelling.HOLDS_NO_CONTROL_CHARACTERS}"),
        ("\ud800", f"a name {labelling.HOLDS_NO_CONTROL_CHARACTERS}"),
    ],
)
def test_a_name_that_no_model_can_have_is_refused_in_words(con, name, sentence):
    with pytest.raises(LabelError, match=sentence):
        store.rename_model(con, "digits-plain", name)
    assert store.find_model(con, "digits-plain")


def test_tags_are_sorted_and_each_is_there_once(con):
    assert store.set_tags(con, "digits-plain", ["b", " a ", "", "b"]) == ("a", "b")
    assert store.labels(con, "digits-plain").tags == ("a", "b")
    assert store.set_tags(con, "digits-plain", []) == ()
    assert store.labels(con, "digits-plain").tags == ()


@pytest.mark.parametrize("tags", [["a,b"], ["x" * 51], ["a\tb"], [str(n) for n in range(51)]])
def test_tags_that_a_model_cannot_have_are_refused(con, tags):
    with pytest.raises(LabelError):
        store.set_tags(con, "digits-plain", tags)
    assert store.labels(con, "digits-plain").tags == ()


def test_a_note_keeps_its_lines_and_is_removed_by_an_empty_one(con):
    store.set_note(con, "digits-plain", "  first\r\nsecond \n")
    assert store.labels(con, "digits-plain").note == "first\nsecond"
    store.set_note(con, "digits-plain", " \n ")
    assert store.labels(con, "digits-plain").note == ""


@pytest.mark.parametrize("note", ["x" * 10_001, "a\x00b"])
def test_a_note_that_is_no_text_is_refused(con, note):
    with pytest.raises(LabelError):
        store.set_note(con, "digits-plain", note)


@pytest.fixture
def changed(tmp_path):
    """A file that was stored, labelled, and has other weights since: its path and its store."""
    path, own_store = tmp_path / "net.onnx", tmp_path / "s.duckdb"
    onnx.save(conv_model(), path)
    ingest_file(path, own_store, CHOICES)
    with store.writing(own_store) as connection:
        store.set_tags(connection, "net", ["gate"])
        store.set_note(connection, "net", "mine")
    model = conv_model()
    model.producer_name = "another hand"
    onnx.save(model, path)
    return path, own_store


@pytest.mark.slow
def test_labels_survive_a_new_measurement(changed):
    path, own_store = changed
    again = IngestChoices(probe=False, replace=True, name="net")
    assert ingest_file(path, own_store, again).outcome == "replaced"
    with store.reading(own_store) as connection:
        assert store.labels(connection, "net") == store.Labels(("gate",), "mine")


@pytest.mark.slow
def test_two_models_that_become_one_keep_the_labels_of_both(changed):
    path, own_store = changed
    ingest_file(path, own_store, IngestChoices(probe=False, name="twin"))
    with store.writing(own_store) as connection:
        store.set_tags(connection, "twin", ["door"])
        store.set_note(connection, "twin", "hers")
    again = IngestChoices(probe=False, replace=True, name="net")
    assert ingest_file(path, own_store, again).outcome == "replaced"
    with store.reading(own_store) as connection:
        assert store.labels(connection, "net") == store.Labels(("door", "gate"), "mine\n\nhers")
        assert connection.value("select count(*) from models") == 1


def test_rename_on_the_command_line(run):
    assert run("rename", "digits-plain", "plain") == (0, "", "renamed digits-plain to plain\n")
    code, _, err = run("rename", "digits-plain", "other")
    assert (code, err[:6]) == (2, "error:")
    assert run("rename", "plain", "digits-rescaled")[0] == 2


@pytest.mark.slow
def test_tag_adds_removes_and_tells(run):
    assert run("tag", "digits-plain", "b", "a") == (0, "", "digits-plain: a, b\n")
    assert run("tag", "digits-plain", "c") == (0, "", "digits-plain: a, b, c\n")
    assert run("tag", "digits-plain", "a", "b", "--remove") == (0, "", "digits-plain: c\n")
    assert run("tag", "digits-plain") == (0, "c\n", "")
    assert run("tag", "digits-plain", "c", "--remove") == (0, "", "digits-plain: no tags\n")
    assert run("tag", "digits-plain", "--remove")[0] == 2
    assert run("tag", "nobody", "x")[0] == 2


def test_note_writes_tells_and_removes(run):
    assert run("note", "digits-plain", "two\nlines")[0] == 0
    assert run("note", "digits-plain") == (0, "two\nlines\n", "")
    assert run("note", "digits-plain", "") == (0, "", "digits-plain: note removed\n")
    assert run("note", "digits-plain") == (0, "", "")
