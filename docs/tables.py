"""The tables of the documents, written from the registries in the code that they list.

A document marks where a table stands; what lies between the marks is written here::

    <!-- table: findings -->
    <!-- end -->

``make docs`` writes every block anew, and tests/test_docs.py holds that none is out of date. A new
table is a function below, under :func:`table`, and a pair of marks that bear its name. Marks that
share a line hold a number or a name; such a line must not begin with them, because Markdown would
take all of it for HTML.
"""

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import get_args

ROOT = Path(__file__).resolve().parent.parent
# Tests are no part of the package, and some tables name them.
sys.path.insert(0, str(ROOT))

from quantstore.app.page_list import PAGES  # noqa: E402
from quantstore.graph.findings import FINDING_KINDS  # noqa: E402
from quantstore.graph.findings.base import Severity  # noqa: E402
from quantstore.graph.operators import MICROSOFT, OPERATORS, Operator  # noqa: E402
from quantstore.numerics.measures import MEASURES  # noqa: E402
from quantstore.rescuing.formats import KINDS  # noqa: E402
from quantstore.schemes import (  # noqa: E402
    BLOCK_SIZE,
    DEFAULT_SCHEME,
    DEFAULT_TARGET,
    SCHEMES,
    TARGETS,
    Scheme,
)
from quantstore.wording.text import listed  # noqa: E402

BLOCK = re.compile(r"(<!-- table: (\S+) -->)(.*?)(<!-- end -->)", re.DOTALL)

TABLES: dict[str, Callable[[], str]] = {}


def table(name: str) -> Callable[[Callable[[], str]], Callable[[], str]]:
    """Let a function write the blocks of this name."""

    def register(write: Callable[[], str]) -> Callable[[], str]:
        if name in TABLES:
            raise ValueError(f"two tables are called {name}")
        TABLES[name] = write
        return write

    return register


def documents() -> list[Path]:
    """Every file that may hold a block."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def rewritten(text: str) -> str:
    """A document with every block as the code has it now."""

    def block(match: re.Match[str]) -> str:
        start, name, content, end = match.groups()
        if name not in TABLES:
            raise LookupError(f"no table is called {name}; there are {', '.join(TABLES)}")
        is_inline = "\n" not in content
        return f"{start}{TABLES[name]()}{end}" if is_inline else f"{start}\n{TABLES[name]()}\n{end}"

    return BLOCK.sub(block, text)


def markdown(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown; a cell is one line of text, which may be Markdown itself."""
    lines = (heads, ["---"] * len(heads), *rows)
    return "\n".join("|" + "".join(f" {_cell(text)}|" for text in line) for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "&#124;") + (" " if text else "")


# Findings


@table("findings")
def findings() -> str:
    """Every kind, the gravest first."""
    gravest_first = get_args(Severity)
    return markdown(
        ("kind", "severity", "concerns", "meaning"),
        (
            (f"`{entry.name}`", entry.severity, entry.concerns, entry.meaning)
            for entry in sorted(
                FINDING_KINDS, key=lambda entry: gravest_first.index(entry.severity)
            )
        ),
    )


# Files for other tools


@table("file-kinds")
def file_kinds() -> str:
    """Every file that a rescue or an overlay writes."""
    return markdown(
        ("file", "what it is for, and how to use it"),
        ((f"`{kind.pattern}`", kind.use) for kind in KINDS.values()),
    )


# Measures


@table("measures")
def measures() -> str:
    """Every column of ``layers`` that is a figure of its weights."""
    return markdown(
        ("measure", "meaning", "as an axis of charts"),
        (
            (f"`{measure.column}`", measure.meaning, measure.chart.label if measure.chart else "")
            for measure in MEASURES.values()
        ),
    )


# Pages


@table("pages")
def pages() -> str:
    """Every page and its question, in the order of the navigation."""
    return markdown(
        ("page", "the question it answers"), ((page.title, page.question) for page in PAGES)
    )


