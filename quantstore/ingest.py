"""The pipeline in one sentence: open the graph, measure layer by layer, then write everything.

Numbers are computed with no connection open; the store is locked only while the finished model is
written, in one transaction: a model is wholly there or absent.
"""

import dataclasses
import glob
import os
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib import resources
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

from quantstore import __version__, graph, store
from quantstore.equalization import p10_after_db
from quantstore.errors import MissingStoreError, ModelFileError, NoLayersError, QuantstoreError
from quantstore.layers import Layer
from quantstore.measure import MEASURES_VERSION, measure_layer
from quantstore.records import EqualizationRecord, LayerMeasures, ModelRecord
from quantstore.schemes import DEFAULT_SCHEME

Outcome = Literal["stored", "replaced", "already stored", "failed"]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one file is: layers and bytes of weights, done and in all."""

    layers_done: int
    layers_total: int
    bytes_done: int
    bytes_total: int


Report = Callable[[Progress], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredModel:
    """A model with everything known about it, not yet in the store."""

    path: Path
    sha256: str
    folded: bool
    file_bytes: int
    producer: str | None
    ir_version: int | None
    opset: int | None
    seconds: float
    weight_count: int
    layers: tuple[LayerMeasures, ...]
    equalization: tuple[EqualizationRecord, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestResult:
    """What became of one path. ``error`` is one sentence where the outcome is ``failed``."""

    path: str
    outcome: Outcome
    model: str | None = None
    layers: int | None = None
    seconds: float | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """How to ingest. ``name`` is for a single file; ``source`` is what the store says of it."""

    name: str | None = None
    replace: bool = False
    fold: bool = True
    source: str | None = None


def ingest_file(
    path: Path, store_path: Path, choices: Choices | None = None, report: Report | None = None
) -> IngestResult:
    """Measure one file and store it, unless its content is stored already.

    Raises:
        QuantstoreError: the file cannot be read, or the store cannot be used.
    """
    choices = choices or Choices()
    started = time.perf_counter()
    file = graph.open_model(path)
    if not choices.replace:
        known = _stored_name(store_path, file.sha256, choices.fold)
        if known is not None:
            return IngestResult(path=str(path), outcome="already stored", model=known)
    return _write(_measure(file, choices.fold, started, report), store_path, choices)


def ingest_many(
    paths: Iterable[Path], store_path: Path, choices: Choices | None = None, jobs: int | None = None
) -> Iterator[IngestResult]:
    """Ingest files, several at a time; what fails is reported and the rest goes on.

    Args:
        jobs: processes that measure; by default one per core, and none beside this one for a
            single file.

    Yields:
        One result per file, as they finish.

    Raises:
        StoreError: the store cannot be used, so that no file can succeed.
    """
    choices = choices or Choices()
    waiting = list(dict.fromkeys(paths))
    jobs = min(jobs or os.cpu_count() or 1, len(waiting))
    if jobs <= 1:
        for path in waiting:
            yield _caught(path, partial(ingest_file, path, store_path, choices))
        return
    while waiting:
        waiting = yield from _ingest_in_pool(waiting, store_path, choices, jobs)
        jobs = 1


def demo_paths() -> list[Path]:
    """The example models that ship with the package."""
    folder = Path(str(resources.files("quantstore").joinpath("demo_models")))
    return sorted(folder.glob("*.onnx"))


def find_files(patterns: Iterable[str]) -> tuple[list[Path], list[IngestResult]]:
    """The ONNX files that paths, folders (searched recursively) and globs stand for.

    Returns:
        The files, each once, and a failed result for every pattern that stands for none.
    """
    files: dict[Path, None] = {}
    failures: list[IngestResult] = []
    for pattern in patterns:
        try:
            found, missing = _matches(pattern)
        except (OSError, RuntimeError, ValueError) as error:
            # A name that is too long, an unknown user's home, a character no path may hold.
            found, missing = [], f"no such path ({getattr(error, 'strerror', None) or error})"
        if not found:
            sentence = ModelFileError(missing, "check the path").sentence
            failures.append(IngestResult(path=pattern, outcome="failed", error=sentence))
        files |= dict.fromkeys(found)
    return list(files), failures


def _matches(pattern: str) -> tuple[list[Path], str]:
    """The files a pattern stands for, and what is missing where there are none."""
    if "\0" in pattern:
        raise ValueError("it holds a null character")
    path = Path(pattern).expanduser()
    if path.is_dir():
        found = sorted(p for p in path.rglob("*") if p.suffix.lower() == ".onnx")
        return found, "the folder holds no .onnx file"
    if path.exists() or not glob.has_magic(pattern):
        return [path], ""
    return [Path(p) for p in sorted(glob.glob(str(path), recursive=True))], "no file matches"


def measure_file(path: Path, *, fold: bool = True, report: Report | None = None) -> MeasuredModel:
    """Measure every layer of a file, without any store.

    Raises:
        ModelFileError: the file cannot be read, or holds no layer.
    """
    started = time.perf_counter()
    return _measure(graph.open_model(path), fold, started, report)


def _measure(
    file: graph.ModelFile, fold: bool, started: float, report: Report | None
) -> MeasuredModel:
    sites = graph.find_sites(file)
    bytes_total = sum(site.weight_bytes for site in sites)
    bytes_done = 0
    tensor_uses = Counter(id(site.tensor) for site in sites)
    shared: dict[tuple[object, ...], LayerMeasures] = {}
    counted: set[int] = set()
    weight_count = 0
    measured: list[LayerMeasures] = []
    depth_of: dict[int, int] = {}
    for place, site in enumerate(sites):
        if report is not None:
            report(Progress(len(measured), len(sites), bytes_done, bytes_total))
        bytes_done += site.weight_bytes
        layer = graph.read_layer(file, site, fold=fold)
        if layer is None:
            continue
        if id(site.tensor) not in counted:
            counted.add(id(site.tensor))
            weight_count += layer.weights.size
        depth = depth_of[place] = len(measured)
        twin = shared.get(layer.weight_key)
        if twin is None:
            measures = measure_layer(layer, depth)
            if tensor_uses[id(site.tensor)] > 1:
                shared[layer.weight_key] = measures
        else:
            measures = _seen_from(layer, twin, depth)
        measured.append(measures)
    if not measured:
        raise NoLayersError("every weight of the model is empty")
    if report is not None:
        report(Progress(len(sites), len(sites), bytes_total, bytes_total))
    return MeasuredModel(
        path=file.path,
        sha256=file.sha256,
        folded=fold,
        file_bytes=file.file_bytes,
        producer=file.producer,
        ir_version=file.ir_version,
        opset=file.opset,
        seconds=time.perf_counter() - started,
        weight_count=weight_count,
        layers=tuple(measured),
        equalization=tuple(_equalization(file, sites, depth_of, measured, fold)),
    )


def _equalization(
    file: graph.ModelFile,
    sites: list[graph.Site],
    depth_of: dict[int, int],
    measured: list[LayerMeasures],
    fold: bool,
) -> Iterator[EqualizationRecord]:
    """What equalizing each pair of neighbours could give, both ways; weights are read again."""
    scheme = DEFAULT_SCHEME.name
    for places in graph.find_pairs(file, sites, fold=fold):
        if not all(place in depth_of for place in places):
            continue
        first, second = (graph.read_layer(file, sites[place], fold=fold) for place in places)
        if first is None or second is None:
            continue
        after = p10_after_db(first, second)
        if after is None:
            continue
        depths = [depth_of[place] for place in places]
        for depth, partner_depth, after_db in zip(depths, reversed(depths), after, strict=True):
            before = next(error for error in measured[depth].errors if error.scheme == scheme)
            yield EqualizationRecord(
                depth=depth,
                partner_depth=partner_depth,
                scheme=scheme,
                channel_sqnr_p10_before_db=before.channel_sqnr_p10_db,
                channel_sqnr_p10_after_db=after_db,
            )


def _seen_from(layer: Layer, twin: LayerMeasures, depth: int) -> LayerMeasures:
    """The same figures for another node that reads the same effective weights."""
    record = dataclasses.replace(
        twin.layer,
        depth=depth,
        layer=layer.name,
        operand=layer.operand,
        op_type=layer.op_type,
        group_count=layer.group_count,
        is_depthwise=layer.is_depthwise,
    )
    return dataclasses.replace(twin, layer=record)


def _write(measured: MeasuredModel, store_path: Path, choices: Choices) -> IngestResult:
    with store.writing(store_path) as connection:
        wanted = choices.name or _name_of(measured.path)
        same_content = store.model_with_content(connection, measured.sha256, measured.folded)
        replaced = False
        if same_content is not None:
            model_id, model, measures_version = same_content
            if not choices.replace and measures_version >= MEASURES_VERSION:
                # Another process stored it while we measured.
                return IngestResult(path=str(measured.path), outcome="already stored", model=model)
            store.remove_model(connection, model_id)
            replaced = True
            wanted = choices.name or model
        if choices.replace:
            replaced = store.remove_model_named(connection, wanted) or replaced
        record = ModelRecord(
            model=_free_name(connection, wanted, measured.sha256, is_chosen=bool(choices.name)),
            sha256=measured.sha256,
            folded=measured.folded,
            source=choices.source or str(measured.path.resolve()),
            file_bytes=measured.file_bytes,
            producer=measured.producer,
            ir_version=measured.ir_version,
            opset=measured.opset,
            ingested_at=datetime.now(UTC).replace(tzinfo=None),
            ingest_seconds=measured.seconds,
            layer_count=len(measured.layers),
            weight_count=measured.weight_count,
            quantstore_version=__version__,
            measures_version=MEASURES_VERSION,
        )
        store.add_model(connection, record, measured.layers, measured.equalization)
    return IngestResult(
        path=str(measured.path),
        outcome="replaced" if replaced else "stored",
        model=record.model,
        layers=record.layer_count,
        seconds=measured.seconds,
    )


def _stored_name(store_path: Path, sha256: str, folded: bool) -> str | None:
    """The name under which this content is stored with today's measurements."""
    try:
        with store.reading(store_path) as connection:
            found = store.model_with_content(connection, sha256, folded)
    except MissingStoreError:
        return None
    return found[1] if found is not None and found[2] >= MEASURES_VERSION else None


