"""The gate for CI: what passes, what fails, what was not measured, and how each is told."""

import dataclasses
import json
import math
import shlex
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest

from quantstore import checks, cli, queries, store
from quantstore.checks import (
    CheckedFinding,
    Config,
    Limits,
    Subject,
    find_config,
    judge,
    read_config,
)
from quantstore.checks.judge import NO_LAYER_FITS, NO_LAYER_LEFT, NO_TARGET
from quantstore.checks.limits import (
    LAYER_PATTERNS,
    LIMIT_NAMES,
    MODEL_NAME,
    MUST_BE_A_TABLE,
    NO_NEGATIVE_DB,
    NUMBER_OF_DB,
    WHOLE_NUMBER,
)
from quantstore.cli.check import NO_FILE
from quantstore.errors import LimitsError, UnknownModelError
from quantstore.pipeline.files import demo_paths
from quantstore.queries import LayerFigures, WeightsAlone
from quantstore.queries.matching import TWO_NETWORKS
from quantstore.store.connection import NO_STORE
from quantstore.store.models import NO_MODEL_NAMED
from quantstore.wording.verdicts import NOT_MEASURED, ModelFacts, verdict_sentence
from tests.support.runs import probed

ROOT = Path(__file__).resolve().parents[2]
SCHEME = "int8_tensor_symmetric"
HOSTILE = "a<b>&\"'\x00\x1b[31m\uffff\n::error::x,y:z%0A##[error]"


def layer(name, p10_db=40.0, *, operand="W", family="conv", shape=(8, 8), below=0):
    band = next(
        band
        for band, lower in [("fine", 30), ("watch", 20), ("at risk", 10), ("broken", -math.inf)]
        if p10_db >= lower
    )
    return LayerFigures(name, operand, family, shape, shape[0], False, band, p10_db, below)


def facts(verdict, output_sqnr_db=None, *, broken=0, at_risk=0, **more):
    """Of one layer, and of the whole target where there is a value at the outputs."""
    is_measured = output_sqnr_db is not None
    figures = {
        "evidence": "probe" if is_measured else "weights",
        "mode": "both" if is_measured else "weights",
        "is_measured": is_measured,
        "target": "int8_tensor",
        "model": "net",
    }
    return ModelFacts(
        verdict=verdict,
        output_sqnr_db=output_sqnr_db,
        layers_broken=broken,
        layers_at_risk=at_risk,
        layer_count=1,
        **(figures | more),
    )


def subject(*layers, facts=None, model="net", alone=None, findings=()):
    return Subject(model, SCHEME, layers, facts, alone, findings)


def only(checks):
    (check,) = checks
    return check


# Without a limit: the verdict.


@pytest.mark.parametrize(
    ("found", "p10_db", "outcome", "told"),
    [
        (facts("broken", 7.2), 40, "fail", facts("broken", 7.2)),
        (facts("fine", 33), 5, "pass", facts("fine", 33, broken=1)),
        (facts("at risk", 15), 5, "pass", facts("at risk", 15, broken=1)),
        (facts("fine", 33, evidence="run", sample_count=9), 40, "pass", None),
        (facts("broken"), 5, "fail", facts("broken", broken=1)),
        (facts("at risk"), 15, "pass", facts("at risk", at_risk=1)),
        (facts("untested", reason="no luck"), 35, "not measured", None),
        (facts("untested", 45, mode="weights", is_measured=False), 35, "not measured", None),
        # Weights alone prove a loss.
        (facts("broken", 5, mode="weights", is_measured=False), 35, "fail", None),
        (facts("at risk", 15, mode="weights", is_measured=False), 35, "pass", None),
    ],
)
def test_without_a_limit_a_model_must_be_tested_and_not_broken(found, p10_db, outcome, told):
    check = only(judge(subject(layer("a", p10_db), facts=found), Limits()))
    assert (check.check, check.outcome, check.under) == ("verdict", outcome, "int8_tensor")
    assert check.message == verdict_sentence(told or found)