# Operators


@table("operator-count")
def operator_count() -> str:
    """How many there are."""
    return str(len(OPERATORS))


@table("families")
def families() -> str:
    """Families of operators; one of both domains is named once."""
    operators = list(OPERATORS.values())
    names = {
        family: dict.fromkeys(
            operator.op_type for operator in operators if operator.family == family
        )
        for family in dict.fromkeys(operator.family for operator in operators)
    }
    return markdown(
        ("family", "operators"), ((family, ", ".join(names[family])) for family in names)
    )


@table("operators")
def operators_of_onnx() -> str:
    """Those of ONNX's own domain."""
    return _operators("")


@table("operators-of-onnxruntime")
def operators_of_onnxruntime() -> str:
    """Those of the domain com.microsoft."""
    return _operators(MICROSOFT)


def _operators(domain: str) -> str:
    rows = (
        (operator.op_type, _operator_cells(operator))
        for operator in OPERATORS.values()
        if operator.domain == domain
    )
    return markdown(
        ("operator", "operand", "channels along", "family", "test"),
        (
            (", ".join(op_type for op_type, _ in alike), *cells)
            for cells, alike in groupby(rows, key=lambda row: row[1])
        ),
    )


def _operator_cells(operator: Operator) -> tuple[str, ...]:
    from tests.graph.test_operators import TESTS, USUAL_TEST

    test = TESTS.get((operator.domain, operator.op_type), "")
    names = list(dict.fromkeys(operand.name for operand in operator.operands))
    return (
        listed(names) if operator.measures_all else ", else ".join(names),
        "; ".join(_channels(operator)),
        operator.family,
        f"`{test}`" if test and test != USUAL_TEST else "",
    )


def _channels(operator: Operator) -> Iterator[str]:
    axes = {
        operand.name: operand.channel_axis.description
        if operand.joined_axis is None
        else f"{operand.joined_axis} and {operand.channel_axis.description} together"
        for operand in operator.operands
    }
    if len(set(axes.values())) == 1:
        yield next(iter(axes.values()))
    else:
        yield from (f"{name}: {description}" for name, description in axes.items())


# Schemes


@table("schemes")
def schemes() -> str:
    """Every scheme: its codes, what its scale is made of and who shares it."""
    return markdown(
        ("scheme", "codes or values", "scale and zero point", "one for each"),
        (
            (
                f"`{scheme.name}`" + (" (the default)" if scheme is DEFAULT_SCHEME else ""),
                f"{scheme.qmin}..{scheme.qmax}"
                if scheme.number == "int"
                else f"the finite values of {scheme.number.removeprefix('fp8_').upper()}",
                _scale(scheme),
                f"block of {BLOCK_SIZE}" if scheme.granularity == "block" else scheme.granularity,
            )
            for scheme in SCHEMES.values()
        ),
    )


def _scale(scheme: Scheme) -> str:
    scale = (
        f"s = max abs / {scheme.qmax}, z = 0"
        if scheme.is_symmetric
        else f"s = (max - min) / {scheme.qmax}, z = -round(min / s)"
    )
    return f"{scale}, of the clipped range" if scheme.clip == "mse" else scale


# Targets


@table("targets")
def targets() -> str:
    """Every target: its weights, its activations, and which of them are rounded."""
    return markdown(
        ("target", "weights", "activations", "which activations", "what it is"),
        (
            (
                f"`{target.name}`" + (" (the default)" if target is DEFAULT_TARGET else ""),
                f"`{target.scheme.name}`",
                target.activations.title if target.activations else "float",
                target.placement_title or "",
                target.description,
            )
            for target in TARGETS.values()
        ),
    )


def main() -> None:
    """Write every block anew, and name the documents that changed."""
    for document in documents():
        before = document.read_text("utf-8")
        after = rewritten(before)
        if after != before:
            document.write_text(after, "utf-8")
            print(document.relative_to(ROOT))


if __name__ == "__main__":
    main()
