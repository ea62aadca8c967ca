"""Model files at URLs: which there are, and a copy of each for as long as it is measured.

The only module that knows fsspec, which need not be installed, nor what it needs for a kind of URL.
"""

import errno
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from glob import has_magic
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from quantstore import graph
from quantstore.errors import ModelFileError, QuantstoreError
from quantstore.file_formats import SUFFIXES, any_of
from quantstore.pipeline.files import find_files, is_model_file, without_parts
from quantstore.pipeline.outcome import IngestResult

INSTALL = "install it with: pip install 'quantstore[remote]'"
NOT_THERE = "there is no such file, folder or bucket"
DENIED = "access is denied"
NO_CREDENTIALS = "no credentials were found"
HOW_TO_LOG_IN = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; for a public bucket set"
    " FSSPEC_S3_ANON=true"
)
UNREACHABLE = "the server cannot be reached"

# Two letters at least: a drive of Windows has one.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
# What stands before @ there is a container, not a user.
_CONTAINER_SCHEMES = frozenset({"abfs", "abfss", "wasb", "wasbs"})
_LONGEST_NAME = 200


@dataclass(frozen=True, slots=True, repr=False)
class RemoteModel:
    """A model file at a URL; as text without credentials, which are neither stored nor printed."""

    url: str

    def __str__(self) -> str:
        return without_credentials(self.url)

    def __repr__(self) -> str:
        return f"RemoteModel({str(self)!r})"

    @property
    def name(self) -> str:
        """The last part of the URL."""
        return _local_names(self)[1]


ModelPath = Path | RemoteModel


def is_url(text: str) -> bool:
    """Whether a text is a URL, and not a path."""
    return _URL.match(text) is not None


def without_credentials(url: str) -> str:
    """A URL without user, password, query and fragment: any of them may hold a secret."""
    scheme, _, rest = url.partition("://")
    # A question mark may stand for any character in a pattern, and # in the name of an object.
    rest = re.split(r"[?#]" if _is_http(url) else r"[?#](?=[^/]*=)", rest, maxsplit=1)[0]
    authority, slash, path = rest.partition("/")
    user, at, host = authority.rpartition("@")
    if not at and _looks_like_password(authority) and "@" in path:
        # A secret that contains a slash.
        return f"{scheme}://{path.rpartition('@')[2]}"
    if scheme.lower() in _CONTAINER_SCHEMES and ":" not in user:
        host = authority
    return f"{scheme}://{host}{slash}{path}"


def _looks_like_password(authority: str) -> bool:
    _, colon, port = authority.rpartition(":")
    return bool(colon) and not authority.startswith("[") and not port.isdigit()


def _path_of(url: str) -> str:
    """The path on this machine that a ``file://`` URL names."""
    # It loads http.client, which takes longer than reading a small model.
    from urllib.request import url2pathname

    return url2pathname(urlsplit(url).path)


def find_models(patterns: Iterable[str]) -> tuple[list[ModelPath], list[IngestResult]]:
    """The model files that paths, URLs, folders and globs of both stand for.

    Returns:
        The files, each once, and a failed result for every pattern that stands for none.
    """
    models: dict[ModelPath, None] = {}
    failures: list[IngestResult] = []
    for pattern in patterns:
        matches: list[ModelPath]
        if is_url(pattern) and not pattern.lower().startswith("file://"):
            try:
                matches = list(_matches(pattern))
            except QuantstoreError as error:
                shown = without_credentials(pattern)
                failures.append(IngestResult(path=shown, outcome="failed", error=error.sentence))
                continue
        else:
            path = _path_of(pattern) if is_url(pattern) else pattern
            files, missing = find_files([path])
            matches = list(files)
            failures += missing
        models |= dict.fromkeys(matches)
    return list(models), failures


def _matches(url: str) -> list[RemoteModel]:
    """The files that a URL stands for.

    Raises:
        QuantstoreError: there are none, or the place cannot be read.
    """
    address = _without_query(url)
    is_pattern = has_magic(address)
    # A server of pages is not asked for a list: it would send the whole file.
    is_file = is_model_file(address) or (_is_http(url) and not address.endswith("/"))
    if is_file and not is_pattern:
        return [RemoteModel(url)]
    with _explaining(url):
        system, path = _opened(url)
        system.invalidate_cache()
        if is_pattern:
            files, missing = sorted(system.glob(path)), "no file matches"
        elif system.isdir(path):
            # A path makes one slash of the two behind https.
            by_path = {PurePosixPath(file): file for file in system.find(path)}
            model_paths = sorted(file_path for file_path in by_path if is_model_file(file_path))
            files = [by_path[file_path] for file_path in without_parts(model_paths)]
            missing = f"the folder holds no {any_of(SUFFIXES)} file"
        else:
            files, missing = [path] if system.exists(path) else [], NOT_THERE
        if not files:
            raise ModelFileError(missing, "check the URL")
        return [RemoteModel(_url_of(system, url, path, file)) for file in files]


def _url_of(system: Any, url: str, path: str, file: str) -> str:
    """The URL of a file below another one, with what that says besides of host and user."""
    trimmed = url.rstrip("/")
    candidate = f"{trimmed[: len(trimmed) - len(path)]}{file}"
    if trimmed.endswith(path) and is_url(candidate) and system._strip_protocol(candidate) == file:
        return candidate
    return str(system.unstrip_protocol(file))