def test_what_is_untested_comes_with_the_command_that_measures_it():
    check = only(judge(subject(layer("a"), facts=facts("untested")), Limits()))
    assert f"{NOT_MEASURED}; measure it with: quantstore probe net --target int8_tensor" in (
        check.message
    )


def test_layers_that_are_left_out_prove_nothing():
    layers = (layer("a", 5), layer("b", 40))
    limits = Limits(exclude=("a",))
    assert only(judge(subject(*layers, facts=facts("broken")), limits)).outcome == "not measured"


def test_a_target_that_rounds_linear_layers_is_judged_by_those():
    layers = (layer("conv", 5), layer("fc", 15, family="linear"))
    found = facts("at risk", target="int8_dynamic")
    check = only(judge(subject(*layers, facts=found), Limits(target="int8_dynamic")))
    assert check.message.startswith("at risk: 1 layer")


@pytest.mark.parametrize(
    ("alone", "p10_db", "outcome", "part"),
    [
        (WeightsAlone(45.0, "fine", "probe", 24), 5, "pass", "output SQNR 45 dB"),
        (WeightsAlone(5.0, "broken", "probe", 24), 40, "fail", "output SQNR 5 dB"),
        (WeightsAlone(None, "fine", "probe", 24), 40, "pass", "no change"),
        (None, 40, "pass", "no problem found in the weights"),
        (None, 5, "fail", "broken: 1 layer"),
    ],
)
def test_who_asks_for_weights_alone_is_told_of_them(alone, p10_db, outcome, part):
    found = subject(layer("a", p10_db), facts=facts("untested"), alone=alone)
    check = only(judge(found, Limits(mode="weights")))
    assert check.outcome == outcome
    assert part in check.message


@pytest.mark.parametrize(
    ("found", "mode", "outcome", "value"),
    [
        (facts("watch", 25), None, "pass", 25),
        (facts("at risk", 15), None, "fail", 15),
        (facts("untested", 45, mode="weights", is_measured=False), None, "not measured", None),
        # Weights alone miss the limit already.
        (facts("at risk", 15, mode="weights", is_measured=False), None, "fail", 15),
        (facts("untested"), None, "not measured", None),
        (facts("fine", None, evidence="probe", is_measured=True), None, "pass", math.inf),
        (facts("untested"), "weights", "pass", 45),
        (facts("at risk", 15), "weights", "pass", 45),
    ],
)
def test_the_sqnr_at_the_outputs_must_be_measured(found, mode, outcome, value):
    alone = WeightsAlone(45.0, "fine", "probe", 24)
    limits = Limits(min_sqnr_db=20, mode=mode)
    check = only(judge(subject(layer("a"), facts=found, alone=alone), limits))
    assert (check.outcome, check.value) == (outcome, value)


WARNING = CheckedFinding(
    "dead channel", "warning", "3 channels are zero.", "Prune them.", ("a", "b"), 2
)
PROBLEM = CheckedFinding("not finite", "problem", "It holds NaN.", "Export it again.")
NOTE = CheckedFinding("invalid", "note", "The checker complains.", "Ignore it.")


@pytest.mark.parametrize(
    ("findings", "outcome", "told"),
    [
        ((NOTE,), None, ()),
        ((NOTE, WARNING), "pass", (WARNING,)),
        ((WARNING, PROBLEM), "fail", (WARNING, PROBLEM)),
        ((dataclasses.replace(PROBLEM, severity="error"),), "fail", None),
    ],
)
@pytest.mark.parametrize("limits", [Limits(), Limits(max_broken_layers=0)])
def test_findings_that_leave_figures_without_meaning_fail_a_model(findings, outcome, told, limits):
    found = subject(layer("a"), facts=facts("fine", 33), findings=findings)
    first, *others = judge(found, limits)
    assert first.is_held
    assert [(check.check, check.outcome) for check in others] == [("findings", outcome)][
        : outcome is not None
    ]
    if told:
        assert others[0].findings == told


