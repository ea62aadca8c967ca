"""quantstore from Python: the same questions as on the pages and the command line.

Nothing here is heavy or clever: every method opens the store for the milliseconds it needs, calls
the function that the pages call, and returns its frame. So a notebook that sits open for days
keeps nobody else out.

NULL in the store means "not defined", and for an SQNR "exact: no error at all". In frames it is NaN
among floats and texts, ``<NA>`` among integers and NaT among times.
"""

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
    QuantstoreError,
    RejectedQueryError,
    UnknownSchemeError,
    UnknownTargetError,
    hint_for,
    unwritable,
)
from quantstore.notebook import markup
from quantstore.queries import matching
from quantstore.schemes import DEFAULT_SCHEME, DEFAULT_TARGET, SCHEMES, TARGETS
from quantstore.wording import frames, verdicts
from quantstore.wording.units import counted

if TYPE_CHECKING:
    from concurrent.futures import Executor

    import pyarrow as pa

    from quantstore.charts.common import AnyChart
    from quantstore.charts.layer import ChannelOrder
    from quantstore.charts.palette import ThemeName
    from quantstore.charts.revisions import PairOrder
    from quantstore.pipeline.audits import DoneAudit
    from quantstore.pipeline.outcome import IngestResult
    from quantstore.pipeline.rescues import DoneRescue
    from quantstore.pipeline.runs import Done
    from quantstore.run.choices import Choices, Progress

AnyPath = str | os.PathLike[str]

