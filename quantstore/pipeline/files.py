"""Paths, folders and globs in, model files out."""

import glob
from collections.abc import Iterable
from importlib import resources
from pathlib import Path, PurePath
from typing import TypeVar

from quantstore.errors import ModelFileError
from quantstore.file_formats import GGUF, INDEX_SUFFIX, SUFFIXES, any_of, has_suffix, part_name
from quantstore.pipeline.outcome import IngestResult

AnyPurePath = TypeVar("AnyPurePath", bound=PurePath)


def is_model_file(name: str | PurePath) -> bool:
    """Whether a file of this name is a model, or a part of one."""
    return has_suffix(name)


def without_parts(paths: Iterable[AnyPurePath]) -> list[AnyPurePath]:
    """The models among files: a part is left out where what stands for all parts is there."""
    listed = list(paths)
    there = {(path.parent, path.name.lower()) for path in listed}

    def is_part(path: AnyPurePath) -> bool:
        part = part_name(path)
        if part is None:
            return False
        is_gguf = has_suffix(path, GGUF.suffixes)
        standing_for_all = part.of(1) if is_gguf else part.stem + INDEX_SUFFIX
        is_itself = standing_for_all == path.name
        return not is_itself and (path.parent, standing_for_all.lower()) in there

    return [path for path in listed if not is_part(path)]


def is_index(name: str | PurePath) -> bool:
    """Whether a file of this name says which tensors lie in which other files."""
    return has_suffix(name, (INDEX_SUFFIX,))


def demo_paths() -> list[Path]:
    """The example models that ship with the package."""
    folder = Path(str(resources.files("quantstore").joinpath("demo_models")))
    return sorted(folder.glob("*.onnx"))


def find_files(patterns: Iterable[str]) -> tuple[list[Path], list[IngestResult]]:
    """The model files that paths, folders (searched recursively) and globs stand for.

    Returns:
        The files, each once, and a failed result for every pattern that stands for none.
    """
    files: dict[Path, None] = {}
    failures: list[IngestResult] = []
    for pattern in patterns:
        try:
            matches, missing = _matches(pattern)
        except (OSError, RuntimeError, ValueError) as error:
            # A name that is too long, an unknown user's home, a character no path may hold.
            matches, missing = [], f"no such path ({getattr(error, 'strerror', None) or error})"
        if not matches:
            sentence = ModelFileError(missing, "check the path").sentence
            failures.append(IngestResult(path=pattern, outcome="failed", error=sentence))
        files |= dict.fromkeys(matches)
    return without_parts(files), failures


def file_of(source: str) -> Path | None:
    """The file a model was read from, where it still is; an upload leaves none.

    Args:
        source: what the store says of the model's origin.
    """
    if source.startswith("example "):
        name = source.removeprefix("example ")
        return next((path for path in demo_paths() if path.name == name), None)
    try:
        path = Path(source)
        return path if path.is_absolute() and path.is_file() else None
    except (OSError, ValueError):
        return None


def _matches(pattern: str) -> tuple[list[Path], str]:
    """The files a pattern stands for, and what is missing where there are none."""
    if "\0" in pattern:
        raise ValueError("it contains a null character")
    path = Path(pattern).expanduser()
    if path.is_dir():
        model_files = sorted(p for p in path.rglob("*") if is_model_file(p))
        return model_files, f"the folder holds no {any_of(SUFFIXES)} file"
    if path.exists() or not glob.has_magic(pattern):
        return [path], ""
    return [Path(p) for p in sorted(glob.glob(str(path), recursive=True))], "no file matches"


def name_of(path: Path) -> str:
    """A model is named after its file; ``model.onnx`` says nothing, its folder does."""
    part = part_name(path)
    stem = path.stem if part is None else part.stem
    stem = path.name[: -len(INDEX_SUFFIX)] if is_index(path) else stem
    if is_model_file(path) and stem.lower() == "model":
        return path.resolve().parent.name or stem
    return stem
