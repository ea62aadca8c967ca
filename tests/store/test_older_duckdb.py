"""What this release writes can be opened by DuckDB 1.5, which many still have.

The client is the Python that ``QUANTSTORE_DUCKDB_15_PYTHON`` names, or is installed once, one wheel
without dependencies, into a folder that Git ignores; where there is no package index, these tests
are skipped.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from quantstore import store
from quantstore.settings import PUBLISHED_VIEWS

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "duckdb-1.5"
INSTALL_SECONDS = 60

# Reads every table and every view to its last row, and the comments.
CLIENT = """
import json, sys, duckdb
connection = duckdb.connect(sys.argv[1], read_only=True)
names = "select schema_name, table_name from duckdb_tables() where not internal"
names += " union all select schema_name, view_name from duckdb_views() where not internal"
found = {}
for schema, name in connection.execute(names).fetchall():
    try:
        rows = len(connection.execute(f'from "{schema}"."{name}"').fetchall())
    except duckdb.Error as error:
        rows = str(error)
    found[name if schema == "main" else f"{schema}.{name}"] = rows
silent = connection.execute(
    "select count(*) from duckdb_columns()"
    " where comment is null and not internal and schema_name = 'main'"
).fetchall()[0][0]
print(json.dumps({"version": duckdb.__version__, "rows": found, "silent": silent}))
"""


@pytest.fixture(scope="module")
def client():
    """How to start a Python that has DuckDB 1.5: its command and its environment."""
    named = os.environ.get("QUANTSTORE_DUCKDB_15_PYTHON")
    if named:
        return [named], dict(os.environ)
    if not (CACHE / "duckdb").is_dir():
        # Into a folder of this process: another may do the same at the same time.
        target = CACHE.with_name(f"{CACHE.name}-{os.getpid()}")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", target]
        try:
            subprocess.run(
                [*pip, "--only-binary=:all:", "--retries=1", "--timeout=10", "duckdb==1.5.*"],
                timeout=INSTALL_SECONDS,
                capture_output=True,
                check=True,
            )
        except (subprocess.SubprocessError, OSError) as error:
            shutil.rmtree(target, ignore_errors=True)
            pytest.skip(f"DuckDB 1.5 cannot be installed here: {error}")
        if not CACHE.exists():
            target.rename(CACHE)
    return [sys.executable], {**os.environ, "PYTHONPATH": str(CACHE)}


@pytest.mark.slow
@pytest.mark.parametrize("is_published", [False, True], ids=["store", "published folder"])
def test_duckdb_1_5_reads_every_table_and_view(client, demo_store, tmp_path, is_published):
    command, environment = client
    path = demo_store
    if is_published:
        store.publish(demo_store, tmp_path / "published")
        path = tmp_path / "published" / PUBLISHED_VIEWS
    done = subprocess.run(
        [*command, "-c", CLIENT, str(path)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["version"].startswith("1.5.")
    assert {name: rows for name, rows in found["rows"].items() if isinstance(rows, str)} == {}
    assert {"verdicts", "model_summary", "layer_errors", "layers"} <= found["rows"].keys()
    assert found["rows"]["models"] == 4
    assert found["rows"]["verdicts"] > 0
    assert found["silent"] == 0
