"""Models at URLs: fetched for as long as they are measured, with nothing secret left behind."""

import pickle
import shutil
import socket
import sys
from pathlib import Path

import pytest

import quantstore
from quantstore import cli, store
from quantstore.errors import QuantstoreError
from quantstore.graph.tensors import IS_OUTSIDE
from quantstore.pipeline import fleet, remote, stored_files
from quantstore.pipeline.outcome import IngestChoices
from quantstore.pipeline.remote import RemoteModel, find_models, without_credentials
from tests.support.graphs import conv_model, gaussian, move_outside, point_outside, save
from tests.support.weight_files import save_gguf_parts, save_parts
from tests.support.workers import WatchedExecutor

fsspec = pytest.importorskip("fsspec", reason="needs the extra: quantstore[remote]")

CHOICES = IngestChoices(probe=False)


@pytest.fixture
def path(tmp_path, empty_store):
    return Path(shutil.copy(empty_store, tmp_path / "test.duckdb"))


@pytest.fixture
def memory():
    """Object storage in this process, under memory://zoo."""
    system = fsspec.filesystem("memory")
    yield system
    if system.exists("/zoo"):
        system.rm("/zoo", recursive=True)


def model_file(path, seed=0):
    return save(conv_model(gaussian(4, 3, 3, 3, seed=seed)), path)


def with_data(path, seed=0, location="data/weights.bin"):
    model = conv_model(gaussian(4, 3, 3, 3, seed=seed))
    move_outside(model.graph.initializer[0], path.parent / location, location=location)
    return save(model, path)


def rows(path, sql):
    with store.reading(path) as connection:
        return connection.rows(sql)


def ingest(path, *urls, **more):
    models, failures = find_models(urls)
    return [*failures, *fleet.ingest_many(models, path, CHOICES, jobs=1, **more)]


# --- the same as from the path -----------------------------------------------------------------


@pytest.mark.parametrize("make", [model_file, with_data])
def test_a_model_at_a_url_is_the_one_at_the_path_with_the_url_as_source(
    tmp_path, path, memory, make
):
    file = make(tmp_path / "net" / "net.onnx")
    memory.put(str(file.parent), "/zoo/net", recursive=True)
    (result,) = ingest(path, "memory://zoo/net/net.onnx")
    assert (result.outcome, result.model) == ("stored", "net")
    assert result.path == "memory://zoo/net/net.onnx"
    (again,) = fleet.ingest_many([file], path, CHOICES)
    assert (again.outcome, again.model) == ("already stored", "net")
    assert rows(path, "select path, outcome from ingests order by started_at") == [
        ("memory://zoo/net/net.onnx", "stored"),
        (str(file), "already stored"),
    ]
    assert rows(path, "select source from models") == [("memory://zoo/net/net.onnx",)]


@pytest.mark.parametrize("make", [save_parts, lambda *made: save_gguf_parts(*made)[0]])
def test_a_model_in_parts_is_fetched_with_all_of_them(tmp_path, path, memory, make):
    folder = tmp_path / "net"
    folder.mkdir()
    whole = make(folder, {f"h.{n}.weight": gaussian(4, 5, seed=n) for n in range(5)})
    memory.put(str(folder), "/zoo/net", recursive=True)
    (result,) = ingest(path, "memory://zoo/net/")
    assert (result.outcome, result.path) == ("stored", f"memory://zoo/net/{whole.name}")
    (again,) = fleet.ingest_many([whole], path, CHOICES)
    assert again.outcome == "already stored"


def test_a_file_called_model_is_named_after_its_folder_there(tmp_path, path, memory):
    memory.put(str(model_file(tmp_path / "model.onnx")), "/zoo/mobilenet/model.onnx")
    (result,) = ingest(path, "memory://zoo/mobilenet/model.onnx")
    assert result.model == "mobilenet"


