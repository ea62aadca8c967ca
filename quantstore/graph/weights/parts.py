"""A file that stands for a model in several files in, its parts out: they lie beside it."""

from pathlib import Path, PurePath

from quantstore.errors import MissingWeightsError
from quantstore.graph.tensors import IS_OUTSIDE

A_PART = "is one part of a model in several files"
AGAIN = "download or save the model again"


def part_beside(path: Path, name: str) -> Path:
    """A part of a model; it lies beside the file, or both are links into one folder.

    Args:
        path: of the file that names it.
        name: as that file has it; it may lead anywhere.

    Raises:
        MissingWeightsError: it lies elsewhere, or is not there.
    """
    part = path.parent / name
    try:
        is_bare = PurePath(name).name == name and "\\" not in name
        folders = (path.parent.resolve(), path.resolve().parent)
        is_inside = is_bare and part.resolve().parent in folders
        is_there = is_inside and part.exists()
    except (OSError, ValueError, RuntimeError) as error:
        raise MissingWeightsError(f"part {name[:100]!r} has an impossible path", AGAIN) from error
    if not is_inside:
        raise MissingWeightsError(
            f"part {name[:100]!r} {IS_OUTSIDE}",
            f"move it beside {path.name}; quantstore does not read other folders",
        )
    if not is_there:
        raise MissingWeightsError(
            f"part {name} is missing", f"add this file together with {path.name}"
        )
    return part