def test_findings_are_told_in_every_format():
    found = subject(layer("a"), facts=facts("fine", 33), findings=(WARNING, PROBLEM))
    results = judge(found, Limits())
    text, junit, github = (checks.FORMATS[name](results) for name in ("text", "junit", "github"))
    for told in (text, junit, github):
        for finding in (WARNING, PROBLEM):
            assert f"{finding.kind}: {finding.message} {finding.remedy}" in told
    assert "(a, b)" in text
    failure = ElementTree.fromstring(junit).find(".//testcase[@name='findings']/failure")
    assert PROBLEM.message in failure.text
    commands = [line.partition(" ")[0] for line in github.splitlines()]
    assert commands == ["::error", "::warning"]
    (_, of_findings) = json.loads(checks.FORMATS["json"](results))
    assert [one["kind"] for one in of_findings["findings"]] == ["dead channel", "not finite"]


@pytest.fixture
def probed_store(demo_store, tmp_path):
    """The demo models: one was run for both, the second failed, the third half so."""
    path = tmp_path / "probed.duckdb"
    shutil.copy(demo_store, path)
    for model, mode, sqnr_db, failure in (
        ("digits-plain", "weights", 45.0, None),
        ("digits-plain", "both", 8.0, None),
        ("digits-rescaled", "both", math.nan, CUT_OFF),
        ("digits-separable", "weights", 33.0, None),
        ("digits-separable", "both", math.nan, CUT_OFF),
    ):
        probed(path, model, SCHEME, sqnr_db, mode=mode, failure=failure)
    return path


CUT_OFF = "stopped after 20 s"


def of_limits(connection, limits):
    """The checks of limits; findings are another matter."""
    return [one for one in checks.run(connection, limits) if one.check != "findings"]


@pytest.mark.slow
def test_the_gate_judges_as_the_view_of_verdicts_does(probed_store):
    with store.reading(probed_store) as connection:
        for row in queries.verdicts(connection).to_dict("records"):
            limits = {row["model"]: Limits(target=row["target"])}
            check = only(of_limits(connection, limits))
            expected = {"broken": "fail", "untested": "not measured"}.get(row["verdict"], "pass")
            assert check.outcome == expected, (row["model"], row["target"])
            assert check.message == verdict_sentence(queries.model_facts(row))
            found = math.nan if check.value is None else check.value
            assert found == pytest.approx(row["output_sqnr_db"], nan_ok=True)


def test_weights_alone_pass_no_model_whose_full_int8_was_cut_off(probed_store, run):
    with store.reading(probed_store) as connection:
        check = only(of_limits(connection, {"digits-separable": Limits(target="int8_tensor")}))
        of_weights = Limits(target="int8_tensor", mode="weights")
        assert only(of_limits(connection, {"digits-separable": of_weights})).is_held
    assert (check.outcome, check.value) == ("not measured", 33.0)
    code, text, _ = run(probed_store, "digits-separable", "--target", "int8_tensor")
    assert (code, f"not measured  digits-separable: verdict: untested: {CUT_OFF}" in text) == (
        *(1, True),
    )


def test_a_scheme_stands_for_the_target_that_rounds_its_weights(probed_store):
    with store.reading(probed_store) as connection:
        for scheme, under in ((SCHEME, "int8_tensor"), ("int4_block32_symmetric", "int4_weights")):
            limits = Limits(scheme=scheme)
            assert only(of_limits(connection, {"digits-plain": limits})).under == under
        asymmetric = Limits(scheme="int8_tensor_asymmetric")
        check = only(of_limits(connection, {"digits-plain": asymmetric}))
    assert (check.outcome, check.message) == ("not measured", NO_TARGET)


def test_a_model_that_the_store_lacks_is_an_error(demo_store):
    with store.reading(demo_store) as connection:
        for limits in ({"nope": Limits()}, {"digits-plain": Limits(baseline="nope")}):
            with pytest.raises(UnknownModelError, match="'nope'"):
                checks.run(connection, limits)


# Limits on layers.

LAYERS = (layer("a", 5, below=4), layer("b", 12, below=1), layer("c", 25), layer("d", math.inf))


