"""What is said first of two revisions: verdict and outputs, before the layers."""

import pytest

from quantstore.schemes import TARGETS
from quantstore.wording.headlines import revision_headline
from quantstore.wording.verdicts import ESTIMATED, NOT_RUN, OWN
from tests.support.facts import finding

TARGET = TARGETS["int8_tensor"]
TITLE = TARGET.title


def facts(verdict="untested", db=None, **more):
    return finding(verdict, "both" if db is not None else None, db, target=TARGET.name, **more)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (
            facts("fine", 33.4),
            facts("broken", 0.4),
            f"Fine → broken with {TITLE}: output SQNR 33 → 0 dB, {ESTIMATED}",
        ),
        (
            facts("broken", 3.0),
            facts("broken", 5.0, evidence="run"),
            f"Still broken with {TITLE}: output SQNR 3 → 5 dB, {ESTIMATED} → {OWN}",
        ),
        (facts(), facts(), f"Still untested with {TITLE}"),
        (
            facts(),
            facts("at risk", 15.0),
            f"Untested → at risk with {TITLE}: output SQNR 15 dB after, {ESTIMATED}",
        ),
        (facts("broken"), facts("broken"), f"Still broken with {TITLE}: {NOT_RUN}"),
    ],
)
def test_the_verdict_on_both_comes_first_and_the_unit_once(before, after, said):
    assert revision_headline(before, after, TARGET).replace("\u00a0", " ") == said
