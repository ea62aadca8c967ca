"""A simulation from start to store: run in a child process, written when it is whole.

What the command line and the pages call. The child can be cancelled, and may crash; this side turns
that into a sentence. A model that the store does not hold is ingested, so that what is found about
its activations stands beside its weights.
"""

import contextlib
import contextvars
import json
import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import quantstore
from quantstore import correlation, errors, ingestion, store
from quantstore.errors import (
    CancelledError,
    MissingStoreError,
    OlderStoreError,
    QuantstoreError,
    RunError,
)
from quantstore.run.simulate import Choices, Progress, Simulation
from quantstore.run.simulate_child import out_of_memory, request

__all__ = ["Choices", "Done", "Progress", "Running", "Simulation", "run", "start"]

Report = Callable[[Progress], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What became of a simulation, now in the store.

    ``agreement``: Spearman's correlation between what quantizing each layer alone does to the
    outputs and the layer's own channel SQNR (p10); NaN where it is not known. ``layers``:
    their names by depth.
    """

    model: str
    simulation_id: int
    simulation: Simulation
    was_ingested: bool
    agreement: float
    layers: dict[int, str]
    peak_bytes: int | None
    notes: tuple[str, ...]


def start(path: Path, store_path: Path, inputs: str, choices: Choices | None = None) -> "Running":
    """Begin a simulation and return at once.

    Args:
        inputs: a folder of images, an image, an ``.npz`` or ``.npy`` file, or ``noise``.
    """
    return Running(path, store_path, inputs, choices or Choices())


def run(
    path: Path,
    store_path: Path,
    inputs: str,
    choices: Choices | None = None,
    report: Report | None = None,
) -> Done:
    """Simulate, store, and return when it is over.

    Raises:
        QuantstoreError: it failed, in a sentence; nothing is stored then.
    """
    running = start(path, store_path, inputs, choices)
    try:
        return running.wait(report)
    except BaseException:
        running.cancel()
        raise


class Running:
    """A simulation under way. Its thread reads what the child says and writes the store."""

    def __init__(self, path: Path, store_path: Path, inputs: str, choices: Choices) -> None:
        self.path, self.inputs, self.choices = path, inputs, choices
        self._store_path = store_path
        self._changed = threading.Condition()
        self._progress: Progress | None = None
        self._done: Done | None = None
        self._failure: BaseException | None = None
        self._is_over = self._is_cancelled = False
        self._process = _child()
        # A daemon: it must not hold up the end of a server.
        self._thread = threading.Thread(
            # With what the command line was told: how long to wait, where to log.
            target=contextvars.copy_context().run,
            args=[self._work],
            daemon=True,
        )
        self._thread.start()

    @property
    def progress(self) -> Progress | None:
        """How far it is; None at the very beginning."""
        with self._changed:
            return self._progress

    @property
    def is_over(self) -> bool:
        """Whether :meth:`wait` would return at once."""
        with self._changed:
            return self._is_over

    def cancel(self) -> None:
        """Stop it. Nothing is stored, unless it was being written already."""
        with self._changed:
            if not self._is_over:
                self._is_cancelled = True
        _kill(self._process)

    def wait(self, report: Report | None = None) -> Done:
        """The result, when it is there.

        Raises:
            CancelledError: somebody stopped it.
            QuantstoreError: it failed, in a sentence.
        """
        with self._changed:
            said: Progress | None = None
            while not self._is_over:
                # Woken now and then, so that Ctrl+C gets through.
                self._changed.wait(0.5)
                if report is not None and self._progress is not None and self._progress != said:
                    said = self._progress
                    report(said)
        if self._done is not None:
            return self._done
        raise self._failure or CancelledError("cancelled")

    def _work(self) -> None:
        try:
            result, peak_bytes = self._listen()
            done = self._stored(Simulation.from_json(result), peak_bytes)
        except BaseException as error:
            # Raised again by wait(), in the thread of whoever asked.
            with self._changed:
                self._failure = error
        else:
            with self._changed:
                self._done = done
        with self._changed:
            self._is_over = True
            self._changed.notify_all()

    def _listen(self) -> tuple[str, int | None]:
        """What the child finds."""
        process = self._process
        line = request(self.path.absolute(), self.inputs, self.choices)
        # A child that is dead already is noticed below.
        with contextlib.suppress(OSError):
            stdin = cast("IO[bytes]", process.stdin)
            stdin.write(line.encode())
            stdin.flush()
        answer: dict[str, Any] = {}
        for said in cast("IO[bytes]", process.stdout):
            # What is no JSON was cut off by the end of the process.
            with contextlib.suppress(json.JSONDecodeError):
                answer = json.loads(said)
            if "progress" not in answer:
                break
            with self._changed:
                self._progress = Progress(**answer["progress"])
                self._changed.notify_all()
        for stream in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                cast("IO[bytes]", stream).close()
        code = process.wait()
        with self._changed:
            if self._is_cancelled:
                raise CancelledError("cancelled")
        if "result" in answer:
            return answer["result"], answer["peak_bytes"]
        if "failure" in answer:
            raise _restored(answer["failure"])
        raise _ended(code)

    def _stored(self, simulation: Simulation, peak_bytes: int | None) -> Done:
        model, was_ingested = self._model(simulation)
        with store.writing(self._store_path) as connection:
            model_id = store.find_model(connection, model)
            simulation_id = store.add_simulation(
                connection, model_id, simulation.record, simulation.activation_errors
            )
            store.add_sensitivities(connection, model_id, simulation.sensitivities)
            agreement = _agreement(connection, model_id, simulation)
            layers = dict(
                connection.rows("select depth, layer from layers where model_id = ?", [model_id])
            )
        return Done(
            model=model,
            simulation_id=simulation_id,
            simulation=simulation,
            was_ingested=was_ingested,
            agreement=agreement,
            layers=layers,
            peak_bytes=peak_bytes,
            notes=simulation.notes,
        )

    def _model(self, simulation: Simulation) -> tuple[str, bool]:
        """The name under which the store holds the content, and whether it was new."""
        with (
            contextlib.suppress(MissingStoreError, OlderStoreError),
            store.reading(self._store_path) as connection,
        ):
            found = store.model_with_content(connection, simulation.sha256, simulation.folded)
            if found is not None:
                return found[1], False
        with self._changed:
            self._progress = Progress("measuring the weights", 0, 1)
            self._changed.notify_all()
        choices = ingestion.IngestChoices(fold=self.choices.fold)
        result = ingestion.ingest_file(self.path, self._store_path, choices)
        return str(result.model), result.outcome != "already stored"


def _child() -> "subprocess.Popen[bytes]":
    package_parent = str(Path(quantstore.__file__).resolve().parent.parent)
    search_path = os.pathsep.join(filter(None, (package_parent, os.environ.get("PYTHONPATH"))))
    return subprocess.Popen(
        # -P: a file in the working folder must not shadow a module.
        [sys.executable, "-P", "-m", "quantstore.run.simulate_child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        # What libraries complain of there, they also say in exceptions.
        stderr=subprocess.DEVNULL,
        env={
            **os.environ,
            "PYTHONPATH": search_path,
            # Sums here are short: waking a thread for one takes longer than adding it up.
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        },
        # Ctrl+C is for this process alone.
        start_new_session=True,
    )


def _kill(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.kill()


def _restored(failure: dict[str, str]) -> QuantstoreError:
    kind = getattr(errors, failure["kind"], QuantstoreError)
    error: QuantstoreError = kind(failure["message"], failure["hint"])
    return error


def _ended(code: int) -> QuantstoreError:
    """Why a child ended without an answer."""
    # Windows has no signals to die of.
    if code == -getattr(signal, "SIGKILL", 9):
        return out_of_memory()
    if code < 0:
        return RunError(f"onnxruntime crashed on this model (signal {-code})")
    return RunError("the run ended without saying why")


def _agreement(connection: store.Connection, model_id: int, simulation: Simulation) -> float:
    """Whether the ranking by weights is the ranking at the outputs."""
    alone = {
        row.depth: row.output_sqnr_db for row in simulation.sensitivities if row.kind == "alone"
    }
    rows = connection.rows(
        "select depth, channel_sqnr_p10_db from layers join errors using (layer_id)"
        " where model_id = ? and scheme = ? order by depth",
        [model_id, simulation.record.scheme],
    )
    known = [(alone[d], p10) for d, p10 in rows if d in alone and not math.isnan(alone[d])]
    # NULL: infinite.
    by_output = [one for one, _ in known]
    by_weights = [math.inf if p10 is None else p10 for _, p10 in known]
    found = correlation.spearman(by_output, by_weights).rho
    return math.nan if found is None else found