# Rows of a table that stands in the middle of a notebook.
MOST_SHOWN = 20


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

    def _repr_html_(self) -> str:
        """The word in its colours, what it rests on, and how many layers are in which band."""
        basis = self.sentence.removeprefix(f"{self.verdict}: ")
        layers_by_band = {
            "broken": self.layers_broken,
            "at risk": self.layers_at_risk,
            "watch": self.layers_watch,
            "fine": self.layers_fine,
        }
        about = f"{self.model}, {self.target}"
        if any(layers_by_band.values()):
            counts = markup.layers_by_band(layers_by_band)
            about += f"; layers under {self.scheme}: {counts}"
        return markup.framed(
            markup.paragraph(f"{markup.verdict_chip(self.verdict)} {markup.text(basis)}"),
            markup.paragraph(markup.text(about), "more"),
        )


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

    def _repr_html_(self) -> str:
        """What the store holds: its first models with their verdicts, or why it cannot be read."""
        path = markup.paragraph(markup.text(self.path))
        try:
            # Whoever shows an object does not expect to wait.
            with store.reading(self.path, wait_seconds=1) as connection:
                size = queries.store_size(connection)
                names = queries.model_names(connection)[:MOST_SHOWN]
                verdict_rows = queries.verdicts(connection, names)
        except QuantstoreError as error:
            return markup.framed(path, markup.paragraph(markup.text(error.sentence)))
        content = f"{counted(size.models, 'model')}, {counted(size.layers, 'layer')}"
        if size.models > len(names):
            content += f"; the first {len(names)} are shown"
        table = _verdict_table(verdict_rows, names) if names else ""
        return markup.framed(path, markup.paragraph(markup.text(content), "more"), table)

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

    def diff(self, before: str, after: str, scheme: str = DEFAULT_SCHEME.name) -> pd.DataFrame:
        """What changed between two revisions of a network: one row per layer, worst change first.

        ``rule`` says how a layer was matched, ``outcome`` what became of it: ``better``,
        ``worse``, ``unchanged`` (by less than 1 dB), or that only one of the two has it.
        """
        with self._reading() as connection:
            changed = queries.revision_changes(connection, before, after, _checked_scheme(scheme))
        return matching.worst_first(changed)

    def report(
        self,
        models: str | Iterable[str],
        path: AnyPath = "report.html",
        *,
        target: str = DEFAULT_TARGET.name,
        note: str = "",
    ) -> Path:
        """Write one HTML file about models, to send to a colleague; it asks for nothing outside.

        Args:
            path: one that is there already is replaced.
            note: your words to the reader, plain text; they stand at the top, with the date.

        Returns:
            The path.

        Raises:
            QuantstoreError: the file cannot be written, or the note is no text or too long.
        """
        from quantstore import report

        chosen = _names(models)
        with self._reading() as connection:
            for model in chosen:
                store.find_model(connection, model)
            page = report.html(connection, chosen, TARGETS[_checked_target(target)], note=note)
        file = Path(path)
        try:
            file.write_text(page, encoding="utf-8", newline="\n")
        except OSError as error:
            raise unwritable(file, error) from error
        return file

    def plot_compare(
        self,
        models: str | Iterable[str] | None = None,
        measure: str = "Weight range",
        scheme: str = DEFAULT_SCHEME.name,
        *,
        only_convolutions: bool = True,
        theme: "ThemeName" = "light",
        width: int = 760,
    ) -> "AnyChart":
        """How the layers of models differ: one brick per layer, stacked along a measure.

        Args:
            models: all by default.
            measure: as the Compare page calls it: ``Weight range``, ``Channel spread``, ``SQNR``.
            only_convolutions: leave out other layers, of models that have convolutions.
        """
        from quantstore.notebook import plots

        with self._reading() as connection:
            return plots.bricks(
                connection,
                queries.model_names(connection) if models is None else _names(models),
                SCHEMES[_checked_scheme(scheme)],
                measure,
                only_convolutions=only_convolutions,
                look=plots.Look(theme, width),
            )

    def plot_layers(
        self,
        model: str,
        scheme: str = DEFAULT_SCHEME.name,
        *,
        theme: "ThemeName" = "light",
        width: int = 760,
    ) -> "AnyChart":
        """Where a network breaks: a bar per layer that hangs from 40 dB, longer is worse."""
        from quantstore.notebook import plots

        with self._reading() as connection:
            return plots.layers(
                connection, model, SCHEMES[_checked_scheme(scheme)], plots.Look(theme, width)
            )

    def plot_channels(
        self,
        model: str,
        layer: str,
        operand: str | None = None,
        scheme: str = DEFAULT_SCHEME.name,
        *,
        order: "ChannelOrder" = "by index",
        theme: "ThemeName" = "light",
        width: int = 760,
    ) -> "AnyChart":
        """The output channels of a layer: a box of the weights of each, its SQNR below.

        Args:
            operand: where a node has several layers, as the ``W`` and ``R`` of an LSTM.
            order: ``by index`` or ``widest first``.

        Raises:
            UnknownLayerError: the model has no such layer, or several of this name.
        """
        from quantstore.notebook import plots

        with self._reading() as connection:
            return plots.channels(
                connection,
                model,
                layer,
                operand,
                SCHEMES[_checked_scheme(scheme)],
                order,
                plots.Look(theme, width),
            )

    def plot_drift(
        self,
        model: str,
        runs: int | Iterable[int] | None = None,
        *,
        with_local: bool = True,
        theme: "ThemeName" = "light",
        width: int = 760,
    ) -> "AnyChart":
        """Where along the network the quantized model leaves the float one.

        Args:
            runs: keys of runs that keep their tensors (``simulation_id``), four at most; by
                default the latest.
            with_local: draw the error that each node makes by itself as well, dotted.

        Raises:
            QuantstoreError: no such run keeps its tensors.
        """
        from quantstore.notebook import plots

        chosen = None if runs is None else [runs] if isinstance(runs, int) else list(runs)
        with self._reading() as connection:
            return plots.error_along_depth(
                connection, model, chosen, with_local=with_local, look=plots.Look(theme, width)
            )

    def plot_rescue(
        self,
        model: str,
        rescue_id: int | None = None,
        *,
        theme: "ThemeName" = "light",
        width: int = 760,
    ) -> "AnyChart":
        """What each step of a rescue gave on unseen inputs, by default of the latest rescue.

        Raises:
            QuantstoreError: there is no such rescue, or it tried nothing.
        """
        from quantstore.notebook import plots

        with self._reading() as connection:
            return plots.rescue_steps(connection, model, rescue_id, plots.Look(theme, width))

    def plot_diff(
        self,
        before: str,
        after: str,
        scheme: str = DEFAULT_SCHEME.name,
        *,
        order: "PairOrder" = "change",
        theme: "ThemeName" = "light",
        width: int = 760,
    ) -> "AnyChart":
        """Every layer of two revisions: a ring where its SQNR was, a dot where it is now.

        Args:
            order: ``change``, the layers that changed, the largest loss first; or ``depth``, all.

        Raises:
            QuantstoreError: no layer changed, and only those were asked for.
        """
        from quantstore.notebook import plots

        with self._reading() as connection:
            return plots.diff(
                connection,
                before,
                after,
                SCHEMES[_checked_scheme(scheme)],
                order,
                plots.Look(theme, width),
            )

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

    def remove_run(self, simulation_id: int) -> None:
        """Take a run out: its values of every tensor, its outputs, its sensitivities.

        Args:
            simulation_id: its key in the table ``simulations``.

        Raises:
            UnknownRunError: the store holds no such run.
        """
        with store.writing(self.path, self.wait_seconds, may_create=False) as connection:
            store.remove_run(connection, simulation_id)

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

    def audit(
        self,
        float_model: AnyPath,
        int8_model: AnyPath,
        inputs: AnyPath = "noise",
        *,
        progress: "Callable[[Progress], None] | None" = None,
        **choices: Any,
    ) -> "DoneAudit":
        """Explain why an int8 file differs from the float file it was made from, and store it.

        Args:
            float_model: a file, or the name of a stored model.
            int8_model: the same.
            inputs: a folder of images, an image, an ``.npz`` or ``.npy`` file, or ``noise``.
            progress: is told how far it is.
            choices: fields of :class:`quantstore.pipeline.audits.AuditChoices`: ``samples``,
                ``preprocess``, ``release``.

        Returns:
            ``audit.record`` has the six values in dB, with ``layers``, ``tensors`` and ``outputs``.

        Raises:
            UnknownModelError: there is neither such a file nor such a model.
            InputsError: the inputs do not fit.
            ModelFileError: a file is no model, or not what was measured.
            RunError: the files are no float file and its int8 version, or cannot be run.
        """
        from quantstore.pipeline import audits

        return audits.run(
            audits.file_of(os.fspath(float_model), self.path),
            audits.file_of(os.fspath(int8_model), self.path),
            self.path,
            os.fspath(inputs),
            audits.AuditChoices(**choices),
            progress,
        )

    def audits(self, model: str | None = None) -> pd.DataFrame:
        """One row per audit of a model, int8 or float, or of all, the latest first."""
        with self._reading() as connection:
            if model is not None:
                store.find_model(connection, model)
            return queries.audits(connection, model)

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
    executor: "Executor | None" = None,
    progress: "Callable[[IngestResult], None] | None" = None,
) -> "list[IngestResult]":
    """Measure model files and store what comes out, as ``quantstore ingest`` does.

    Args:
        paths: files, folders (searched for files of every format that is read), patterns, or URLs
            of any of these, such as ``s3://bucket/folder``.
        store: by default the one that the command line uses in this folder; created if need be.
        name: what to call the model; for one file only.
        replace: measure anew what is stored already.
        fold: fold BatchNormalization into the weights before it.
        probe: run each model and its int8 version on noise as well.
        probe_seconds: of CPU time for that, each model; 60 by default.
        jobs: files to measure at the same time, by default one per core.
        executor: measures instead of this machine: any :class:`concurrent.futures.Executor`, such
            as that of a Dask client. This process alone writes to the store.
        progress: is called with the result of each file, as soon as it is certain.

    Returns:
        One result per file, in the order of the files; a file that fails stops nothing and says
        why in ``error``.

    Raises:
        StoreError: the store cannot be used.
        QuantstoreError: the executor takes no more files; what was finished is stored.
        ValueError: a name for several files.
    """
    from quantstore.pipeline.fleet import compact_after, ingest_many
    from quantstore.pipeline.outcome import IngestChoices
    from quantstore.pipeline.remote import find_models

    target = store if isinstance(store, Store) else open_store(store)
    path_list = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    files, failures = find_models([os.fspath(path) for path in path_list])
    if name is not None and len(files) + len(failures) != 1:
        raise ValueError(f"a name is for one file, and these are {len(files) + len(failures)}")
    choices = IngestChoices(name=name, replace=replace, fold=fold, probe=probe)
    if probe_seconds is not None:
        choices = dataclasses.replace(choices, probe_seconds=probe_seconds)
    # URLs that differ in their tokens alone are told by the same text.
    results_by_path: dict[str, list[IngestResult]] = {}
    for result in chain(failures, ingest_many(files, target.path, choices, jobs, executor)):
        results_by_path.setdefault(result.path, []).append(result)
        if progress is not None:
            progress(result)
    compact_after(chain.from_iterable(results_by_path.values()), target.path)
    return [*failures, *(results_by_path[str(path)].pop(0) for path in files)]


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


