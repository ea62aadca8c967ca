"""``quantstore open``: the page of a model, in an app that runs already or in one of its own."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import webbrowser
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

import quantstore
from quantstore import cli
from quantstore.app.page_list import PAGES
from quantstore.cli import app, running_apps
from quantstore.cli.app import NO_BROWSER, page_address, port_is_taken

# Child processes find the package whether it is installed or not.
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(quantstore.__file__).parents[1])}


class Healthy(BaseHTTPRequestHandler):
    """Answers as a server of Streamlit does when it is asked for its health."""

    def do_GET(self):
        self.send_response(200 if self.path == "/_stcore/health" else 404)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture(autouse=True)
def own_state(monkeypatch, tmp_path):
    """The files that tell of apps lie in a folder of the test."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("STREAMLIT_SERVER_PORT", raising=False)


@pytest.fixture
def server():
    """The port of a server that answers."""
    with HTTPServer(("127.0.0.1", 0), Healthy) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield listening.server_port
        listening.shutdown()


@pytest.fixture
def opened(monkeypatch):
    """The addresses that the browser was asked for."""
    addresses = []
    monkeypatch.setattr(webbrowser, "open", lambda address: not addresses.append(address))
    return addresses


@pytest.fixture
def served(monkeypatch):
    """The ports that a server was started on, without one being started."""
    ports = []
    monkeypatch.setattr(app, "_serve", lambda db, port, *, headless: ports.append(port) or 0)
    return ports


def test_the_address_is_that_of_a_page_and_carries_any_name():
    address = urlsplit(page_address(8501, "a&b=c #1/é", "int8_tensor"))
    assert address.path.removeprefix("/") in {page.name for page in PAGES}
    assert parse_qs(address.query) == {"model": ["a&b=c #1/é"], "target": ["int8_tensor"]}


def test_an_app_that_runs_for_the_store_is_used(demo_store, server, opened, served):
    with running_apps.registered(demo_store, server):
        assert cli.main(["--db", str(demo_store), "open", "digits-plain"]) == 0
    assert (opened, served) == ([page_address(server, "digits-plain")], [])


@pytest.mark.slow
def test_no_browser_prints_the_address_alone(demo_store, server, opened, capsys):
    with running_apps.registered(demo_store, server):
        arguments = ["open", "digits-plain", "--target", "int8_tensor", "--no-browser"]
        assert cli.main(["--db", str(demo_store), *arguments]) == 0
    address = page_address(server, "digits-plain", "int8_tensor")
    assert (capsys.readouterr(), opened) == ((f"{address}\n", ""), [])


@pytest.mark.slow
def test_where_no_browser_can_be_started_the_address_is_told(
    demo_store, server, monkeypatch, capsys
):
    monkeypatch.setattr(webbrowser, "open", lambda address: False)
    with running_apps.registered(demo_store, server):
        assert cli.main(["--db", str(demo_store), "open", "digits-plain"]) == 0
    err = capsys.readouterr().err
    assert page_address(server, "digits-plain") in err
    assert NO_BROWSER in err


@pytest.mark.slow
def test_an_app_for_another_store_is_not_used(demo_store, empty_store, server):
    with running_apps.registered(empty_store, server):
        assert running_apps.port_of(empty_store) == server
        assert running_apps.port_of(empty_store, server) == server
        assert running_apps.port_of(empty_store, server + 1) is None
        assert running_apps.port_of(demo_store) is None
    assert running_apps.port_of(empty_store) is None


@pytest.mark.slow
def test_what_a_killed_app_left_behind_does_not_count(demo_store, server, tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    folder = tmp_path / "state" / "quantstore" / "apps"
    folder.mkdir(parents=True)
    record = {"port": server, "store": str(demo_store), "process": ended.pid}
    (folder / f"{server}.json").write_text(json.dumps(record))
    (folder / "1.json").write_text("no record")
    (folder / "2.json").write_text("[]")
    assert running_apps.port_of(demo_store) is None
    # Nobody else would remove it.
    assert sorted(path.name for path in folder.iterdir()) == ["1.json", "2.json"]
    with running_apps.registered(demo_store, server):
        assert running_apps.port_of(demo_store) == server


def test_an_app_runs_where_its_file_cannot_be_written(demo_store, monkeypatch, tmp_path):
    (tmp_path / "state").write_text("a file, not a folder")
    with running_apps.registered(demo_store, 8501):
        assert running_apps.port_of(demo_store) is None


def test_the_app_is_started_where_none_runs_on_a_port_that_is_free(
    demo_store, server, served, monkeypatch
):
    monkeypatch.setattr(app, "FIRST_PORT", server)
    monkeypatch.setattr(app, "LAST_PORT", server + 50)
    assert cli.main(["--db", str(demo_store), "open", "digits-plain"]) == 0
    assert served != [server]
    assert len(served) == 1


@pytest.mark.parametrize("by_variable", [False, True], ids=["option", "variable"])
def test_a_port_that_others_use_is_told(
    demo_store, server, served, capsys, monkeypatch, by_variable
):
    arguments = ["open", "digits-plain"]
    if by_variable:
        monkeypatch.setenv("STREAMLIT_SERVER_PORT", str(server))
    else:
        arguments += ["--port", str(server)]
    assert cli.main(["--db", str(demo_store), *arguments]) == 1
    assert port_is_taken(server) in capsys.readouterr().err
    assert served == []


@pytest.mark.slow
def test_open_starts_the_app_prints_the_address_and_ends_with_ctrl_c(demo_store, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "quantstore", "--db", str(demo_store), "open", "digits-plain"]
    process = subprocess.Popen(
        [*command, "--no-browser", "--port", str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**ENVIRONMENT, "XDG_STATE_HOME": str(tmp_path / "state")},
    )
    with contextlib.closing(process.stdout), contextlib.closing(process.stderr):
        try:
            printed = iter(process.stdout.readline, "")
            address = page_address(port, "digits-plain")
            assert next(line for line in printed if "localhost" in line and "model" in line) == (
                f"{address}\n"
            )
            assert running_apps.port_of(demo_store) == port
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(30)
    assert running_apps.port_of(demo_store) is None
    assert list((tmp_path / "state" / "quantstore" / "apps").iterdir()) == []


@pytest.mark.parametrize(
    ("options", "address"), [([], "127.0.0.1"), (["--address", "0.0.0.0"], "0.0.0.0")]
)
def test_the_app_listens_to_this_computer_only_unless_told_otherwise(
    demo_store, monkeypatch, options, address
):
    started = []

    def main(**_):
        started.append(list(sys.argv))
        # The file that tells of it is there while it runs.
        assert [running.store for _, running in running_apps._apps()] == [demo_store]

    monkeypatch.setattr("streamlit.web.cli.main", main)
    # What the server is told by is put back afterwards.
    monkeypatch.setenv("QUANTSTORE_DB", str(demo_store))
    monkeypatch.setenv("QUANTSTORE_WAIT", "30")
    monkeypatch.setattr(sys, "argv", [])
    assert cli.main(["--db", str(demo_store), "app", "--no-browser", *options]) == 0
    assert f"--server.address={address}" in started[0]
    assert list(running_apps._apps()) == []
