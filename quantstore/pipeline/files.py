"""Paths, folders and globs in, model files out."""

import glob
from collections.abc import Iterable
from importlib import resources
from pathlib import Path, PurePath
from typing import TypeVar

from quantstore.errors import ModelFileError
from quantstore.file_formats import INDEX_SUFFIX, PART_NAME, SUFFIXES, any_of, has_suffix
from quantstore.pipeline.outcome import IngestResult

AnyPurePath = TypeVar("AnyPurePath", bound=PurePath)


def is_model_file(name: str | PurePath) -> bool:
    """Whether a file of this name is a model, or a part of one."""
    return has_suffix(name)


def without_parts(paths: Iterable[AnyPurePath]) -> list[AnyPurePath]:
    """The models among files: what an index among them stands for is left out."""
    listed = list(paths)
    indexed = {path.with_name(path.name[: -len(INDEX_SUFFIX)]) for path in listed if is_index(path)}

    def is_part(path: AnyPurePath) -> bool:
        part = PART_NAME.fullmatch(path.name)
        return part is not None and path.with_name(part["stem"]) in indexed

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
    return list(files), failures


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
        model_files = without_parts(sorted(p for p in path.rglob("*") if is_model_file(p)))
        return model_files, f"the folder holds no {any_of(SUFFIXES)} file"
    if path.exists() or not glob.has_magic(pattern):
        return [path], ""
    return [Path(p) for p in sorted(glob.glob(str(path), recursive=True))], "no file matches"


def name_of(path: Path) -> str:
    """A model is named after its file; ``model.onnx`` says nothing, its folder does."""
    stem = path.name[: -len(INDEX_SUFFIX)] if is_index(path) else path.stem
    if is_model_file(path) and stem.lower() == "model":
        return path.resolve().parent.name or stem
    return stem
