"""quantstore from Python: the same questions as on the pages and the command line.

Nothing here is heavy or clever: every method opens the store for the milliseconds it needs, calls
the function that the pages call, and returns its frame. So a notebook that sits open for days
keeps nobody else out.

NULL in the store means "not defined", and for an SQNR "exact: no error at all". In frames it is NaN
among floats and texts, ``<NA>`` among integers and NaT among times.
"""

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from quantstore import checks, queries, settings, store
from quantstore.checks import Check, Config, Limits
from quantstore.console.answer import explained, frame_of
from quantstore.errors import (
    LimitsError,
    MissingStoreError,
    RejectedQueryError,
    UnknownSchemeError,
    UnknownTargetError,
    hint_for,
)
from quantstore.schemes import DEFAULT_SCHEME, DEFAULT_TARGET, SCHEMES, TARGETS
from quantstore.wording import frames, verdicts

if TYPE_CHECKING:
    import pyarrow as pa

    from quantstore.pipeline.outcome import IngestResult
    from quantstore.pipeline.rescues import DoneRescue
    from quantstore.pipeline.runs import Done
    from quantstore.run.choices import Choices, Progress

AnyPath = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is known of one model under one target; ``str()`` says it in words.

    ``evidence`` is ``run`` where the model was run on inputs of your own, ``probe`` where it was
    run on noise, else ``weights``: weights can prove that a model is broken, never that it is fine.
    ``mode`` says what was quantized in the evidence, ``is_measured`` whether the target itself has
    a value, ``provisional`` why it is provisional. ``output_sqnr_db`` is None where nothing was run
    or nothing is lost, ``worst_channel_sqnr_p10_db`` where every layer is exact. ``reason`` says
    why the target has no value where the verdict is ``untested``, and is None otherwise.
    """

    model: str
    target: str
    scheme: str
    verdict: str
    evidence: str
    mode: str
    output_sqnr_db: float | None
    worst_output: str | None
    decision_f1: float | None
    sample_count: int | None
    input_source: str | None
    provisional: str | None
    reason: str | None
    is_measured: bool
    layers_broken: int
    layers_at_risk: int
    layers_watch: int
    layers_fine: int
    channels_below_10db: int
    channel_count: int
    worst_layer: str | None
    worst_channel_sqnr_p10_db: float | None
    broken_weight_share: float
    sentence: str

    def __str__(self) -> str:
        return self.sentence


@dataclass(frozen=True, slots=True)
class Store:
    """One DuckDB file. No connection is kept: an object may live as long as it likes.

    Args:
        path: the file; the first model that is ingested creates it.
        wait_seconds: how long a call waits for another process that writes; 30 by default.

    Every method raises a :class:`quantstore.QuantstoreError`, which says in one sentence what is
    wrong and what to do: the store is missing, in use, damaged or too new (``StoreError``), it
    does not hold the model (``UnknownModelError``), or there is no such scheme
    (``UnknownSchemeError``) or target (``UnknownTargetError``).
    """

    path: Path
    wait_seconds: float | None = None

    def models(self) -> pd.DataFrame:
        """One row per model: where it comes from and how its weights spread."""
        with self._reading() as connection:
            return queries.models(connection)

    def layers(self, model: str, scheme: str = DEFAULT_SCHEME.name) -> pd.DataFrame:
        """One row per layer of a model under one scheme, worst first."""
        with self._reading() as connection:
            store.find_model(connection, model)
            return queries.worst_layers(connection, model, _checked_scheme(scheme))

    def channels(
        self,
        model: str,
        layer: str,
        operand: str | None = None,
        *,
        scheme: str = DEFAULT_SCHEME.name,
    ) -> pd.DataFrame:
        """One row per output channel of a layer: its box plot, and its SQNR under one scheme.

        Args:
            operand: where a node has several layers, as the ``W`` and ``R`` of an LSTM.
            scheme: SQNRs are kept per channel for the four int8 schemes; under others
                ``sqnr_db`` is NaN.

        Raises:
            UnknownLayerError: the model has no such layer, or several of this name.
        """
        with self._reading() as connection:
            layer_id = queries.find_layer(connection, model, layer, operand)
            return queries.layer_channel_rows(
                connection, layer_id, _checked_scheme(scheme), order="by index"
            )

    def verdict(self, model: str, target: str = DEFAULT_TARGET.name) -> Verdict:
        """Whether a model survives a target, and what says so."""
        frame = self.compare([model], target)
        (row,) = frame.astype(object).where(frame.notna(), None).to_dict("records")
        figures = {field.name: row[field.name] for field in fields(Verdict) if field.name in row}
        return Verdict(**figures, sentence=verdicts.verdict_sentence(queries.model_facts(row)))

    def verdicts(self) -> pd.DataFrame:
        """One row per model and target: the verdict, what it rests on, layers per band."""
        with self._reading() as connection:
            return queries.verdicts(connection)

    def compare(
        self, models: str | Iterable[str], target: str = DEFAULT_TARGET.name
    ) -> pd.DataFrame:
        """The verdicts of one or some models under one target, in the order given."""
        chosen = _names(models)
        with self._reading() as connection:
            for model in chosen:
                store.find_model(connection, model)
            frame = queries.verdicts(connection, chosen, _checked_target(target))
        return frame.set_index("model").loc[chosen].reset_index()

    def check(
        self, models: str | Iterable[str], limits: Limits | Config | None = None
    ) -> list[Check]:
        """Whether models keep within limits; see :class:`quantstore.Limits`.

        Args:
            limits: the same for all, or what :func:`quantstore.checks.read_config` reads from a
                file; by default a model must not be broken, nor untested.

        Raises:
            LimitsError: the limits are something else, such as a dict.
        """
        names = _names(models)
        if not (limits is None or isinstance(limits, Limits | Config)):
            raise LimitsError(
                f"limits are quantstore.Limits, not {type(limits).__name__}",
                "for example: quantstore.Limits(min_sqnr_db=20)",
            )
        if not isinstance(limits, Config):
            chosen = dict.fromkeys(names, limits or Limits())
        else:
            chosen = {model: limits.limits(model) for model in names}
        with self._reading() as connection:
            return checks.run(connection, chosen)

    def query(self, sql: str, parameters: store.Parameters = ()) -> pd.DataFrame:
        """The answer to one SELECT-like statement, as a frame.

        Args:
            parameters: values for ``?``, or a mapping for ``$name``.

        The store is open for reading. Files of your own are within reach, as in
        ``from 'labels.csv' join models using (model)``: the one who calls is trusted, in contrast
        to the SQL page and ``quantstore sql``.

        Raises:
            RejectedQueryError: it does not only read, or it is wrong.
        """
        return frame_of(self.query_arrow(sql, parameters))

    def query_arrow(self, sql: str, parameters: store.Parameters = ()) -> "pa.Table":
        """The same as :meth:`query`, as an Arrow table: exact types, NULL stays NULL."""
        with self._reading() as connection:
            # For the place of a mistake, which the text lacks.
            connection.rows("set errors_as_json = true")
            try:
                with connection.answering(sql, _plain(parameters)) as reader:
                    return reader.read_all()
            except RejectedQueryError as error:
                raise explained(error, sql) from error

    def schema(self) -> pd.DataFrame:
        """One row per column of every view and table, with its type and what it means."""
        with self._reading() as connection:
            return queries.schema(connection)

    def remove(self, model: str) -> None:
        """Take a model out, with everything known about it, and the copy of an uploaded file."""
        from quantstore.pipeline import kept

        with store.writing(self.path, self.wait_seconds, may_create=False) as connection:
            store.remove_model(connection, store.find_model(connection, model))
        kept.sweep(self.path)

    def simulate(
        self,
        path: AnyPath,
        inputs: AnyPath = "noise",
        choices: "Choices | None" = None,
        *,
        progress: "Callable[[Progress], None] | None" = None,
    ) -> "Done":
        """Run a model in float and int8, and store how far every tensor drifts.

        Args:
            inputs: a folder of images, an image, an ``.npz`` or ``.npy`` file, or ``noise``.
            choices: see :class:`quantstore.pipeline.runs.Choices`.
            progress: is told how far it is.
        """
        from quantstore.pipeline import runs

        return runs.run(Path(path), self.path, os.fspath(inputs), choices, progress)

    def probe(
        self,
        model: AnyPath,
        targets: str | Iterable[str] | None = None,
        *,
        seconds: float | None = None,
        progress: "Callable[[Progress], None] | None" = None,
    ) -> pd.DataFrame:
        """Measure on noise what targets would lose, and store it.

        Args:
            model: the name of a stored model, or a file; one that the store does not hold is
                ingested as well. A ``pathlib.Path`` is always a file.
            targets: names, see the table ``targets``; ``"all"`` for every one, by default those
                that :func:`ingest` measures.
            seconds: of CPU time for all of them, 60 by default.
            progress: is told how far it is.

        Returns:
            One row per target, in the order given. ``failure`` says why a value is missing; an
            earlier one then stays in the store, and is ``kept_sqnr_db``.

        Raises:
            UnknownTargetError: there is no such target.
            UnknownModelError: neither the store nor the disk holds the model.
            ModelFileError: the file is gone, has changed since, or is no model.
        """
        from quantstore.pipeline import probes

        result = probes.probe_model(
            model if isinstance(model, str) else Path(model),
            self.path,
            targets,
            seconds=probes.SECONDS if seconds is None else seconds,
            report=progress,
        )
        return frames.target_figures(result.model, result.records, result.kept_db)

    def rescue(
        self,
        path: AnyPath,
        inputs: AnyPath,
        *,
        target: str = DEFAULT_TARGET.name,
        output: AnyPath | None = None,
        progress: "Callable[[Progress], None] | None" = None,
        **choices: Any,
    ) -> "DoneRescue":
        """Search what keeps a model accurate on a target, write files that do, and store it.

        Args:
            inputs: a folder of images, an image, an ``.npz`` or ``.npy`` file, or ``noise``, on
                which the result is a proposal.
            target: the name of a target that rounds activations with a calibrated scale.
            output: the folder for the files; without one none is kept.
            progress: is told how far it is.
            choices: more fields of :class:`quantstore.pipeline.rescues.RescueChoices`:
                ``reach_db``, ``keep_macs``, ``allow``, ``budget_seconds``, ``samples``,
                ``preprocess``, ``test_inputs``, ``fold``.

        Returns:
            ``rescue.record`` has what was reached, with ``steps``, ``units`` and ``files``.

        Raises:
            UnknownTargetError: there is no such target.
            InputsError: it cannot be rescued, or the inputs do not fit.
            ModelFileError: the file is no model.
            RunError: the model cannot be run, or the files cannot be written.
        """
        from quantstore.pipeline import rescues

        chosen = rescues.RescueChoices(
            target=_checked_target(target),
            output=None if output is None else os.fspath(output),
            **choices,
        )
        return rescues.run(Path(path), self.path, os.fspath(inputs), chosen, progress)

    def rescues(self, model: str | None = None) -> pd.DataFrame:
        """One row per rescue of a model, or of all, the latest first: before, after, the bands."""
        with self._reading() as connection:
            if model is not None:
                store.find_model(connection, model)
            return queries.rescues(connection, model)

    @contextmanager
    def _reading(self) -> Iterator[store.Connection]:
        with store.reading(self.path, self.wait_seconds) as connection:
            yield connection


def open_store(path: AnyPath | None = None, *, wait_seconds: float | None = None) -> Store:
    """The store at a path, by default the one that the command line uses in this folder.

    A file that is there already is looked into, so that a mistake shows here; one that is not is
    created by the first :func:`ingest`.

    Raises:
        StoreError: the file is no store, is damaged, in use, too old or too new.
    """
    opened = Store(settings.store_path() if path is None else Path(path), wait_seconds)
    with suppress(MissingStoreError), opened._reading():
        pass
    return opened


def ingest(
    paths: AnyPath | Iterable[AnyPath],
    store: Store | AnyPath | None = None,
    *,
    name: str | None = None,
    replace: bool = False,
    fold: bool = True,
    probe: bool = True,
    probe_seconds: float | None = None,
    jobs: int | None = None,
    progress: "Callable[[IngestResult], None] | None" = None,
) -> "list[IngestResult]":
    """Measure ONNX files and store what comes out, as ``quantstore ingest`` does.

    Args:
        paths: files, folders (searched for ``*.onnx`` at every depth) or patterns.
        store: by default the one that the command line uses in this folder; created if need be.
        name: what to call the model; for one file only.
        replace: measure anew what is stored already.
        fold: fold BatchNormalization into the weights before it.
        probe: run each model and its int8 version on noise as well.
        probe_seconds: of CPU time for that, each model; 60 by default.
        jobs: files to measure at the same time, by default one per core.
        progress: is called with the result of each file, as soon as it is certain.

    Returns:
        One result per file, in the order of the files; a file that fails stops nothing and says
        why in ``error``.

    Raises:
        StoreError: the store cannot be used.
        ValueError: a name for several files.
    """
    from quantstore.pipeline.files import find_files
    from quantstore.pipeline.ingest import ingest_many
    from quantstore.pipeline.outcome import IngestChoices

    target = store if isinstance(store, Store) else open_store(store)
    path_list = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    files, failures = find_files([os.fspath(path) for path in path_list])
    if name is not None and len(files) + len(failures) != 1:
        raise ValueError(f"a name is for one file, and these are {len(files) + len(failures)}")
    choices = IngestChoices(name=name, replace=replace, fold=fold, probe=probe)
    if probe_seconds is not None:
        choices = dataclasses.replace(choices, probe_seconds=probe_seconds)
    results_by_path = {}
    for result in chain(failures, ingest_many(files, target.path, choices, jobs)):
        results_by_path[result.path] = result
        if progress is not None:
            progress(result)
    return [*failures, *(results_by_path[str(path)] for path in files)]


def probe(
    model: AnyPath,
    targets: str | Iterable[str] | None = None,
    store: Store | AnyPath | None = None,
    *,
    seconds: float | None = None,
    progress: "Callable[[Progress], None] | None" = None,
) -> pd.DataFrame:
    """Measure on noise what targets would lose, as ``quantstore probe`` does.

    Args:
        store: by default the one that the command line uses in this folder; created if need be.

    The other arguments, the frame and what is raised: :meth:`Store.probe`.
    """
    chosen = store if isinstance(store, Store) else open_store(store)
    return chosen.probe(model, targets, seconds=seconds, progress=progress)


def rescue(
    path: AnyPath,
    inputs: AnyPath,
    store: Store | AnyPath | None = None,
    *,
    target: str = DEFAULT_TARGET.name,
    output: AnyPath | None = None,
    progress: "Callable[[Progress], None] | None" = None,
    **choices: Any,
) -> "DoneRescue":
    """Search what keeps a model accurate on a target, as ``quantstore rescue`` does.

    Args:
        store: by default the one that the command line uses in this folder; created if need be.

    The other arguments, the result and what is raised: :meth:`Store.rescue`.
    """
    chosen = store if isinstance(store, Store) else open_store(store)
    return chosen.rescue(path, inputs, target=target, output=output, progress=progress, **choices)


def demo_models() -> list[Path]:
    """The four example models that ship with quantstore, as files to ingest."""
    from quantstore.pipeline.files import demo_paths

    return demo_paths()


def _names(models: str | Iterable[str]) -> list[str]:
    """The models that are meant, each once."""
    return [models] if isinstance(models, str) else list(dict.fromkeys(models))


def _plain(parameters: store.Parameters) -> store.Parameters:
    """Values taken out of a frame are numpy's, which DuckDB does not take."""
    if isinstance(parameters, Mapping):
        return {name: _item(value) for name, value in parameters.items()}
    return [_item(value) for value in parameters]


def _item(value: object) -> object:
    return value.item() if isinstance(value, np.generic) else value


def _checked_target(target: str) -> str:
    if target not in TARGETS:
        hint = hint_for(target, TARGETS, f"there are {', '.join(TARGETS)}")
        raise UnknownTargetError(f"there is no target {target!r}", hint)
    return target


def _checked_scheme(scheme: str) -> str:
    if scheme not in SCHEMES:
        hint = hint_for(scheme, SCHEMES, f"there are {', '.join(SCHEMES)}")
        raise UnknownSchemeError(f"there is no scheme {scheme!r}", hint)
    return scheme
