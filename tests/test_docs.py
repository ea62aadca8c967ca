"""The documents say what the code says: it writes their tables, and the tests they name exist."""

import re
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parent.parent
tables = SimpleNamespace(**runpy.run_path(str(ROOT / "docs" / "tables.py")))
DOCUMENTS = {
    path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in tables.documents()
}


def test_no_table_is_out_of_date():
    outdated = [
        f"{name}: {block_name}"
        for name, text in DOCUMENTS.items()
        for (_, block_name, content, _), (_, _, current, _) in zip(
            tables.BLOCK.findall(text), tables.BLOCK.findall(tables.rewritten(text)), strict=True
        )
        if content != current
    ]
    assert outdated == [], "make docs writes them anew"


def test_every_table_stands_in_a_document_and_every_mark_has_its_end():
    text = "\n".join(DOCUMENTS.values())
    blocks = tables.BLOCK.findall(text)
    assert {name for _, name, _, _ in blocks} == set(tables.TABLES)
    assert text.count("<!-- table:") == text.count("<!-- end -->") == len(blocks)


def test_marks_within_a_line_do_not_begin_it():
    # Markdown takes a line that begins with a comment for HTML, all of it.
    offenders = re.findall(r"^<!-- table: \S+ -->.+$", "\n".join(DOCUMENTS.values()), re.MULTILINE)
    assert offenders == []


def test_only_what_lies_between_marks_is_written():
    inline = "b <!-- table: operator-count -->0<!-- end -->."
    text = f"a\n<!-- table: findings -->\nold\n<!-- end -->\n{inline}"
    written = tables.rewritten(text)
    start, rest = written.split(f"\n{tables.TABLES['findings']()}\n")
    assert start == "a\n<!-- table: findings -->"
    count = tables.TABLES["operator-count"]()
    assert rest == f"<!-- end -->\nb <!-- table: operator-count -->{count}<!-- end -->."
    assert tables.rewritten(written) == written


def test_a_table_that_nobody_writes_is_refused():
    with pytest.raises(LookupError, match="no table is called weather"):
        tables.rewritten("<!-- table: weather -->\n<!-- end -->")


def test_tests_that_a_document_names_exist():
    files = list((ROOT / "tests").rglob("test_*.py"))
    names = {path.stem for path in files}
    for path in files:
        names |= set(re.findall(r"def (test_\w+)", path.read_text("utf-8")))
    missing = [
        f"{document}: {name}"
        for document, text in DOCUMENTS.items()
        for name in re.findall(r"`(?:[\w/]*/)?(test_\w+)(?:\.py)?`", text)
        if name not in names
    ]
    assert missing == []
