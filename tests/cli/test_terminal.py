"""What a terminal shows that a pipe does not: colours, and tables that fit its width."""

import io
import re
import sys

import pytest

from quantstore import cli
from quantstore.charts.palette import BANDS
from quantstore.cli import terminal
from quantstore.cli.inspect import COMPARE_COLUMNS, COMPARE_EXPENDABLE, LAYER_EXPENDABLE
from quantstore.cli.output import say, to_fit

COLOUR = re.compile(r"\x1b\[[\d;]*m")
# White, black, Solarized light and dark, VS Code, Ubuntu, Dracula.
BACKGROUNDS = ("#ffffff", "#000000", "#fdf6e3", "#002b36", "#1e1e1e", "#300a24", "#282a36")


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def variables(monkeypatch):
    """The environment of a terminal that has colours."""
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(sys, "platform", "linux")
    return monkeypatch


@pytest.fixture
def on_a_terminal(variables, demo_store, capsys):
    """Run a command of the demo store on a terminal: exit code, standard output, error."""

    def run(*arguments, width=80):
        variables.setenv("COLUMNS", str(width))
        for stream in (sys.stdout, sys.stderr):
            variables.setattr(stream, "isatty", lambda: True)
        code = cli.main(["--db", str(demo_store), *arguments])
        return code, *capsys.readouterr()

    return run


# Colours.


def test_a_terminal_has_colours_and_a_pipe_has_none(variables):
    assert terminal.has_colours(Terminal())
    assert not terminal.has_colours(io.StringIO())


@pytest.mark.parametrize(
    ("environment", "on_terminal", "in_pipe"),
    [
        ({"NO_COLOR": "1"}, False, False),
        ({"NO_COLOR": ""}, True, False),
        ({"FORCE_COLOR": "1"}, True, True),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, False, False),
        ({"TERM": "dumb"}, False, False),
        ({"TERM": "dumb", "FORCE_COLOR": "1"}, True, True),
    ],
)
def test_the_environment_decides_about_colours(variables, environment, on_terminal, in_pipe):
    for name, value in environment.items():
        variables.setenv(name, value)
    assert terminal.has_colours(Terminal()) is on_terminal
    assert terminal.has_colours(io.StringIO()) is in_pipe


@pytest.mark.parametrize(("name", "has_colours"), [("WT_SESSION", True), ("OTHER", False)])
def test_the_old_console_of_windows_gets_none(variables, name, has_colours):
    variables.setattr(sys, "platform", "win32")
    for known_name in terminal._WINDOWS_TERMINALS:
        variables.delenv(known_name, raising=False)
    variables.setenv(name, "1")
    assert terminal.has_colours(Terminal()) is has_colours


def test_every_verdict_has_a_colour_and_no_two_bands_share_one():
    assert {*BANDS, "untested"} <= terminal.COLOURS.keys()
    assert len({terminal.COLOURS[word] for word in (*BANDS, "untested")}) == 5


def test_every_colour_can_be_read_on_light_and_dark_terminals():
    for word, number in terminal.COLOURS.items():
        for background in BACKGROUNDS:
            assert contrast(xterm(number), rgb(background)) >= 3, (word, background)


