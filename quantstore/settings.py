"""Where the store is, for the app and the command line alike."""

import os
from pathlib import Path

ENVIRONMENT_VARIABLE = "QUANTSTORE_DB"
DEFAULT_STORE = "quantstore.duckdb"


def store_path() -> Path:
    """The store that ``QUANTSTORE_DB`` names, else ``quantstore.duckdb`` in the working folder."""
    return Path(os.environ.get(ENVIRONMENT_VARIABLE) or DEFAULT_STORE)