def test_nothing_of_a_copy_stays(tmp_path, path, memory, monkeypatch):
    monkeypatch.setattr(remote.tempfile, "tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    file = with_data(tmp_path / "net" / "net.onnx")
    memory.put(str(file.parent), "/zoo/net", recursive=True)
    ingest(path, "memory://zoo/net/net.onnx", "memory://zoo/none.onnx")
    assert list((tmp_path / "scratch").iterdir()) == []


def test_workers_fetch_for_themselves_and_copies_are_stored_once(tmp_path, path, memory):
    for number, name in enumerate(("a", "b", "copy")):
        file = model_file(tmp_path / f"{name}.onnx", number % 2)
        memory.put(str(file), f"/zoo/{name}.onnx")
    memory.pipe("/zoo/text.onnx", b"This is no model.")
    with WatchedExecutor() as executor:
        results = ingest(path, "memory://zoo", executor=executor)
    assert {type(model) for model in executor.paths} == {RemoteModel}
    outcomes = {result.path: result.outcome for result in results}
    assert sorted(outcomes.values()) == ["already stored", "failed", "stored", "stored"]
    assert outcomes["memory://zoo/text.onnx"] == "failed"
    with WatchedExecutor() as executor:
        again = ingest(path, "memory://zoo", executor=executor)
    assert sorted(result.outcome for result in again) == [*["already stored"] * 3, "failed"]


def test_python_and_the_command_line_take_urls(tmp_path, path, memory, capsys):
    memory.put(str(model_file(tmp_path / "net.onnx")), "/zoo/net.onnx")
    url = "memory://zoo/net.onnx"
    (result,) = quantstore.ingest(url, path, probe=False)
    assert (result.path, result.outcome) == (url, "stored")
    assert cli.main(["--db", str(path), "ingest", url, "--no-probe"]) == 0
    assert f"already stored as net: {url}" in capsys.readouterr().err


def test_what_needs_the_file_says_that_it_is_elsewhere(tmp_path, path, memory):
    memory.put(str(model_file(tmp_path / "net.onnx")), "/zoo/net.onnx")
    ingest(path, "memory://zoo/net.onnx")
    origin = stored_files.origin_of("net", path)
    with pytest.raises(QuantstoreError, match=r"is not on this computer: memory://zoo/net\.onnx"):
        stored_files.file_of(origin, path, if_gone="name it", if_changed="")


# --- which files -------------------------------------------------------------------------------


def urls_of(*patterns):
    models, failures = find_models(patterns)
    return [str(model) for model in models], [(f.path, f.error) for f in failures]


def test_folders_and_patterns_of_urls_stand_for_the_models_there(memory):
    for name in ("b.onnx", "a.onnx", "deep/er/c.ONNX", "deep/notes.txt", "deep/d.onnx.data"):
        memory.pipe(f"/zoo/{name}", b"x")
    a, b, c = (f"memory://zoo/{name}" for name in ("a.onnx", "b.onnx", "deep/er/c.ONNX"))
    assert urls_of("memory://zoo/") == ([a, b, c], [])
    assert urls_of("memory://zoo/*.onnx", "memory://zoo/**/*.ONNX") == ([a, b, c], [])
    assert urls_of(a, a) == ([a], [])


def test_what_stands_for_no_file_is_a_failure_of_its_own(memory):
    memory.pipe("/zoo/notes.txt", b"x")
    files, failures = urls_of("memory://zoo", "memory://zoo/*.onnx")
    assert files == []
    assert [path for path, _ in failures] == ["memory://zoo", "memory://zoo/*.onnx"]
    assert "the folder holds no .onnx" in failures[0][1]
    assert failures[1][1] == "no file matches; check the URL"


def test_a_url_of_a_file_here_is_its_path(tmp_path):
    file = tmp_path / "a net.onnx"
    file.touch()
    assert find_models([file.as_uri()]) == ([file], [])


def test_a_path_is_no_url():
    assert [remote.is_url(text) for text in ("s3://b/a", "C:\\a.onnx", "C://a", "a:b", "/a")] == [
        True,
        *[False] * 4,
    ]


# --- names that lead elsewhere -----------------------------------------------------------------


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/hostname", "a/../../secret.bin"])
def test_external_data_outside_the_folder_is_never_fetched(tmp_path, path, memory, location):
    model = conv_model(gaussian(4, 3, 3, 3))
    point_outside(model.graph.initializer[0], location)
    memory.put(str(save(model, tmp_path / "net.onnx")), "/zoo/net/net.onnx")
    memory.pipe("/zoo/secret.bin", b"\0" * 432)
    fetched = []
    get_file = type(memory).get_file

    class Watched(type(memory)):
        def get_file(self, remote_path, *arguments, **more):
            fetched.append(remote_path)
            return get_file(self, remote_path, *arguments, **more)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(type(memory), "get_file", Watched.get_file)
        (result,) = ingest(path, "memory://zoo/net/net.onnx")
    assert fetched == ["/zoo/net/net.onnx"]
    assert result.outcome == "failed"
    assert IS_OUTSIDE in result.error


def test_external_data_that_is_missing_is_named(tmp_path, path, memory):
    memory.put(str(with_data(tmp_path / "net.onnx")), "/zoo/net.onnx")
    (result,) = ingest(path, "memory://zoo/net.onnx")
    assert result.error == (
        "external data data/weights.bin is missing; add this file together with the model"
    )


@pytest.mark.parametrize(
    ("url", "relative", "expected"),
    [
        ("s3://b/a/net.onnx", "w 1.bin", "b/a/w 1.bin"),
        ("https://h/a/net.onnx?sig=1", "w 1.bin", "https://h/a/w%201.bin?sig=1"),
        # A server would take the first two for a way up.
        ("https://h/a/net.onnx", "%2e%2e/w.bin", "https://h/a/%252e%252e/w.bin"),
        ("https://h/a/net.onnx", "w?x=1#y", "https://h/a/w%3Fx%3D1%23y"),
    ],
)
def test_data_lies_beside_the_model(url, relative, expected):
    remote_path = url.removeprefix("s3://")
    assert remote._beside(remote_path, relative, url) == expected


# --- secrets -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("s3://zoo/a/net.onnx", "s3://zoo/a/net.onnx"),
        ("s3://KEY:SECRET@zoo/net.onnx", "s3://zoo/net.onnx"),
        # Secrets of AWS contain slashes.
        ("s3://KEY:SEC/RET@zoo/net.onnx", "s3://zoo/net.onnx"),
        ("s3://zoo/net@2x.onnx", "s3://zoo/net@2x.onnx"),
        ("s3://zoo/net?.onnx", "s3://zoo/net?.onnx"),
        ("s3://zoo/net.onnx?versionId=SECRET", "s3://zoo/net.onnx"),
        ("https://user:SECRET@host:8443/net.onnx", "https://host:8443/net.onnx"),
        ("https://SECRET@host/net.onnx", "https://host/net.onnx"),
        ("https://host/net.onnx?X-Amz-Signature=SECRET", "https://host/net.onnx"),
        ("https://host/net.onnx?SECRET", "https://host/net.onnx"),
        ("https://host/net.onnx#SECRET", "https://host/net.onnx"),
        ("https://[::1]:8080/net.onnx", "https://[::1]:8080/net.onnx"),
        ("ftp://user:SECRET@host/net.onnx", "ftp://host/net.onnx"),
        ("abfs://zoo@account.dfs.core.windows.net/a", "abfs://zoo@account.dfs.core.windows.net/a"),
        ("abfs://user:SECRET@account/a", "abfs://account/a"),
    ],
)
def test_a_url_is_told_without_its_credentials(url, shown):
    assert without_credentials(url) == shown
    model = RemoteModel(url)
    assert str(model) == shown
    assert repr(model) == f"RemoteModel({shown!r})"
    # A worker needs them.
    assert pickle.loads(pickle.dumps(model)).url == url


