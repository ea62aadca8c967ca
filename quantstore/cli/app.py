"""The commands that start the web app: app, open."""

import os
import socket
import sys
import threading
import time
import webbrowser
from pathlib import Path
from urllib.parse import urlencode

import click

from quantstore import settings
from quantstore.cli import running_apps
from quantstore.cli.ingest import load_demo
from quantstore.cli.names import ModelName, NameChoice
from quantstore.cli.output import OK, emit, say
from quantstore.cli.root import commands, everywhere
from quantstore.errors import MissingStoreError, QuantstoreError
from quantstore.process import logs
from quantstore.schemes import TARGETS

LOOPBACK = "127.0.0.1"
FIRST_PORT, LAST_PORT = 8501, 8600
# How long a browser waits for a server that starts; loading takes seconds on a slow disk.
START_SECONDS = 120.0

port_option = click.option(
    "--port",
    type=click.IntRange(1, 65535),
    # A variable of Streamlit, which it would read itself if no port were chosen for it.
    envvar="STREAMLIT_SERVER_PORT",
    metavar="PORT",
    help=f"Listen on this port. [default: {FIRST_PORT}, or the next free one]",
)


@commands.command(position=200)
@port_option
@click.option("--no-browser", "--headless", "headless", is_flag=True, help="Do not open a browser.")
@click.option(
    "--address",
    default=LOOPBACK,
    show_default=True,
    metavar="IP",
    help="Listen on this address; 0.0.0.0 means all. Anyone who can reach it can use the app. It"
    " then accepts no paths on this computer.",
)
@click.option(
    "--demo", "with_demo", is_flag=True, help="Load the example models if the store is empty."
)
@everywhere
def app(db: Path, port: int | None, headless: bool, address: str, with_demo: bool) -> int:
    """Start the web app, for this computer only. Stop it with Ctrl-C.

    In a container, --address 0.0.0.0 makes it reachable through published ports. Read SECURITY.md
    before you use it elsewhere.

    \b
    Examples:
      quantstore app
      quantstore app --demo --port 8600 --no-browser
    """
    if with_demo and _is_empty(db):
        load_demo(db)
    return _serve(db, port or _free_port(address), headless=headless, address=address)


@commands.command(name="open", position=195)
@click.argument("model", type=ModelName())
@click.option(
    "--target",
    type=NameChoice(list(TARGETS)),
    metavar="TARGET",
    help=f"Judge for this target. One of: {', '.join(TARGETS)}."
    " [default: the target that the app shows]",
)
@port_option
@click.option("--no-browser", is_flag=True, help="Print the address instead of opening a browser.")
@everywhere
def open_(db: Path, model: str, target: str | None, port: int | None, no_browser: bool) -> int:
    """Open the page of MODEL in the browser.

    If no app is running for this store, one is started and runs until you press Ctrl-C.

    \b
    Examples:
      quantstore open digits-rescaled
      quantstore open digits-rescaled --target int8_tensor --no-browser
    """
    from quantstore import store

    with store.reading(db) as connection:
        store.find_model(connection, model)
    running_port = running_apps.port_of(db, port)
    if running_port is not None:
        _show(page_address(running_port, model, target), in_browser=not no_browser)
        return OK
    chosen_port = port or _free_port()
    if not _is_free(chosen_port):
        raise QuantstoreError(port_is_taken(chosen_port), "name another one with --port")
    address = page_address(chosen_port, model, target)
    threading.Thread(
        target=_show_when_up, args=(chosen_port, address, not no_browser), daemon=True
    ).start()
    return _serve(db, chosen_port, headless=True)


def page_address(port: int, model: str, target: str | None = None) -> str:
    """Where the app shows a model."""
    chosen = {"model": model} | ({} if target is None else {"target": target})
    return f"http://localhost:{port}/model?{urlencode(chosen)}"


def port_is_taken(port: int) -> str:
    """What to say where another program listens, or an app for another store."""
    return f"port {port} is in use, and not by an app for this store"


def _serve(db: Path, port: int, *, headless: bool, address: str = LOOPBACK) -> int:
    """Run the server in this process until it is stopped."""
    from streamlit.web import cli as streamlit

    os.environ[settings.ENVIRONMENT_VARIABLE] = str(db.absolute())
    os.environ[settings.WAIT_VARIABLE] = str(settings.wait_seconds())
    logs.hand_down()
    script = Path(__file__).parents[1] / "app" / "start" / "streamlit_app.py"
    # Whoever works on the code wants a page that follows it, and starts: streamlit run app.py
    server_options = (f"--server.address={address}", "--server.fileWatcherType=none")
    sys.argv = ["streamlit", "run", str(script), *server_options, f"--server.port={port}"]
    if headless:
        sys.argv.append("--server.headless=true")
    with running_apps.registered(db, port):
        return int(streamlit.main(standalone_mode=False) or OK)


def _show_when_up(port: int, address: str, in_browser: bool) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not running_apps.is_healthy(port):
        if time.monotonic() > deadline:
            return
        time.sleep(0.1)
    _show(address, in_browser=in_browser)


def _show(address: str, *, in_browser: bool) -> None:
    if not in_browser:
        emit(f"{address}\n")
        return
    say(f"opening {address}")
    if not webbrowser.open(address):
        say(NO_BROWSER)


NO_BROWSER = "no browser could be started; open the address yourself"


def _free_port(address: str = LOOPBACK) -> int:
    """The first port that nobody listens on."""
    for port in range(FIRST_PORT, LAST_PORT + 1):
        if _is_free(port, address):
            return port
    raise QuantstoreError(
        f"all ports from {FIRST_PORT} to {LAST_PORT} are in use", "name another one with --port"
    )


def _is_free(port: int, address: str = LOOPBACK) -> bool:
    with socket.socket() as listener:
        if sys.platform != "win32":
            # As the server does: connections that just ended are not in its way. On Windows the
            # option would take a port away from who has it.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((address, port))
        except OSError:
            return False
    return True


def _is_empty(db: Path) -> bool:
    from quantstore import queries, store

    try:
        with store.reading(db) as connection:
            return queries.store_size(connection).models == 0
    except MissingStoreError:
        return True
