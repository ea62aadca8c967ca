"""The pages of the app: a file in ``pages/`` and an entry here, and there is another page.

The navigation lists them in this order; the sidebar, links from page to page, the tests and the
bench of the pages read the same list. It loads nothing, so that everybody may.
"""

from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "pages"


@dataclass(frozen=True, slots=True)
class Page:
    """A page, and the question it answers, with which its file begins, too.

    ``name`` is what its file and its address are called; the default page has the empty address.
    ``icon`` is one of Material Symbols. ``judges`` tells whether it judges by the target that the
    sidebar asks for; ``needs_models``, whether it has nothing to show while the store is empty.
    """

    name: str
    title: str
    icon: str
    question: str
    judges: bool = True
    needs_models: bool = True
    is_default: bool = False

    @property
    def file(self) -> Path:
        """What Streamlit runs to draw the page."""
        return FOLDER / f"{self.name}.py"


PAGES = (
    Page(
        "compare",
        title="Compare",
        icon="table_chart",
        question="Which models survive on which target, and how do their layers differ?",
        is_default=True,
    ),
    Page(
        "revisions",
        title="Revisions",
        icon="difference",
        question="What got better and what got worse between two revisions of a network?",
    ),
    Page(
        "model",
        title="Model",
        icon="schema",
        question="Which layers break the model, why, and what would rescue each?",
    ),
    Page(
        "layer",
        title="Layer",
        icon="layers",
        question="What do the channels of a layer look like, and what would rescue the layer?",
    ),
    Page(
        "audit",
        title="Audit",
        icon="fact_check",
        question="Why does this int8 file give other answers than the float file it was made from?",
        judges=False,
    ),
    Page(
        "drift",
        title="Drift",
        icon="trending_down",
        question="Where in the network does the int8 version drift away from the float model?",
    ),
    Page(
        "rescue",
        title="Rescue",
        icon="healing",
        question="What keeps the model accurate on this target, and where are the files?",
    ),
    Page(
        "reality",
        title="Predicted vs. measured",
        icon="scatter_plot",
        question="How well does each weight statistic predict the measured loss?",
    ),
    Page(
        "example",
        title="Worked example",
        icon="straighten",
        question="How do values merge on an int8 grid, and why does one outlier matter so much?",
        judges=False,
        needs_models=False,
    ),
    Page(
        "article",
        title="Reproduce the article",
        icon="article",
        question="Why does int8 break one detector and not another?",
        judges=False,
    ),
    Page(
        "sql",
        title="SQL",
        icon="terminal",
        question="What does my own SQL query return?",
        judges=False,
    ),
    Page(
        "models",
        title="Models",
        icon="inventory_2",
        question="Which models are in the store, and are they up to date?",
    ),
)

_BY_NAME = {page.name: page for page in PAGES}


def page_named(name: str) -> Page:
    """The page that is called so; a ``KeyError`` where there is none."""
    return _BY_NAME[name]
