"""What is published: everything that the app needs, and a README that an index can show."""

import functools
import os
import re
import runpy
import shutil
import socket
import subprocess
import sys
import tarfile
import time
import tomllib
import urllib.error
import urllib.request
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from quantstore.pipeline.files import demo_paths

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
README = (ROOT / "README.md").read_text("utf-8")
SETUP = runpy.run_path(str(ROOT / "setup.py"))
URL = "https://git.example.org/team/quantstore"
OLDEST_SETUPTOOLS = 77
START_SECONDS = 90


@functools.cache
def tracked(folder=""):
    """Files of the repository, as far as it is one."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--", folder or "."],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode or not listed.stdout:
        pytest.skip("not a git checkout")
    return frozenset(name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file())


# What pyproject.toml says.


def test_every_package_is_listed():
    packages = {
        Path(name).parent.as_posix().replace("/", ".")
        for name in tracked("quantstore")
        if name.endswith(".py")
    }
    assert packages == set(PROJECT["tool"]["setuptools"]["packages"])


def test_every_file_that_is_no_code_is_package_data():
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["quantstore"]
    packed = {
        path.relative_to(ROOT).as_posix()
        for pattern in patterns
        for path in (ROOT / "quantstore").glob(pattern)
    }
    assert {name for name in tracked("quantstore") if not name.endswith(".py")} - packed == set()
    assert all(any((ROOT / "quantstore").glob(pattern)) for pattern in patterns)


def test_the_metadata_names_what_it_runs_on():
    classifiers = set(PROJECT["project"]["classifiers"])
    for version in ("3.11", "3.12", "3.13"):
        assert f"Programming Language :: Python :: {version}" in classifiers
    assert "Python 3.11 to 3.13 on Linux or macOS" in README
    # Since PEP 639 the licence is an expression, and a classifier beside it is refused.
    assert not [name for name in classifiers if name.startswith("License ::")]
    assert len(PROJECT["project"]["keywords"]) == len(set(PROJECT["project"]["keywords"]))


# The README of an index.


def without_code(text):
    return re.sub(r"^```.*?^```$|`[^`\n]+`", "", text, flags=re.MULTILINE | re.DOTALL)


def links_of(text):
    return re.findall(r"\]\(([^)\s]+)\)", without_code(text))


def test_an_index_that_knows_no_repository_shows_words_instead_of_broken_pictures():
    published = SETUP["published"](README, None)
    assert [link for link in links_of(published) if not link.startswith("http")] == []
    assert "![" not in without_code(published)
    for words in re.findall(r"!\[([^\]]+)\]", README):
        assert f"*{words}*" in published


def test_an_index_that_knows_the_repository_shows_its_pictures():
    published = SETUP["published"](README, f"{URL}/")
    assert len(links_of(published)) == len(links_of(README))
    for link in links_of(published):
        assert link.startswith("http")
        if link.startswith(URL):
            kind, path = re.fullmatch(rf"{URL}/(raw|blob)/HEAD/(.+)", link).groups()
            assert (ROOT / path.split("#")[0]).exists()
            assert (kind == "raw") == path.endswith((".png", ".svg"))


@pytest.mark.parametrize("url", [None, URL])
def test_code_is_published_as_it_is(url):
    text = "`[a](b.md)` and [`c`](c.md)\n```console\n$ x ![d](e.png)\n```\n"
    published = SETUP["published"](text, url)
    assert published.startswith("`[a](b.md)` and ")
    assert "\n```console\n$ x ![d](e.png)\n```\n" in published
    assert ("`c`\n" in published) is (url is None)


# The Dockerfile.


def test_the_image_is_built_from_what_goes_to_the_builder():
    sent = {
        line.removeprefix("!").rstrip("/")
        for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines()
        if line.startswith("!")
    }
    dockerfile = (ROOT / "Dockerfile").read_text("utf-8")
    copied = set()
    for line in re.findall(r"^COPY (?!--from)(.+)$", dockerfile, re.MULTILINE):
        copied |= set(line.split()[:-1])
    assert copied == sent
    assert all((ROOT / name).exists() for name in copied)


def test_the_container_runs_as_a_user_keeps_the_store_in_a_volume_and_tells_its_health():
    dockerfile = (ROOT / "Dockerfile").read_text("utf-8")
    final = dockerfile[dockerfile.rindex("\nFROM ") :]
    instructions = re.findall(r"^([A-Z]+) ", final, re.MULTILINE)
    assert instructions.count("USER") == 1
    assert "USER quantstore" in final
    assert "QUANTSTORE_DB=/data/" in final
    assert "VOLUME /data" in final
    assert "HEALTHCHECK" in instructions
    assert "/_stcore/health" in final
    # The users of the image decide what reaches it.
    assert '"--address", "0.0.0.0"' in final
    assert "--publish 127.0.0.1:8501:8501" in dockerfile
    assert 'ENTRYPOINT ["quantstore"]' in final


# Built, installed, started.


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    """A source distribution and the wheel that is built from it, without a network."""
    try:
        major = int(metadata.version("setuptools").split(".")[0])
        metadata.version("build")
    except metadata.PackageNotFoundError as error:
        pytest.skip(f"needs {error.name}: pip install -e '.[test]'")
    if major < OLDEST_SETUPTOOLS:
        pytest.skip(f"needs setuptools {OLDEST_SETUPTOOLS}: pip install -e '.[test]'")
    source = tmp_path_factory.mktemp("source")
    # A copy of what is tracked: nothing that lies about is packed, nothing is left behind.
    for name in tracked():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    out = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", out, source],
        capture_output=True,
        text=True,
        env=clean_environment(),
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "would be ignored" not in done.stdout + done.stderr
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    return sdist, wheel


def clean_environment(**variables):
    names = ("PYTHONPATH", "QUANTSTORE_DB", SETUP["URL_VARIABLE"])
    kept = {name: value for name, value in os.environ.items() if name not in names}
    return {**kept, **variables}


@pytest.mark.slow
def test_the_wheel_holds_the_whole_package_and_nothing_else(distributions):
    _, wheel = distributions
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        (readme,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        described = archive.read(readme).decode()
    assert names == tracked("quantstore")
    assert SETUP["published"](README, None).strip() in described.replace("\r\n", "\n")


@pytest.mark.slow
def test_the_source_distribution_holds_what_its_tests_and_documents_need(distributions):
    sdist, _ = distributions
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    left_out = {
        name
        for name in tracked() - names
        if not name.startswith((".ci/", ".git", ".dockerignore", ".github/", ".gitlab"))
    }
    assert left_out == set()


@pytest.mark.slow
def test_the_app_of_the_wheel_starts_with_the_example_models(distributions, tmp_path):
    _, wheel = distributions
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    scripts = environment / ("Scripts" if sys.platform == "win32" else "bin")
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "--python", scripts / "python", "install"),
            *("--quiet", "--no-deps", "--no-index", "--no-compile", wheel),
        ],
        check=True,
        env=clean_environment(),
    )
    (packages,) = environment.glob("lib/python*/site-packages")
    # What it depends on is what the tests run with; a path in such a file brings no editable
    # installation along.
    paths = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    (packages / "dependencies.pth").write_text("\n".join(paths))
    folder = tmp_path / "empty"
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [scripts / "quantstore", "app", "--demo", "--no-browser", "--port", str(port)],
        cwd=folder,
        env=clean_environment(XDG_STATE_HOME=str(tmp_path / "state")),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert answers(f"http://127.0.0.1:{port}/_stcore/health", process) == b"ok"
        assert b"<title>" in answers(f"http://127.0.0.1:{port}/", process)
        where = subprocess.run(
            [scripts / "python", "-c", "import quantstore; print(quantstore.__file__)"],
            cwd=folder,
            env=clean_environment(),
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert where.startswith(str(environment))
        listed = subprocess.run(
            [scripts / "quantstore", "models", "--format", "csv"],
            cwd=folder,
            env=clean_environment(),
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        models = {line.split(",")[0] for line in listed.splitlines()[1:]}
        assert models == {path.stem for path in demo_paths()}
    finally:
        process.terminate()
        process.communicate(timeout=30)


def answers(address, process):
    """What a server that starts answers, as soon as it does."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:
                return answer.read()
        except (urllib.error.URLError, ConnectionError):
            if process.poll() is not None or time.monotonic() > deadline:
                process.terminate()
                raise AssertionError(process.communicate()[1][-3000:]) from None
            time.sleep(0.2)