def xterm(number):
    """The colour of the 256 that has this number: a cube of 6 x 6 x 6, then greys."""
    if number >= 232:
        return (8 + 10 * (number - 232),) * 3
    levels = (0, 95, 135, 175, 215, 255)
    return tuple(levels[(number - 16) // step % 6] for step in (36, 6, 1))


def rgb(text):
    return tuple(bytes.fromhex(text[1:]))


def contrast(one, other):
    """https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio"""

    def luminance(colour):
        channels = [value / 255 for value in colour]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_verdicts_are_coloured_on_a_terminal_and_the_words_stay(on_a_terminal, capsys, demo_store):
    _, out, _ = on_a_terminal("models", "--target", "int8_tensor", width=200)
    assert terminal.coloured("broken") in out
    sys.stdout.isatty = lambda: False
    cli.main(["--db", str(demo_store), "models", "--target", "int8_tensor"])
    plain = capsys.readouterr().out
    assert "\x1b" not in plain
    assert COLOUR.sub("", out).split() == plain.split()


@pytest.mark.parametrize("style", ["csv", "json"])
def test_what_scripts_read_is_never_coloured_nor_cut(on_a_terminal, variables, style):
    variables.setenv("FORCE_COLOR", "1")
    _, out, _ = on_a_terminal("models", "--format", style, width=20)
    assert "\x1b" not in out
    assert "channel_spread_p90_bits" in out


def test_outcomes_of_a_check_are_coloured_and_names_are_not(on_a_terminal):
    code, out, _ = on_a_terminal("check", "digits-rescaled", "--max-broken-layers", "0")
    assert code in (0, 1)
    first, *_ = out.splitlines()
    outcome = COLOUR.sub("", first).split()[0]
    assert first.startswith(terminal.coloured(outcome))
    assert (
        terminal.outcomes_coloured("  fail: a line of details\n") == "  fail: a line of details\n"
    )


def test_what_is_said_has_one_word_in_colour_on_a_terminal_alone(variables, capsys):
    say("int8_tensor: fine: output SQNR 39 dB, fine", "fine")
    variables.setattr(sys.stderr, "isatty", lambda: True)
    say("int8_tensor: fine: output SQNR 39 dB, fine", "fine")
    say("a \x1b[31mhostile name", "fine")
    piped, shown, hostile = capsys.readouterr().err.splitlines()
    assert piped == "int8_tensor: fine: output SQNR 39 dB, fine"
    assert shown == piped.replace("fine", terminal.coloured("fine"), 1)
    assert hostile == r"a \x1b[31mhostile name"


# Width.


def in_widths(command, quick, slow=()):
    return [
        *((command, width) for width in quick),
        *(pytest.param(command, width, marks=pytest.mark.slow) for width in slow),
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "width"),
    [
        *in_widths("models", (20, 40, 60, 80, 100, 140)),
        *in_widths("layers digits-rescaled", (20, 40, 60, 80, 100, 140)),
        *in_widths("compare digits-plain digits-rescaled", (20, 40, 60, 80, 100, 140)),
        # Each starts a process.
        *in_widths("sql FROM", (20, 80), (40, 60, 100, 140)),
    ],
)
def test_no_line_of_a_table_is_wider_than_the_terminal(on_a_terminal, command, width):
    arguments = command.replace("FROM", "from_layers").split()
    if arguments[0] == "sql":
        arguments[1] = "select layer, module_path, op_type, shape from model_layers"
    code, out, err = on_a_terminal(*arguments, width=width)
    assert code == 0, err
    assert max(len(COLOUR.sub("", line)) for line in out.splitlines()) <= width


def test_columns_leave_in_their_order_and_the_reader_is_told(on_a_terminal):
    counts = []
    for width in (80, 100, 140):
        _, _, err = on_a_terminal("compare", "digits-plain", "digits-rescaled", width=width)
        sentences = {
            to_fit(width, COMPARE_EXPENDABLE[:count], shortened): count
            for count in range(len(COMPARE_EXPENDABLE))
            for shortened in ((), ("worst_layer",))
        }
        counts.append(sentences[err.splitlines()[0]])
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > counts[-1] > 0
    assert {*COMPARE_EXPENDABLE} < {*COMPARE_COLUMNS}


def test_the_column_that_was_asked_for_stays_longest(on_a_terminal):
    for column in ("weight_range", "weight_count"):
        _, out, _ = on_a_terminal("layers", "digits-plain", "--sort", column, width=45)
        header = out.split("--")[0].split()
        assert {"layer", "weight_", column.removeprefix("weight_")} <= {*header}
        assert "channel_" not in header
    assert "weight_range" in LAYER_EXPENDABLE


def test_a_pipe_gets_the_whole_table(on_a_terminal, demo_store, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    cli.main(["--db", str(demo_store), "models"])
    out, err = capsys.readouterr()
    assert "channel_spread_p90_bits" in out.splitlines()[0]
    assert "to fit" not in err
