"""Paths, folders and globs in, model files out."""

import glob
from collections.abc import Iterable
from importlib import resources
from pathlib import Path, PurePath

from quantstore.errors import ModelFileError
from quantstore.pipeline.outcome import IngestResult

# What files of the formats that are read are called.
MODEL_SUFFIXES = (".onnx", ".tflite")


def is_model_file(name: str | PurePath) -> bool:
    """Whether a file of this name is a model."""
    return PurePath(name).suffix.lower() in MODEL_SUFFIXES


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
        model_files = sorted(p for p in path.rglob("*") if is_model_file(p))
        return model_files, f"the folder holds no {' or '.join(MODEL_SUFFIXES)} file"
    if path.exists() or not glob.has_magic(pattern):
        return [path], ""
    return [Path(p) for p in sorted(glob.glob(str(path), recursive=True))], "no file matches"


def name_of(path: Path) -> str:
    """A model is named after its file; ``model.onnx`` says nothing, its folder does."""
    if is_model_file(path) and path.stem.lower() == "model":
        return path.resolve().parent.name or path.stem
    return path.stem
