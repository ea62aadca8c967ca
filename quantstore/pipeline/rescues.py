"""A rescue from start to store: searched in a child, its files handed over when all is done.

What the command line and the pages call. The child writes into a folder of its own in or beside the
one that was asked for. Files are handed over while the row is written, so that a rescue that is
cancelled, crashes or cannot be stored leaves no file and no row.
"""

import contextlib
import dataclasses
import functools
import hashlib
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from quantstore import store
from quantstore.errors import RunError
from quantstore.pipeline.results import answer_of, stored_as
from quantstore.process import limits
from quantstore.process.child import SINGLE_THREADED, Child
from quantstore.process.running import Running
from quantstore.records import RescueFileRecord
from quantstore.rescuing import rescue_child
from quantstore.rescuing.choices import Rescue, RescueChoices
from quantstore.rescuing.formats import KINDS
from quantstore.run.choices import Progress, ReportProgress

__all__ = [
    "DoneRescue",
    "Progress",
    "Rescue",
    "RescueChoices",
    "Running",
    "name_in_files",
    "run",
    "start",
    "state_of_file",
    "use_of",
]

# What the folder of a rescue that is under way is called, with letters by chance behind it.
UNFINISHED = ".unfinished-"
OTHER_FOLDER = "choose another folder for the files"


@dataclass(frozen=True, slots=True, kw_only=True)
class DoneRescue:
    """What became of a rescue, now in the store; ``rescue.record.files`` are where they belong."""

    model: str
    rescue_id: int
    rescue: Rescue
    was_ingested: bool
    peak_bytes: int | None


def start(path: Path, store_path: Path, inputs: str, choices: RescueChoices) -> Running[DoneRescue]:
    """Begin a rescue and return at once.

    Args:
        inputs: a folder of images, an image, an ``.npz`` or ``.npy`` file, or ``noise``.

    Returns:
        Its progress is :class:`Progress`. Cancelled, it stores nothing and leaves no file, unless
        it was being written already.
    """
    store.require_writable(store_path)
    child = Child(rescue_child.__name__, has_scratch=True, extra_environment=SINGLE_THREADED)
    output = None if choices.output is None else Path(choices.output).absolute()

    def work(report: Callable[[Any], None]) -> DoneRescue:
        with _unfinished(output) as folder:
            asked = dataclasses.replace(choices, output=None if folder is None else str(folder))
            child.ask(rescue_child.request(path.absolute(), inputs, asked), limits.sharing_memory())
            answer = answer_of(child, report, "the rescue")
            rescue = Rescue.from_json(answer["rescue"])
            stored = stored_as(path, store_path, rescue.sha256, report, fold=choices.fold)
            with contextlib.ExitStack() as undo:
                with store.writing(store_path) as connection:
                    model_id = store.find_model(connection, stored.model)
                    if folder is not None and output is not None:
                        rescue = _handed_over(rescue, folder, output, undo)
                    rescue_id = store.add_rescue(connection, model_id, rescue.record)
                # The row is there: the files stay.
                undo.pop_all()
        return DoneRescue(
            model=stored.model,
            rescue_id=rescue_id,
            rescue=rescue,
            was_ingested=stored.was_ingested,
            peak_bytes=answer["peak_bytes"],
        )

    return Running(child, work)


def run(
    path: Path,
    store_path: Path,
    inputs: str,
    choices: RescueChoices,
    report: ReportProgress | None = None,
) -> DoneRescue:
    """Rescue, store, and return when it is over.

    Raises:
        QuantstoreError: it failed, in a sentence; nothing is stored or written then.
    """
    return start(path, store_path, inputs, choices).wait(report)


def use_of(file_kind: str, name: str) -> str:
    """The line that says what uses a file of this kind.

    Args:
        file_kind: as ``rescue_files`` has it.
        name: of the model, with which names of files begin.
    """
    owner, _, data = file_kind.partition(" ")
    if owner not in KINDS:
        return ""
    if data:
        return f"External data: keep it beside {KINDS[owner].file_name(name)}"
    return KINDS[owner].use.replace("NAME", name)


# By their names the model is called in the lines that use them.
_NAMED_AFTER_MODEL = {
    "rescued": ".rescued.onnx",
    "ongrid": ".ongrid.onnx",
    "encodings": ".encodings",
    "qtable": ".qtable",
}


def name_in_files(files: Sequence[Mapping[Any, Any]], model: str) -> str:
    """What the names of the files begin with.

    Args:
        files: rows of ``queries.rescue_files``.
        model: what it is called where no name tells.
    """
    for file_kind, ending in _NAMED_AFTER_MODEL.items():
        for file in files:
            if file["kind"] == file_kind and str(file["path"]).endswith(ending):
                return Path(str(file["path"])).name.removesuffix(ending)
    return model


WrittenState = Literal["there", "gone", "changed"]


def state_of_file(path: str, sha256: str, file_bytes: int) -> WrittenState:
    """Whether a file that a rescue wrote is still there, and still what it was.

    A path in a store may come from anybody: nothing but this very content counts as there.
    """
    try:
        status = Path(path).stat()
        if not stat.S_ISREG(status.st_mode):
            return "gone"
        if status.st_size != file_bytes:
            return "changed"
        content = _sha256_of(path, status.st_size, status.st_mtime_ns, status.st_ino)
    except (OSError, ValueError):
        return "gone"
    return "there" if content == sha256 else "changed"


@functools.lru_cache(maxsize=256)
def _sha256_of(path: str, _bytes: int, _written_ns: int, _inode: int) -> str:
    """Of a file; read again once its folder says something else of it."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _unfinished(output: Path | None) -> Iterator[Path | None]:
    """A hidden folder on the disk of the output, so that files can be moved there at once.

    Raises:
        RunError: it cannot be made, or the output is no folder.
    """
    if output is None:
        yield None
        return
    try:
        nearest = next(parent for parent in (output, *output.parents) if parent.exists())
        if not nearest.is_dir():
            raise RunError(f"{nearest} is a file", OTHER_FOLDER)
        # Removed when the interpreter ends, too: whoever interrupts does not wait for this thread.
        folder = tempfile.TemporaryDirectory(
            prefix=UNFINISHED, dir=nearest, ignore_cleanup_errors=True
        )
    except OSError as error:
        raise _unwritable(output, error) from error
    with folder as name:
        yield Path(name)


def _handed_over(rescue: Rescue, folder: Path, output: Path, undo: contextlib.ExitStack) -> Rescue:
    """Move the files to where they belong, each whole; their records say so.

    Args:
        undo: is told how to take each of them back, and what it replaces.

    Raises:
        RunError: they cannot be moved.
    """
    replaced = folder / "replaced"
    files: list[RescueFileRecord] = []
    try:
        replaced.mkdir()
        if not output.exists():
            output.mkdir(parents=True)
            undo.callback(_remove_empty, output)
        for file in rescue.record.files:
            name = Path(file.path).relative_to(folder)
            target = output / name
            if target.is_file():
                target.replace(replaced / name)
                undo.callback((replaced / name).replace, target)
            Path(file.path).replace(target)
            undo.callback(target.unlink, missing_ok=True)
            files.append(dataclasses.replace(file, path=str(target)))
    except OSError as error:
        raise _unwritable(output, error) from error
    record = dataclasses.replace(rescue.record, files=tuple(files))
    return dataclasses.replace(rescue, record=record)


def _remove_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()


def _unwritable(output: Path, error: OSError) -> RunError:
    return RunError(f"cannot write to {output}: {error.strerror or error}", OTHER_FOLDER)