def audit(
    float_model: AnyPath,
    int8_model: AnyPath,
    inputs: AnyPath = "noise",
    store: Store | AnyPath | None = None,
    *,
    progress: "Callable[[Progress], None] | None" = None,
    **choices: Any,
) -> "DoneAudit":
    """Explain why an int8 file differs from its float file, as ``quantstore audit`` does.

    Args:
        store: by default the one that the command line uses in this folder; created if need be.

    The other arguments, the result and what is raised: :meth:`Store.audit`.
    """
    chosen = store if isinstance(store, Store) else open_store(store)
    return chosen.audit(float_model, int8_model, inputs, progress=progress, **choices)


def demo_models() -> list[Path]:
    """The four example models that ship with quantstore, as files to ingest."""
    from quantstore.pipeline.files import demo_paths

    return demo_paths()


def _verdict_table(verdict_rows: pd.DataFrame, names: Sequence[str]) -> str:
    """One row per model: its size, and its verdict under each target that every ingest measures."""
    by_cell = verdict_rows.set_index(["model", "target"])["verdict"]
    layer_counts = verdict_rows.drop_duplicates("model").set_index("model")["layer_count"]
    columns = {
        "model": [markup.text(name) for name in names],
        "layers": [f"{layer_counts[name]:,}" for name in names],
    }
    for target in (target.name for target in TARGETS.values() if target.is_default):
        columns[target] = [markup.verdict_chip(by_cell[name, target]) for name in names]
    return markup.table(columns, numbers=frozenset({"layers"}))


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
