"""Release 0.1.0, out of this repository's history, to be run beside today's version."""

import io
import os
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from timing import UnavailableError

ROOT = Path(__file__).resolve().parent.parent
# The last commit of 0.1.0.
RELEASE = "fc2ca96"


@contextmanager
def versions() -> Iterator[dict[str, tuple[Path, dict[str, str]]]]:
    """The folder of the package of both versions, and the environment that imports it from there.

    Raises:
        UnavailableError: this is a copy without its history.
    """
    with TemporaryDirectory() as folder:
        released = Path(folder, "0.1.0")
        _extract(released)
        compiled = Path(folder, "compiled")
        yield {
            "0.1.0": (released, _environment(released, compiled)),
            "this": (ROOT, _environment(ROOT, compiled)),
        }


def _extract(folder: Path) -> None:
    archive = subprocess.run(
        ["git", "archive", RELEASE, "quantstore"], cwd=ROOT, capture_output=True, check=False
    )
    if archive.returncode:
        raise UnavailableError(f"{RELEASE} is not in this repository: clone it with its history")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        tar.extractall(folder, filter="data")


def _environment(package_folder: Path, compiled: Path) -> dict[str, str]:
    path = os.environ.get("PYTHONPATH")
    # Compiled modules are kept, as where packages are installed, beside no sources of anybody's.
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(package_folder), *filter(None, [path])]),
        "PYTHONPYCACHEPREFIX": str(compiled),
    }
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return environment