@pytest.mark.parametrize(
    ("limits", "found", "offenders"),
    [
        ({"min_layer_sqnr_db": 5.0}, 5, []),
        ({"min_layer_sqnr_db": 25.0}, 5, ["a", "b"]),
        ({"max_broken_layers": 1}, 1, []),
        ({"max_broken_layers": 0}, 1, ["a"]),
        ({"max_at_risk_layers": 1}, 1, []),
        ({"max_at_risk_layers": 0}, 1, ["b"]),
        ({"max_channels_below_10db": 5}, 5, []),
        ({"max_channels_below_10db": 4}, 5, ["a", "b"]),
    ],
)
def test_a_limit_holds_up_to_the_limit_itself(limits, found, offenders):
    check = only(judge(subject(*LAYERS), Limits(**limits)))
    (name,) = limits
    assert check.check == name.replace("_", "-")
    assert check.value == found
    assert check.outcome == ("fail" if offenders else "pass")
    assert [one.layer for one in check.offenders] == offenders


def test_every_limit_is_checked_on_its_own():
    limits = Limits(min_sqnr_db=1, min_layer_sqnr_db=1, max_broken_layers=0, max_at_risk_layers=9)
    outcomes = {check.check: check.outcome for check in judge(subject(*LAYERS), limits)}
    assert outcomes == {
        "min-sqnr-db": "not measured",
        "min-layer-sqnr-db": "pass",
        "max-broken-layers": "fail",
        "max-at-risk-layers": "pass",
    }


def test_layers_can_be_left_out_by_name_or_pattern():
    layers = (layer("head/[0]/Conv", 3), layer("head/[1]/Conv", 3), layer("body/Conv", 40))
    limits = Limits(max_broken_layers=0, exclude=("head/[[]1]*", "head/[0]/Conv", "tail"))
    check = only(judge(subject(*layers), limits))
    assert check.is_held
    assert check.notes == ("2 layers left out", f"{NO_LAYER_FITS} tail")


@pytest.mark.parametrize(
    "limits",
    [
        {"min_layer_sqnr_db": 1},
        {"max_broken_layers": 1},
        {"max_channels_below_10db": 1},
        {"baseline": "b"},
    ],
)
def test_where_every_layer_is_left_out_nothing_holds(limits):
    check = only(judge(subject(layer("a")), Limits(exclude=("*",), **limits), subject(layer("a"))))
    assert (check.outcome, check.message) == ("not measured", NO_LAYER_LEFT)


# Against a baseline.


def compared(ours, theirs, **limits):
    limits = Limits(baseline="old", **limits)
    return only(judge(subject(*ours), limits, subject(*theirs, model="old")))


@pytest.mark.parametrize(
    ("now_db", "before_db", "outcome"),
    [
        (29.0, 30.0, "pass"),
        (28.9, 30.0, "fail"),
        (35.0, 30.0, "pass"),
        (40.0, math.inf, "fail"),
        (math.inf, math.inf, "pass"),
        (math.inf, 40.0, "pass"),
        (120.0, math.inf, "pass"),
    ],
)
def test_a_layer_may_lose_so_much_and_no_more(now_db, before_db, outcome):
    check = compared([layer("a", now_db)], [layer("a", before_db)], max_regression_db=1.0)
    assert check.outcome == outcome
    assert [(one.value, one.baseline) for one in check.offenders] == (
        [(now_db, before_db)] if outcome == "fail" else []
    )


def test_layers_are_compared_by_name_and_operand_and_the_others_are_named():
    ours = [
        layer("lstm", 30, operand="W"),
        layer("lstm", 9, operand="R"),
        layer("new", 1, shape=(4, 4)),
    ]
    theirs = [
        layer("lstm", 30, operand="R"),
        layer("lstm", 30, operand="W"),
        layer("gone", shape=(2, 2)),
    ]
    check = compared(ours, theirs)
    assert [(one.layer, one.operand) for one in check.offenders] == [("lstm", "R")]
    assert check.value == 21
    assert check.message.startswith("2 of 3 layers compared with old: 1 lost more than 1 dB")
    assert check.notes == ("only in net: new", "only in old: gone")