@pytest.mark.slow
def test_credentials_are_neither_stored_nor_printed(tmp_path, path, capsys, monkeypatch):
    """Against a server that nobody reaches: what libraries say of it would hold the URL."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    url = f"http://user:SECRET@127.0.0.1:{port}/net.onnx?token=SECRET"
    code = cli.main(["--db", str(path), "ingest", url, f"{url}2", "--jobs", "1", "--verbose"])
    captured = capsys.readouterr()
    assert code == 1
    assert "SECRET" not in captured.out + captured.err
    assert f"error: http://127.0.0.1:{port}/net.onnx: {remote.UNREACHABLE}" in captured.err
    assert b"SECRET" not in path.read_bytes()
    (message, *_), *_ = rows(path, "select message from ingests")
    assert message.startswith(remote.UNREACHABLE)


# --- what goes wrong ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("memory://zoo/none.onnx", f"{remote.NOT_THERE}; check the URL"),
        ("nonsense://a/b.onnx", "fsspec does not know nonsense://; download the file and give"),
        ("gs://a/b.onnx", "what reads gs:// is not installed; Please install gcsfs"),
        ("zip://a.onnx::s3://b/c.zip", "chained URLs (::) are not read; give the URL of the file"),
    ],
)
def test_a_url_that_cannot_be_read_is_one_sentence(path, url, sentence):
    (result,) = ingest(path, url)
    assert result.outcome == "failed"
    assert result.error.startswith(sentence)


def test_without_the_extra_the_sentence_names_it(path, monkeypatch):
    for module in ("fsspec", "fsspec.core", "fsspec.registry"):
        monkeypatch.setitem(sys.modules, module, None)
    (result,) = ingest(path, "s3://zoo/net.onnx")
    assert result.error == f"reading s3:// needs fsspec; {remote.INSTALL}"


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (PermissionError("SECRET"), remote.DENIED),
        (type("NoCredentialsError", (Exception,), {})("SECRET"), remote.NO_CREDENTIALS),
        (OSError(28, "No space left on device"), "there is no room for a copy: No space left"),
        (type("ClientResponseError", (Exception,), {"status": 403})("SECRET"), remote.DENIED),
        (TimeoutError("SECRET"), f"{remote.UNREACHABLE} (TimeoutError)"),
        (ArithmeticError("SECRET"), "cannot be fetched (ArithmeticError)"),
    ],
)
def test_every_failure_is_a_sentence_of_our_own(error, sentence):
    with pytest.raises(QuantstoreError) as caught, remote._explaining("s3://zoo/net.onnx"):
        raise error
    assert caught.value.sentence.startswith(sentence)
    assert "SECRET" not in caught.value.sentence.replace(remote.HOW_TO_LOG_IN, "")


# --- a server ----------------------------------------------------------------------------------


@pytest.fixture
def s3(monkeypatch):
    """A server of S3 on this machine with a bucket zoo, and how workers of today find it."""
    pytest.importorskip("s3fs", reason="needs the extra: quantstore[remote]")
    server = pytest.importorskip("moto.server", reason="needs moto and flask, the server")
    credentials = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "SECRET"}
    for name, setting in {**credentials, "AWS_DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(name, setting)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    running.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*running.get_host_and_port()))
    # Sessions of an earlier test have another server.
    fsspec.filesystem("s3").clear_instance_cache()
    system = fsspec.filesystem("s3")
    # The server keeps its buckets as long as this process lives.
    system.makedirs("zoo", exist_ok=True)
    yield system
    system.clear_instance_cache()
    running.stop()


@pytest.mark.slow
def test_processes_measure_what_lies_in_a_bucket(tmp_path, path, s3, monkeypatch, capsys):
    for number in range(3):
        file = with_data(tmp_path / f"net{number}" / f"net{number}.onnx", seed=number)
        s3.put(str(file.parent), f"zoo/net{number}", recursive=True)
    s3.pipe("zoo/text.onnx", b"This is no model.")
    command = ["--db", str(path), "ingest", "s3://zoo", "--no-probe", "--jobs", "2"]
    assert cli.main(command) == 1
    said = capsys.readouterr().err
    assert "3 stored" in said
    assert "error: s3://zoo/text.onnx: not an ONNX file" in said
    assert rows(path, "select model, source from models order by model") == [
        (f"net{number}", f"s3://zoo/net{number}/net{number}.onnx") for number in range(3)
    ]
    assert cli.main(command) == 1
    assert "3 already stored" in capsys.readouterr().err
    # The same content from the path.
    assert cli.main(["--db", str(path), "ingest", str(tmp_path / "net0"), "--no-probe"]) == 0
    assert "already stored as net0" in capsys.readouterr().err


@pytest.mark.slow
def test_what_a_server_refuses_is_one_sentence(path, s3, monkeypatch):
    def sentence(url):
        s3.clear_instance_cache()
        (result,) = ingest(path, url)
        return result.error

    assert sentence("s3://no-such-bucket/net.onnx") == f"{remote.NOT_THERE}; check the URL"
    assert sentence("s3://no-such-bucket/") == f"{remote.NOT_THERE}; check the URL"
    assert sentence("s3://zoo/none.onnx") == f"{remote.NOT_THERE}; check the URL"
    assert "SEC" not in sentence("s3://KEY:SEC/RET@zoo/net.onnx")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", "/nonexistent")
    no_credentials = f"{remote.NO_CREDENTIALS}; {remote.HOW_TO_LOG_IN}"
    assert sentence("s3://zoo/none.onnx") == no_credentials
    assert sentence("s3://zoo/") == no_credentials
    monkeypatch.setenv("FSSPEC_S3_ANON", "true")
    # What the sentence advises is what helps; a process reads it when it begins.
    settings = {}
    fsspec.config.set_conf_env(settings)
    monkeypatch.setitem(fsspec.config.conf, "s3", settings["s3"])
    assert sentence("s3://zoo/none.onnx") == f"{remote.NOT_THERE}; check the URL"
