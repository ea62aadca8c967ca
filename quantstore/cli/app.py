"""The command that starts the web app."""

import os
import sys
from pathlib import Path

import click

from quantstore import settings
from quantstore.cli.ingest import load_demo
from quantstore.cli.output import OK
from quantstore.cli.root import commands, everywhere
from quantstore.errors import MissingStoreError
from quantstore.process import logs


@commands.command(position=200)
@click.option(
    "--port", type=click.IntRange(1, 65535), metavar="PORT", help="[default: 8501, or the next]"
)
@click.option("--no-browser", "--headless", "headless", is_flag=True, help="Open no browser.")
@click.option("--demo", "with_demo", is_flag=True, help="Load the example models if it is empty.")
@everywhere
def app(db: Path, port: int | None, headless: bool, with_demo: bool) -> int:
    """Start the web app, for this computer only. Stop it with Ctrl-C.

    \b
    Examples:
      quantstore app
      quantstore app --demo --port 8600 --no-browser
    """
    if with_demo and _is_empty(db):
        load_demo(db)
    from streamlit.web import cli as streamlit

    os.environ[settings.ENVIRONMENT_VARIABLE] = str(db.absolute())
    os.environ[settings.WAIT_VARIABLE] = str(settings.wait_seconds())
    logs.hand_down()
    script = Path(__file__).parents[1] / "app" / "start" / "streamlit_app.py"
    # Whoever works on the code wants a page that follows it, and starts: streamlit run app.py
    server_options = ("--server.address=127.0.0.1", "--server.fileWatcherType=none")
    sys.argv = ["streamlit", "run", str(script), *server_options]
    if port is not None:
        sys.argv.append(f"--server.port={port}")
    if headless:
        sys.argv.append("--server.headless=true")
    return int(streamlit.main(standalone_mode=False) or OK)


def _is_empty(db: Path) -> bool:
    from quantstore import queries, store

    try:
        with store.reading(db) as connection:
            return queries.store_size(connection).models == 0
    except MissingStoreError:
        return True