def test_without_a_common_name_layers_are_compared_by_shape_and_order():
    ours = [layer("x1", 40), layer("x2", 5), layer("x3", 5, family="linear")]
    theirs = [layer("y1", 40), layer("y2", 30), layer("y3", 30)]
    check = compared(ours, theirs)
    assert [one.layer for one in check.offenders] == ["x2"]
    assert check.notes == (
        "names do not tell: 2 layers are matched by operator, shape and order",
        "only in net: x3",
        "only in old: y3",
    )


@pytest.mark.parametrize(
    "theirs",
    [
        [layer("y", family="linear")],
        [layer("x1"), *(layer(f"y{number}", family="linear") for number in range(4))],
    ],
)
def test_a_baseline_that_is_another_network_holds_nothing(theirs):
    check = compared([layer("x1"), layer("x2"), layer("x3"), layer("x4")], theirs)
    assert (check.outcome, check.value) == ("not measured", None)
    assert check.message.endswith(TWO_NETWORKS)


def test_a_layer_of_another_shape_is_compared_by_its_name():
    check = compared([layer("a", 5, shape=(4, 4)), layer("b")], [layer("a"), layer("b")])
    assert [one.layer for one in check.offenders] == ["a"]


# Limits from a file.


@pytest.fixture
def toml(tmp_path):
    def write(text, name="pyproject.toml"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_the_nearest_pyproject_with_a_table_of_ours_counts(toml, tmp_path):
    toml("[tool.quantstore.check]\nmin-sqnr-db = 20\n")
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    (inner.parent / "pyproject.toml").write_text("[tool.other]\nx = 1\n")
    found = find_config(inner)
    assert found.path == tmp_path / "pyproject.toml"
    assert found.limits("net") == Limits(min_sqnr_db=20)


@pytest.mark.parametrize(
    "text",
    [
        "[check]\nmax-broken-layers = 3",
        "[tool.quantstore.check]\nmax_broken_layers = 3",
        "[tool.quantstore]\nmax-broken-layers = 3",
        "[tool.quantstore]\nmax-broken-layers = 9\n[tool.quantstore.check]\nmax-broken-layers = 3",
    ],
)
def test_limits_stand_in_any_of_these_tables(toml, text):
    assert read_config(toml(text, "gate.toml")).limits("net") == Limits(max_broken_layers=3)


def test_the_command_line_wins_over_the_model_over_the_common_table(toml):
    config = read_config(
        toml(
            """
            [check]
            min-sqnr-db = 20
            max-broken-layers = 0
            exclude = ["stem"]
            [check.models."rtmdet-*"]
            min-sqnr-db = 5
            max-broken-layers = false
            [check.models."*-nano"]
            min-sqnr-db = 7.5
            """
        )
    )
    assert config.limits("other") == Limits(min_sqnr_db=20, max_broken_layers=0, exclude=("stem",))
    assert config.limits("rtmdet-s") == Limits(min_sqnr_db=5, exclude=("stem",))
    assert config.limits("rtmdet-nano").min_sqnr_db == 7.5
    given = config.limits("rtmdet-nano", {"min_sqnr_db": 30.0, "exclude": ("head",)})
    assert given == Limits(min_sqnr_db=30, exclude=("head",))


def test_a_baseline_that_is_a_file_lies_beside_the_limits(toml, tmp_path):
    path = toml('[check]\nbaseline = "released.onnx"')
    assert read_config(path).limits("net").baseline == str(tmp_path / "released.onnx")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("[tool.quantstore.check]\nmin-sqnr = 1", "check.min-sqnr; did you mean min-sqnr-db?"),
        ("[tool.quantstore]\nchecks = 1", "there is no limit tool.quantstore.checks"),
        (
            "[check]\nmin-sqnr-db = 'ten'",
            f'check.min-sqnr-db must be {NUMBER_OF_DB}, not "ten"',
        ),
        ("[check]\nmin-sqnr-db = nan", f"must be {NUMBER_OF_DB}, not nan"),
        ("[check]\nmin-sqnr-db = true", f"must be {NUMBER_OF_DB}, not true"),
        ("[check]\nmax-broken-layers = 1.5", f"must be {WHOLE_NUMBER}, not 1.5"),
        ("[check]\nmax-broken-layers = -1", f"must be {WHOLE_NUMBER}, not -1"),
        ("[check]\nmax-regression-db = -1", f"must be {NO_NEGATIVE_DB}, not -1"),
        ("[check]\nscheme = 'int9'", "must be one of int8_tensor_symmetric, "),
        ("[check]\nscheme = []", "must be one of int8_tensor_symmetric, "),
        ("[check]\nmode = 'none'", "must be one of both, weights"),
        ("[check]\nbaseline = ''", f"must be {MODEL_NAME}"),
        ("[check]\nexclude = 'head'", f"must be {LAYER_PATTERNS}"),
        ("[check]\nmodels = 1", f"check.models {MUST_BE_A_TABLE} 1"),
        ("[check.models.x]\nmin = 1", 'there is no limit check.models."x".min'),
        ("[check.models]\nx = 1", f'check.models."x" {MUST_BE_A_TABLE} 1'),
        ("check = 1", f"check {MUST_BE_A_TABLE} 1"),
        ("tool.quantstore = 1", f"tool.quantstore {MUST_BE_A_TABLE} 1"),
        ("[tool.quantstore.check", "is not TOML"),
        ("[other]", "has no limits; write limits into [check]"),
    ],
)
def test_a_wrong_limit_is_named(toml, text, part):
    with pytest.raises(LimitsError) as caught:
        read_config(toml(text))
    assert part in caught.value.sentence
    assert caught.value.exit_code == 2


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(LimitsError, match="cannot be read: No such file"):
        read_config(tmp_path / "none.toml")


