"""What the project promises about itself: files that agree, a README that tells the truth."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

import quantstore
from quantstore import cli

START = Path(quantstore.__file__).parent / "app" / "start"
ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text("utf-8")


def test_the_packaged_theme_is_the_theme_of_the_checkout():
    outer = (ROOT / ".streamlit" / "config.toml").read_bytes()
    inner = (START / ".streamlit" / "config.toml").read_bytes()
    assert outer == inner


def test_the_app_listens_to_this_computer_only_and_tells_nobody():
    config = tomllib.loads((ROOT / ".streamlit" / "config.toml").read_text("utf-8"))
    assert config["server"]["address"] == "127.0.0.1"
    assert set(config["server"]["allowedHosts"]) == {"localhost", "127.0.0.1"}
    assert config["server"]["enableXsrfProtection"] is True
    assert config["server"]["enableCORS"] is True
    assert config["server"]["maxUploadSize"] == 200
    assert config["browser"]["gatherUsageStats"] is False


def test_the_theme_has_the_colours_of_the_palette():
    from quantstore.charts.palette import DARK, LIGHT

    theme = tomllib.loads((ROOT / ".streamlit" / "config.toml").read_text("utf-8"))["theme"]
    for name, palette in (("light", LIGHT), ("dark", DARK)):
        assert theme[name]["backgroundColor"] == palette.background
        assert theme[name]["textColor"] == palette.text
        assert theme[name]["primaryColor"] == palette.accent


def test_the_changelog_knows_this_version_or_has_unreleased_changes():
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert "## Unreleased" in changelog or f"## {quantstore.__version__}" in changelog


@pytest.mark.parametrize(
    "line",
    [
        line.strip()
        for block in re.findall(r"```console\n(.*?)```", README, re.DOTALL)
        for line in block.splitlines()
        if line.startswith("$ quantstore ")
    ],
)
def test_every_command_of_the_readme_exists(line):
    """The commands are parsed, not run: options and arguments must be known."""
    arguments = line.removeprefix("$ quantstore ").split()
    if arguments[0] == "--db":
        del arguments[:2]
    name = next(word for word in arguments if not word.startswith("-"))
    found = cli.commands.commands[name]
    options = {option for parameter in found.params for option in parameter.opts}
    options |= {option for parameter in found.params for option in parameter.secondary_opts}
    given = {word.split("=")[0] for word in arguments if word.startswith("--")}
    assert given <= options | {"--help"}, given - options
    assert CliRunner().invoke(cli.commands, [name, "--help"]).exit_code == 0


def test_the_readme_names_every_command():
    for name in cli.commands.commands:
        assert re.search(rf"quantstore (--db \S+ )?{name}\b", README), name


CI = (ROOT / "docs" / "ci.md").read_text("utf-8")


@pytest.fixture
def pipelines():
    """The configurations that docs/ci.md shows, by server."""
    yaml = pytest.importorskip("yaml", reason="pip install -e '.[test]'")
    titled = re.findall(r"^## (GitHub|GitLab).*?^```yaml\n(.*?)^```", CI, re.DOTALL | re.MULTILINE)
    return {server: yaml.safe_load(text) for server, text in titled}


def test_the_pipelines_of_the_documentation_are_yaml_that_their_servers_read(pipelines):
    github, gitlab = pipelines["GitHub"], pipelines["GitLab"]
    # YAML 1.1 takes the key "on" for a truth, as the server knows.
    assert github.get("on", github.get(True)) == "pull_request"
    steps = github["jobs"]["check"]["steps"]
    assert all(("uses" in step) != ("run" in step) for step in steps)
    assert all(
        re.fullmatch(r"actions/[\w-]+@v\d+", step.get("uses", "actions/x@v1")) for step in steps
    )
    used = {step["uses"].split("@")[0]: step["with"] for step in steps if "uses" in step}
    assert used["actions/setup-python"]["cache"] == "pip"
    assert used["actions/cache"]["path"] == "quantstore.duckdb"
    runs = " ".join(step.get("run", "") for step in steps)
    assert "--format github" in runs
    assert "--output quantstore.xml" in runs
    assert "quantstore.xml" in used["actions/upload-artifact"]["path"]
    job = gitlab["int8"]
    for part in ("before_script", "script", "after_script"):
        assert all(isinstance(line, str) for line in job[part])
    assert job["artifacts"]["reports"]["junit"] in job["script"][-1]
    assert {path for cache in job["cache"] for path in cache["paths"]} == {
        value.removeprefix("$CI_PROJECT_DIR/") for value in job["variables"].values()
    }


def test_links_in_the_documents_lead_somewhere():
    for document in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        for target in re.findall(r"\]\(([^)#\s]+)\)", document.read_text("utf-8")):
            if not target.startswith("http"):
                assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_nothing_in_the_project_names_a_machine_or_an_index():
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False, text=True
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    # Put together, so that this file is not what it looks for.
    forbidden = re.compile(b"|".join([b"/" + b"work/", b"/" + b"root/", b"/home/" + b"[a-z]"]))
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if path.is_file():
            assert not forbidden.search(path.read_bytes()), name


def test_no_folder_called_pages_lies_beside_the_script_that_starts_the_app():
    # Streamlit would take it for its own until a first page was drawn: deep links would fail.
    for script in (ROOT / "app.py", START / "streamlit_app.py"):
        assert script.is_file()
        assert not (script.parent / "pages").exists()
