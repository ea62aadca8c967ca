"""Write tests/data/store-schema-N.duckdb.gz, N being the schema of this release: one example model.

Each release that changes the schema adds such a file, once, right before it is published; the later
ones must open it (tests/store/test_migrations.py). A file of a published release is never written
anew; what it lacks goes into another one, whose name is given::

    python tests/data/write_store.py [store-schema-N-MORE.duckdb.gz]
"""

import dataclasses
import gzip
import sys
import tempfile
from pathlib import Path

from quantstore import store
from quantstore.pipeline import rescues, runs
from quantstore.pipeline.files import demo_paths
from quantstore.pipeline.ingest import ingest_file
from quantstore.pipeline.outcome import IngestChoices
from quantstore.records import SimulationRecord
from quantstore.rescuing.choices import RescueChoices
from quantstore.run.choices import Choices

# Why a probe has no figure: it was cut off, or there was nothing to round.
FAILURES = (
    "stopped after 20 s",
    "the weights lie on this grid already: rounding them changes nothing",
)


def main(name: str = f"store-schema-{store.SCHEMA_VERSION}.duckdb.gz") -> None:
    """Ingest and run an example model, and pack a copy without unused room."""
    model = next(path for path in demo_paths() if path.stem == "digits-plain")
    target = Path(__file__).with_name(name)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store.duckdb"
        # The path is this machine's; the name is the same everywhere.
        ingest_file(model, path, IngestChoices(source=model.name))
        for mode in ("weights", "both"):
            choices = Choices(scheme="int8_channel_symmetric", mode=mode, sensitivity=True)
            done = runs.run(model, path, "noise", choices)
            _add_failures(path, done.model, done.simulation.record)
        # A goal that takes every kind of step, so that no table stays empty.
        rescue_choices = RescueChoices(target="int8_channel", reach_db=60, output=f"{folder}/out")
        rescues.run(model, path, "noise", rescue_choices)
        with store.writing(path) as connection:
            connection.rows("update rescue_files set path = parse_filename(path)")
        store.compact(path)
        # Without a time and a name in its header, the same store gives the same file.
        target.write_bytes(gzip.compress(path.read_bytes(), mtime=0))
    print(f"{target}: {target.stat().st_size:,} bytes")


def _add_failures(path: Path, model: str, run: SimulationRecord) -> None:
    """Probes without a figure, beside those that have one."""
    with store.writing(path) as connection:
        model_id = store.find_model(connection, model)
        for failure in FAILURES:
            record = dataclasses.replace(
                run,
                scheme="int8_tensor_symmetric",
                input_source="noise",
                output_sqnr_db=float("nan"),
                top1_agreement=float("nan"),
                failure=failure,
            )
            store.add_simulation(connection, model_id, record)


if __name__ == "__main__":
    main(*sys.argv[1:])