def test_without_any_file_there_are_no_limits():
    assert Config().limits("net").are_none


# Written for four kinds of readers.


@pytest.fixture
def hostile():
    """Checks of every outcome, with names that would do harm."""
    ours = subject(layer(HOSTILE, 5), *(layer(f"n{number}", 5) for number in range(9)))
    held = judge(subject(layer("a"), model=HOSTILE), Limits(max_broken_layers=0))
    limits = Limits(min_sqnr_db=1, max_broken_layers=0, exclude=(HOSTILE * 2,), baseline=HOSTILE)
    before = subject(layer(HOSTILE, math.inf), model=HOSTILE)
    return [*held, *judge(ours, limits, before)]


def test_text_has_one_line_per_check_and_the_worst_layers_below(hostile):
    lines = checks.to_text(hostile).splitlines()
    assert all(line.isprintable() for line in lines)
    heads = [line.split("  ")[0] for line in lines if not line.startswith(" ")]
    assert heads == ["pass", "not measured", "fail", "fail"]
    assert any(line.strip() == "and 5 more" for line in lines)


def test_no_figure_is_rounded_up_to_the_limit_that_it_misses(demo_store, tmp_path):
    found = judge(subject(layer("Conv_212", 9.96)), Limits(max_broken_layers=0))
    for text in (checks.to_text(found), checks.to_junit(found)):
        assert "9.9 dB  Conv_212" in text
    path = shutil.copy(demo_store, tmp_path / "strict.duckdb")
    probed(path, "digits-plain", SCHEME, 24.6)
    with store.writing(path) as con:
        con.rows("update bands set lower_db = 25 where band = 'watch'")
    with store.reading(path) as con:
        limits = Limits(target="int8_tensor")
        verdict, *_ = judge(checks.read_subject(con, "digits-plain", limits), limits)
    assert verdict.message == "at risk: output SQNR 24.6 dB, estimated with noise"


def test_json_carries_everything(hostile):
    found = json.loads(checks.to_json(hostile), parse_constant=pytest.fail)
    assert [one["outcome"] for one in found] == ["pass", "not measured", "fail", "fail"]
    assert len(found[2]["layers"]) == 10
    assert found[3]["layers"][0] == {
        "layer": HOSTILE,
        "operand": "W",
        "value": 5.0,
        "baseline": None,
    }
    assert (found[3]["value"], found[3]["limit"], found[3]["unit"]) == (95.0, 1.0, "dB")
    assert json.loads(checks.to_json([])) == []


