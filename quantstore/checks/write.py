"""Outcomes in, text out: for people, for scripts, and for two kinds of CI.

Names come from files that anybody can write: in each of the texts they show as themselves, and
neither a terminal nor a CI server takes them for commands or markup.
"""

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import groupby
from xml.etree import ElementTree

from quantstore.checks.outcome import Check, CheckedFinding, Offender, db
from quantstore.errors import printable

# What a log shows of the layers beyond a limit; JSON has all of them.
OFFENDERS_IN_TEXT = 5
OFFENDERS_IN_JUNIT = 50
_LAYERS_OF_A_FINDING = 3


def to_text(checks: Sequence[Check]) -> str:
    """One line per check, and below it what broke it; a line says by itself whose it is."""
    lines: list[str] = []
    for check in checks:
        lines += [_headline(check), *(f"    {line}" for line in _details(check, OFFENDERS_IN_TEXT))]
    return "".join(f"{line}\n" for line in lines)


def to_json(checks: Sequence[Check]) -> str:
    """A list of objects, one per check and line; infinities are null."""
    lines = [json.dumps(_object(check), allow_nan=False) for check in checks]
    return "[\n  " + ",\n  ".join(lines) + "\n]\n" if lines else "[]\n"


def to_junit(checks: Sequence[Check]) -> str:
    """JUnit XML: a suite per model, a case per check.

    A check that fails is a failure; what was not measured is an error. The attributes are those
    that Jenkins, GitLab and the strict schemas ask for.
    """
    root = ElementTree.Element("testsuites", _counts("quantstore check", checks))
    for model, of_model in groupby(checks, key=lambda check: check.model):
        cases = list(of_model)
        suite = ElementTree.SubElement(root, "testsuite", _counts(printable(model), cases))
        for check in cases:
            # Readers take a dot for the end of a package.
            classname = f"quantstore.{printable(check.model).replace('.', '_')}"
            name = f"{check.check} ({check.under})" if check.under else check.check
            case = ElementTree.SubElement(
                suite, "testcase", {"classname": classname, "name": name, "time": "0"}
            )
            text = "\n".join([_sentence(check), *_details(check, OFFENDERS_IN_JUNIT)])
            if check.is_held:
                ElementTree.SubElement(case, "system-out").text = text
            else:
                tag = "failure" if check.outcome == "fail" else "error"
                attributes = {"type": check.check, "message": printable(check.message)}
                ElementTree.SubElement(case, tag, attributes).text = text
    ElementTree.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{_xml(root)}\n'


def to_github(checks: Sequence[Check]) -> str:
    """Workflow commands of GitHub Actions: an error per check that does not pass.

    A model that keeps within all of them gets one notice, so that the log says what was checked.
    """
    lines = []
    for model, of_model in groupby(checks, key=lambda check: check.model):
        model_checks = list(of_model)
        failed = [check for check in model_checks if not check.is_held]
        for check in failed:
            text = "\n".join([_sentence(check), *_details(check, OFFENDERS_IN_TEXT)])
            lines.append(_command("error", f"quantstore: {model}: {check.check}", text))
        for check in model_checks:
            # Those that fail stand in the error already.
            lines += [
                _command("warning", f"quantstore: {model}: {finding.kind}", _finding(finding))
                for finding in check.findings
                if not finding.fails
            ]
        if not failed:
            text = "\n".join(
                line
                for check in model_checks
                for line in (f"{check.check}: {_sentence(check)}", *_details(check, 0))
            )
            lines.append(_command("notice", f"quantstore: {model}", text))
    return "".join(f"{line}\n" for line in lines)


FORMATS: dict[str, Callable[[Sequence[Check]], str]] = {
    "text": to_text,
    "json": to_json,
    "junit": to_junit,
    "github": to_github,
}


def _headline(check: Check) -> str:
    """``fail          digits-rescaled: max-broken-layers: 8 of 10 layers are broken, ...``."""
    name = printable(f"{check.model}: {check.check}")
    return f"{check.outcome:<12}  {name}: {_sentence(check)}"


def _sentence(check: Check) -> str:
    return printable(f"{check.message} [{check.under}]" if check.under else check.message)


def _details(check: Check, most: int) -> list[str]:
    lines = [_offender(offender, check.unit) for offender in check.offenders[:most]]
    if len(check.offenders) > most:
        lines.append(f"and {len(check.offenders) - most:,} more")
    if most:
        lines += [_finding(finding) for finding in check.findings[:most]]
        if len(check.findings) > most:
            lines.append(f"and {len(check.findings) - most:,} more")
    return [printable(line) for line in (*lines, *check.notes)]


def _finding(finding: CheckedFinding) -> str:
    """``warning: dead channel: what was found. What to do. (3 layers: a, b, c)``."""
    where = ""
    if finding.layers:
        shown = ", ".join(finding.layers[:_LAYERS_OF_A_FINDING])
        hidden = finding.layer_count - len(finding.layers[:_LAYERS_OF_A_FINDING])
        where = f" ({shown}{f' and {hidden:,} more' if hidden > 0 else ''})"
    return f"{finding.severity}: {finding.kind}: {finding.message} {finding.remedy}{where}"


def _offender(offender: Offender, unit: str) -> str:
    if unit == "channels":
        return f"{offender.value:>5,.0f} channels  {offender.layer}"
    if unit == "share":
        return f"{offender.value:>7.1%}  {offender.layer}"
    was = "" if offender.baseline is None else f" ({db(offender.baseline)} in the baseline)"
    return f"{db(offender.value):>9}  {offender.layer}{was}"


def _object(check: Check) -> dict[str, object]:
    return {
        "model": check.model,
        "target": check.target,
        "scheme": check.scheme,
        "audit": check.audit,
        "check": check.check,
        "outcome": check.outcome,
        "value": _finite(check.value),
        "limit": _finite(check.limit),
        "unit": check.unit,
        "message": check.message,
        "layers": [
            {
                "layer": offender.layer,
                "operand": offender.operand,
                "value": _finite(offender.value),
                "baseline": _finite(offender.baseline),
            }
            for offender in check.offenders
        ],
        "findings": [
            dataclasses.asdict(finding) | {"layers": list(finding.layers)}
            for finding in check.findings
        ],
        "notes": list(check.notes),
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _counts(name: str, checks: Sequence[Check]) -> dict[str, str]:
    outcomes = Counter(check.outcome for check in checks)
    return {
        "name": name,
        "tests": str(len(checks)),
        "failures": str(outcomes["fail"]),
        "errors": str(outcomes["not measured"]),
        "time": "0",
    }


def _xml(root: ElementTree.Element) -> str:
    return ElementTree.tostring(root, encoding="unicode")


def _command(level: str, title: str, message: str) -> str:
    # https://docs.github.com/actions/reference/workflow-commands-for-github-actions
    return f"::{level} title={_property(printable(title))}::{_percent(message)}"


def _percent(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _percent(text).replace(":", "%3A").replace(",", "%2C")
