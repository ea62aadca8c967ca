"""A rescue from start to store: searched in a child, its files handed over when all is done.

What the command line and the pages call. The child writes into a folder of its own beside the one
that was asked for; a rescue that is cancelled, or crashes, leaves no file and no row.
"""

import contextlib
import dataclasses
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantstore import store
from quantstore.errors import RunError
from quantstore.pipeline.results import explained, stored_as
from quantstore.process import limits
from quantstore.process.child import SINGLE_THREADED, BugInChildError, Child, EndedError
from quantstore.process.running import Running
from quantstore.records import RescueFileRecord
from quantstore.rescuing import rescue_child
from quantstore.rescuing.choices import Rescue, RescueChoices
from quantstore.run.choices import Progress, ReportProgress

__all__ = ["DoneRescue", "Progress", "Rescue", "RescueChoices", "Running", "run", "start"]

_UNFINISHED = ".unfinished-"


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
    child = Child(rescue_child.__name__, extra_environment=SINGLE_THREADED)

    def work(report: Callable[[Any], None]) -> DoneRescue:
        with _folder_beside(choices.output) as folder:
            asked = dataclasses.replace(choices, output=None if folder is None else str(folder))
            child.ask(rescue_child.request(path.absolute(), inputs, asked), limits.sharing_memory())
            try:
                answer = child.answer(lambda progress: report(Progress(**progress)))
            except EndedError as error:
                raise explained(error, "the rescue") from error
            except BugInChildError as error:
                raise RunError(f"the rescue failed: {error.summary}") from error
            child.close()
            rescue = Rescue.from_json(answer["rescue"])
            if folder is not None and choices.output is not None:
                rescue = _handed_over(rescue, folder, Path(choices.output))
        return _stored(path, store_path, choices, rescue, answer["peak_bytes"], report)

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


@contextlib.contextmanager
def _folder_beside(output: str | None) -> Iterator[Path | None]:
    """An empty folder on the disk of the output, so that files can be moved there at once.

    Raises:
        RunError: it cannot be made.
    """
    if output is None:
        yield None
        return
    parent = Path(output).absolute().parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=parent))
    except OSError as error:
        raise RunError(
            f"nothing can be written into {parent}: {error.strerror or error}",
            "choose another folder with -o",
        ) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _handed_over(rescue: Rescue, folder: Path, output: Path) -> Rescue:
    """Move the files to where they belong, each whole; their records say so.

    Raises:
        RunError: they cannot be moved.
    """
    files: list[RescueFileRecord] = []
    try:
        output.mkdir(parents=True, exist_ok=True)
        for file in rescue.record.files:
            target = output / Path(file.path).relative_to(folder)
            Path(file.path).replace(target)
            files.append(dataclasses.replace(file, path=str(target)))
    except OSError as error:
        for file in files:
            Path(file.path).unlink(missing_ok=True)
        raise RunError(
            f"nothing can be written into {output}: {error.strerror or error}",
            "choose another folder with -o",
        ) from error
    record = dataclasses.replace(rescue.record, files=tuple(files))
    return dataclasses.replace(rescue, record=record)


def _stored(
    path: Path,
    store_path: Path,
    choices: RescueChoices,
    rescue: Rescue,
    peak_bytes: int | None,
    report: ReportProgress,
) -> DoneRescue:
    stored = stored_as(path, store_path, rescue.sha256, report, fold=choices.fold)
    with store.writing(store_path) as connection:
        model_id = store.find_model(connection, stored.model)
        rescue_id = store.add_rescue(connection, model_id, rescue.record)
    return DoneRescue(
        model=stored.model,
        rescue_id=rescue_id,
        rescue=rescue,
        was_ingested=stored.was_ingested,
        peak_bytes=peak_bytes,
    )