def test_junit_is_what_ci_servers_read(hostile):
    text = checks.to_junit(hostile)
    text.encode("utf-8")
    root = ElementTree.fromstring(text)
    assert root.tag == "testsuites"
    suites = list(root)
    assert [suite.tag for suite in suites] == ["testsuite"] * 2
    for element in (root, *suites):
        assert set(element.attrib) == {"name", "tests", "failures", "errors", "time"}
        cases = list(element.iter("testcase"))
        assert int(element.attrib["tests"]) == len(cases)
        assert int(element.attrib["failures"]) == sum(1 for _ in element.iter("failure"))
        assert int(element.attrib["errors"]) == sum(1 for _ in element.iter("error"))
    assert (root.attrib["failures"], root.attrib["errors"]) == ("2", "1")
    names = set()
    for case in root.iter("testcase"):
        assert set(case.attrib) == {"classname", "name", "time"}
        assert float(case.attrib["time"]) >= 0
        names.add((case.attrib["classname"], case.attrib["name"]))
        (inside,) = case
        assert inside.tag in ("failure", "error", "system-out")
        assert inside.text
        if inside.tag != "system-out":
            assert set(inside.attrib) == {"type", "message"}
    assert len(names) == len(hostile)


def test_annotations_are_one_command_per_line_and_nothing_else(hostile):
    lines = checks.to_github(hostile).splitlines()
    assert [line.split(" ")[0] for line in lines] == ["::notice", "::error", "::error", "::error"]
    for line in lines:
        _, properties, message = line.split("::", 2)
        assert properties.split(" ", 1)[1].startswith("title=quantstore%3A ")
        assert "," not in properties
        assert message
        assert line.isprintable()
    assert r"\n%3A%3Aerror%3A%3Ax%2Cy%3Az%250A" in lines[0]
    assert "%0A" in lines[2]


