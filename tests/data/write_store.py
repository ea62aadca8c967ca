"""Write tests/data/store-schema-N.duckdb.gz, N being the schema of this release: one example model.

Each release that changes the schema adds such a file, once, right before it is published; the later
ones must open it (tests/store/test_migrations.py). A file of a published release is never written
anew::

    python tests/data/write_store.py
"""

import gzip
import tempfile
from pathlib import Path

from quantstore import store
from quantstore.pipeline.files import demo_paths
from quantstore.pipeline.ingest import ingest_file
from quantstore.pipeline.outcome import IngestChoices


def main() -> None:
    """Ingest an example model with its probe, and pack a copy without unused room."""
    model = next(path for path in demo_paths() if path.stem == "digits-plain")
    target = Path(__file__).with_name(f"store-schema-{store.SCHEMA_VERSION}.duckdb.gz")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store.duckdb"
        # The path is this machine's; the name is the same everywhere.
        ingest_file(model, path, IngestChoices(source=model.name))
        store.compact(path)
        # Without a time and a name in its header, the same store gives the same file.
        target.write_bytes(gzip.compress(path.read_bytes(), mtime=0))
    print(f"{target}: {target.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
