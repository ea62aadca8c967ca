"""What the graph, the weights and the noise probe give away, as a list. Plain text."""

from collections.abc import Sequence
from dataclasses import dataclass

from quantstore.errors import printable
from quantstore.wording.columns import Row
from quantstore.wording.text import listed
from quantstore.wording.units import counted

HEADING = "Findings"
CAPTION = "Found in the graph, in the weights and in the noise probe."
MOST_NAMED = 3


@dataclass(frozen=True, slots=True)
class FindingWords:
    """A finding: where it was made, empty where it concerns the whole model, and a remedy."""

    severity: str
    where: str
    message: str
    remedy: str


def in_words(rows: Sequence[Row]) -> list[FindingWords]:
    """Findings in their order.

    Args:
        rows: as ``queries.model_findings`` gives them; those of one layer have no ``layers``.
    """
    return [
        FindingWords(
            str(row["severity"]),
            _where(row) if "layers" in row else "",
            *(printable(str(row[column])) for column in ("message", "remedy")),
        )
        for row in rows
    ]


def _where(row: Row) -> str:
    names, count = list(row["layers"]), int(row["layer_count"])
    if not count:
        return ""
    shown = [printable(str(name)) for name in names[:MOST_NAMED]]
    if count > len(shown):
        shown.append(counted(count - len(shown), "more layer"))
    example = " The first of them:" if count > 1 else ""
    return f"In {listed(shown)}.{example}"