# The command.


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """``quantstore check`` in a folder of its own: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def run(db, *arguments):
        code = cli.main(["--db", str(db), "check", *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.mark.parametrize("name", ["nofile.onnx", "build/model"])
def test_of_a_path_without_a_file_both_meanings_are_told(run, demo_store, tmp_path, name):
    unknown = f"error: {NO_FILE} {name}, and {NO_MODEL_NAMED} {name!r}"
    code, _, err = run(demo_store, name)
    assert (code, err.split(";")[0]) == (2, unknown)
    absent = f"error: {NO_FILE} {name}, and {NO_STORE} {tmp_path / 'none.duckdb'}"
    code, _, err = run(tmp_path / "none.duckdb", name)
    assert (code, err.split(";")[0]) == (3, absent)
    # A name that is no path is a name and nothing else.
    assert run(demo_store, "nobody")[2].startswith(f"error: {NO_MODEL_NAMED}")


def test_a_model_may_be_named_like_a_path(run, demo_store, tmp_path):
    path = shutil.copy(demo_store, tmp_path / "s.duckdb")
    with store.writing(path) as connection:
        store.rename_model(connection, "digits-plain", "build/model.onnx")
    assert run(path, "build/model.onnx", "--mode", "weights")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        # Nothing was run.
        (["digits-plain"], 1),
        (["digits-plain", "--mode", "weights"], 0),
        (["digits-rescaled", "--target", "int8_tensor", "--mode", "weights"], 1),
        (["digits-rescaled", "--target", "int8_channel", "--mode", "weights"], 0),
        (["digits-plain", "digits-rescaled", "--scheme", SCHEME, "--mode", "weights"], 1),
        (["digits-rescaled", "--max-broken-layers", "10"], 0),
        (["digits-plain", "--min-layer-sqnr-db", "60"], 1),
        (["digits-plain", "--min-sqnr-db", "0"], 1),
        (["digits-separable", "--baseline", "digits-separable-unfolded"], 0),
        (["digits-rescaled", "--baseline", "digits-separable", "--scheme", SCHEME], 1),
        (["digits-rescaled", "--max-broken-layers", "0", "--exclude", "*"], 1),
        (["digits-plain", "--target", "int8"], 2),
        (["nope"], 2),
        (["digits-plain", "nope"], 2),
        (["digits-plain", "--baseline", "nope"], 2),
        (["digits-plain", "--max-broken-layers", "-1"], 2),
        (["digits-plain", "--min-sqnr-db", "nan"], 2),
        (["digits-plain", "--max-regression-db", "1"], 2),
        (["digits-plain", "--config", "none.toml"], 2),
        ([], 2),
    ],
)
def test_the_exit_code_tells_ci_what_it_needs(run, demo_store, arguments, code):
    found, out, err = run(demo_store, *arguments)
    assert found == code, out + err
    assert (out == "") == (code == 2)


def test_a_missing_store_is_exit_code_3(run, tmp_path):
    assert run(tmp_path / "none.duckdb", "digits-plain")[0] == 3


def test_limits_come_from_the_pyproject_above(run, demo_store, tmp_path, monkeypatch, toml):
    path = toml('[tool.quantstore.check.models."*-rescaled"]\nmax-broken-layers = 10\n')
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    code, out, err = run(demo_store, "digits-rescaled", "digits-plain", "--mode", "weights")
    assert code == 0
    assert [line.split(": ")[1] for line in out.splitlines()] == ["max-broken-layers", "verdict"]
    assert err == f"2 of 2 models within limits; limits from {path}\n"
    assert run(demo_store, "digits-rescaled", "--min-layer-sqnr-db", "90")[0] == 1
    toml("[tool.quantstore.check]\nmin-sqnr = 1")
    code, out, err = run(demo_store, "digits-plain")
    assert (code, out) == (2, "")
    assert "tool.quantstore.check.min-sqnr; did you mean min-sqnr-db?" in err


@pytest.mark.slow
def test_a_file_is_ingested_first_unless_it_is_stored(run, tmp_path):
    plain = demo_paths()[0]
    copy = tmp_path / "net.onnx"
    shutil.copy(plain, copy)
    db = tmp_path / "own.duckdb"
    code, out, err = run(db, copy, "--min-sqnr-db", "20", "--baseline", plain)
    assert code == 0, err
    assert "net.onnx: stored as net\n" in err
    assert "already stored as net\n" in err
    assert "net: min-sqnr-db: output SQNR 38.6 dB" in out
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    code, out, err = run(db, "broken.onnx")
    assert (code, out) == (1, "")
    assert err.startswith("error: broken.onnx: ")


def test_a_report_goes_to_a_file_and_the_log_keeps_the_text(run, demo_store, tmp_path):
    junit = ("--format", "junit", "--output", "junit.xml")
    code, out, _ = run(demo_store, "digits-plain", "--mode", "weights", *junit)
    assert code == 0
    assert out.startswith("pass ")
    assert ElementTree.parse(tmp_path / "junit.xml").getroot().attrib["tests"] == "1"
    code, _, err = run(demo_store, "digits-plain", "--output", "no/such/folder.txt")
    assert code == 1
    assert "cannot be written" in err


@pytest.mark.parametrize(
    "line",
    [
        line.strip(" $-").removeprefix("run: ")
        for line in (ROOT / "docs" / "ci.md").read_text("utf-8").splitlines()
        if line.strip(" $-").removeprefix("run: ").startswith("quantstore ")
    ],
)
def test_every_command_of_the_documentation_is_understood(line):
    _, command, *arguments = shlex.split(line)
    # Parsed, not run.
    cli.commands.commands[command].make_context(command, arguments)


def test_the_documentation_names_every_limit():
    text = (ROOT / "docs" / "ci.md").read_text("utf-8")
    for limit in LIMIT_NAMES:
        assert f"`{limit.replace('_', '-')}`" in text or f"{limit.replace('_', '-')} =" in text
