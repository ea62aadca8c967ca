"""An assembled plan in, files in a folder out: each written whole, checked and loaded."""

import hashlib
from pathlib import Path

import onnx

from quantstore.errors import RunError
from quantstore.records import RescueFileRecord
from quantstore.rescue.assembly import Assembly
from quantstore.rescue.verification import Verified, check
from quantstore.run import qdq_file
from quantstore.schemes import Target


def write_files(
    folder: Path,
    name: str,
    assembly: Assembly,
    verified: Verified,
    target: Target,
    *,
    is_proposal: bool,
) -> tuple[tuple[RescueFileRecord, ...], tuple[str, ...]]:
    """Write everything that a plan is handed out as.

    Args:
        folder: it is made where it is not there.
        name: of the model, with which names of files begin.
        is_proposal: write no quantized file.

    Returns:
        A record of each file, and what there is to say about them.

    Raises:
        RunError: a file cannot be written, or is no valid model.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(
            f"{folder} cannot be made: {error.strerror or error}", "choose another folder"
        ) from error
    files: list[RescueFileRecord] = []
    if not is_proposal:
        for kind, model in (
            ("rescued", assembly.finished(verified.model)),
            ("ongrid", assembly.finished(assembly.as_float(is_on_grid=True))),
        ):
            files += _model(folder / f"{name}.{kind}.onnx", kind, model)
    return tuple(files), ()


def _model(path: Path, kind: str, model: onnx.ModelProto) -> list[RescueFileRecord]:
    qdq_file.save(model, path)
    check(path)
    data = path.with_name(f"{path.name}.data")
    records = [_record(path, kind)]
    return records + ([_record(data, f"{kind} data")] if data.exists() else [])


def _record(path: Path, kind: str) -> RescueFileRecord:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return RescueFileRecord(path=str(path), kind=kind, sha256=digest, bytes=path.stat().st_size)