def _name_of(path: Path) -> str:
    """A model is named after its file; ``model.onnx`` says nothing, its folder does."""
    if path.name.lower() == "model.onnx":
        return path.resolve().parent.name or path.stem
    return path.stem


def _free_name(connection: store.Connection, wanted: str, sha256: str, *, is_chosen: bool) -> str:
    taken = {row[0] for row in connection.rows("select model from models")}
    if wanted not in taken:
        return wanted
    if is_chosen:
        raise QuantstoreError(
            f"another model is named {wanted!r} already", "choose another name or add --replace"
        )
    name = stamped = f"{wanted}-{sha256[:8]}"
    number = 1
    while name in taken:
        # The same content, once folded and once not, under a name that is taken.
        number += 1
        name = f"{stamped}-{number}"
    return name


def _caught(path: Path, work: Callable[[], IngestResult]) -> IngestResult:
    """The result, or the failure of this one file as a result; a useless store stops everything."""
    try:
        return work()
    except QuantstoreError as error:
        if error.exit_code == 3:
            raise
        return IngestResult(path=str(path), outcome="failed", error=error.sentence)


def _measure_unless_stored(
    path: Path, store_path: Path, choices: Choices
) -> MeasuredModel | IngestResult:
    """What a worker process does; small enough to travel back through a pipe."""
    started = time.perf_counter()
    file = graph.open_model(path)
    if not choices.replace:
        known = _stored_name(store_path, file.sha256, choices.fold)
        if known is not None:
            return IngestResult(path=str(path), outcome="already stored", model=known)
    return _measure(file, choices.fold, started, None)


def _ingest_in_pool(
    paths: list[Path], store_path: Path, choices: Choices, jobs: int
) -> Generator[IngestResult, None, list[Path]]:
    """Measure in worker processes, write here. Returns the files that a crash left undone."""
    crashed: list[Path] = []
    # A forked copy of a process with threads (numpy, duckdb) may hang; a fresh one cannot.
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        futures: dict[Future[MeasuredModel | IngestResult], Path] = {
            pool.submit(_measure_unless_stored, path, store_path, choices): path for path in paths
        }
        try:
            for future in as_completed(futures):
                path = futures[future]
                if isinstance(future.exception(), BrokenProcessPool):
                    crashed.append(path)
                    continue
                yield _caught(path, partial(_finish, future, store_path, choices))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    if jobs == 1 and crashed:
        # Alone in its process, so this file is the one that crashed it.
        yield IngestResult(
            path=str(crashed[0]),
            outcome="failed",
            error="the file crashed its reader; check it with onnx.checker",
        )
        return crashed[1:]
    return crashed


def _finish(
    future: "Future[MeasuredModel | IngestResult]", store_path: Path, choices: Choices
) -> IngestResult:
    found = future.result()
    return found if isinstance(found, IngestResult) else _write(found, store_path, choices)