@contextmanager
def at_hand(model: ModelPath) -> Iterator[Path]:
    """The file of a model: itself, or a copy that goes with the block.

    Raises:
        QuantstoreError: it cannot be fetched.
    """
    if isinstance(model, Path):
        yield model
        return
    with tempfile.TemporaryDirectory(prefix="quantstore-", ignore_cleanup_errors=True) as scratch:
        folder_name, name = _local_names(model)
        # A file called model.onnx is named after its folder.
        path = Path(scratch) / folder_name / name
        path.parent.mkdir()
        with _explaining(model.url):
            system, remote_path = _opened(model.url)
            system.get_file(remote_path, str(path))
        for other_name in graph.named_files(path):
            target = _inside(path.parent, other_name)
            # Whoever opens the model says what is wrong with a name that leads elsewhere.
            if target is None or target == path.resolve():
                continue
            relative = target.relative_to(path.parent.resolve()).as_posix()
            with _explaining(model.url):
                target.parent.mkdir(parents=True, exist_ok=True)
                try:
                    system.get_file(_beside(remote_path, relative, model.url), str(target))
                except FileNotFoundError:
                    # The same holds for what is missing.
                    target.unlink(missing_ok=True)
        yield path


def _inside(folder: Path, name: str) -> Path | None:
    try:
        target = (folder / name).resolve()
    except (OSError, ValueError, RuntimeError):
        return None
    return target if target.is_relative_to(folder.resolve()) else None


def _beside(remote_path: str, relative: str, url: str) -> str:
    """Where a file lies that a model names, in the words of its file system."""
    if not _is_http(url):
        return f"{remote_path.rpartition('/')[0]}/{relative}"
    # What is escaped stays below the folder. A token in the query may open the whole folder.
    address, mark, query = remote_path.partition("?")
    return f"{address.rpartition('/')[0]}/{quote(relative)}{mark}{query}"


def _local_names(model: RemoteModel) -> tuple[str, str]:
    """The last folder and the name of a file, fit for a disk."""
    segments = str(model).partition("://")[2].split("/")
    folder, name = (["", *segments] if len(segments) < 2 else segments)[-2:]
    return _fit(folder, "folder"), _fit(name, "model")


def _fit(name: str, otherwise: str) -> str:
    name = re.sub(r"[/\\\0:]", "_", unquote(name))
    # The end says what format the file has.
    name = name.encode("utf-8", "replace")[-_LONGEST_NAME:].decode("utf-8", "ignore")
    return otherwise if name.strip(".") == "" else name


def _without_query(url: str) -> str:
    return re.split(r"[?#]", url, maxsplit=1)[0] if _is_http(url) else url


def _is_http(url: str) -> bool:
    return url.lower().startswith(("http://", "https://"))


def _opened(url: str) -> tuple[Any, str]:
    """The file system of a URL, and what it calls the file.

    Raises:
        QuantstoreError: fsspec, or what it needs for such URLs, is not installed.
    """
    scheme = url.partition("://")[0]
    if "::" in url:
        raise ModelFileError("chained URLs (::) are not read", "give the URL of the file itself")
    try:
        from fsspec.core import url_to_fs
        from fsspec.registry import known_implementations
    except ImportError as error:
        raise QuantstoreError(f"reading {scheme}:// needs fsspec", INSTALL) from error
    try:
        system, path = url_to_fs(url)
    except ImportError as error:
        advice = known_implementations.get(scheme.lower(), {}).get("err", "")
        raise QuantstoreError(
            f"what reads {scheme}:// is not installed",
            INSTALL if scheme in ("s3", "http", "https") or not advice else advice,
        ) from error
    except ValueError as error:
        if scheme.lower() in known_implementations:
            raise
        raise QuantstoreError(
            f"fsspec does not know {scheme}://", "download the file and give its path"
        ) from error
    return system, path


@contextmanager
def _explaining(url: str) -> Iterator[None]:
    """Say in a sentence why a place cannot be read; what a library says may hold the URL."""
    try:
        yield
    except QuantstoreError:
        raise
    except FileNotFoundError as error:
        raise ModelFileError(NOT_THERE, "check the URL") from error
    except PermissionError as error:
        raise ModelFileError(
            DENIED, "check the credentials, and whether they may read this place"
        ) from error
    except Exception as error:
        # Every kind of URL has libraries of its own, and each its own exceptions.
        raise _explained(url, error) from error


def _explained(url: str, error: Exception) -> QuantstoreError:
    names = {error_class.__name__ for error_class in type(error).__mro__}
    if any("Credentials" in name or name == "ProfileNotFound" for name in names):
        is_s3 = url.lower().startswith(("s3://", "s3a://"))
        return ModelFileError(NO_CREDENTIALS, HOW_TO_LOG_IN if is_s3 else "log in first")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return ModelFileError(
            f"there is no room for a copy: {error.strerror}", "free some disk space, or set TMPDIR"
        )
    status = getattr(error, "status", None)
    if status in (401, 403):
        return ModelFileError(DENIED, "check the credentials, and whether they may read this place")
    is_about_network = isinstance(error, OSError) or names & {"EndpointConnectionError"}
    return ModelFileError(
        f"{UNREACHABLE} ({type(error).__name__})"
        if is_about_network
        else f"cannot be fetched ({type(error).__name__})",
        "check the URL and the network, and try again",
    )
