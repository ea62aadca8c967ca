"""A gate for CI: does a model keep within the limits that somebody set?

``limits`` says what is allowed and reads it from TOML, ``judge`` compares a model with it,
``audited`` the audit of an int8 file,
``write`` turns the outcome into text, JSON, JUnit XML or annotations of GitHub Actions.
"""

from quantstore.checks.judge import Subject, judge, read_subject, run
from quantstore.checks.limits import Config, Limits, find_config, read_config
from quantstore.checks.outcome import Check, CheckedFinding, CheckOutcome, Offender
from quantstore.checks.write import FORMATS, to_github, to_json, to_junit, to_text

__all__ = [
    "FORMATS",
    "Check",
    "CheckOutcome",
    "CheckedFinding",
    "Config",
    "Limits",
    "Offender",
    "Subject",
    "find_config",
    "judge",
    "read_config",
    "read_subject",
    "run",
    "to_github",
    "to_json",
    "to_junit",
    "to_text",
]
