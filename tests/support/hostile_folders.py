"""Published folders that somebody spoiled, by accident or with bad intentions.

Each spoils a folder of two parts with rows; what reads it must say in one sentence what is wrong.
``tests/store/test_hostile_folders.py`` and ``bench/attacks.py`` open them all.
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import duckdb

from quantstore.store.parts import MANIFEST

Spoil = Callable[[Path], None]


def parts(folder: Path) -> list[Path]:
    """In the order in which DuckDB reads them; this process has not looked at them yet."""
    return sorted(folder.glob("part_id=*"))


def first(folder: Path) -> Path:
    """The part that DuckDB takes the columns from."""
    return parts(folder)[0]


def last(folder: Path) -> Path:
    """The last part with models, which DuckDB compares with the first."""
    return [part for part in parts(folder) if row_count(part / "models.parquet")][-1]


def row_count(file: Path) -> int:
    with duckdb.connect() as connection:
        ((count,),) = connection.sql(f"select count(*) from '{quoted(file)}'").fetchall()
    return int(count)


def rewritten(file: Path, query: str) -> None:
    """Let a file hold what a query makes of it."""
    fresh = file.with_name("fresh")
    query = query.replace("this", f"read_parquet('{quoted(file)}')")
    with duckdb.connect() as connection:
        connection.sql(query).write_parquet(str(fresh))
    fresh.replace(file)


def quoted(path: Path) -> str:
    return str(path).replace("'", "''")


def part_is_a_link(folder: Path) -> None:
    part = last(folder)
    elsewhere = folder.with_name("elsewhere")
    part.rename(elsewhere)
    part.symlink_to(elsewhere)


def part_is_a_file(folder: Path) -> None:
    (folder / f"part_id={'0' * 32}").write_text("x")


def part_of_another_name(folder: Path) -> None:
    shutil.copytree(last(folder), folder / "part_id=mine")


def file_is_a_link(folder: Path) -> None:
    file = last(folder) / "stored_errors.parquet"
    elsewhere = folder.with_name("elsewhere.parquet")
    file.rename(elsewhere)
    file.symlink_to(elsewhere)


def file_is_a_link_to_a_secret(folder: Path) -> None:
    file = last(folder) / "findings.parquet"
    file.unlink()
    file.symlink_to("/etc/passwd")


def file_is_missing(folder: Path) -> None:
    (last(folder) / "histograms.parquet").unlink()


def file_is_a_folder(folder: Path) -> None:
    file_is_missing(folder)
    (last(folder) / "histograms.parquet").mkdir()


def manifest_is_missing(folder: Path) -> None:
    (last(folder) / MANIFEST).unlink()


def manifest(text: str) -> Spoil:
    def spoil(folder: Path) -> None:
        (last(folder) / MANIFEST).write_text(text)

    return spoil


def manifest_with(**changes: object) -> Spoil:
    def spoil(folder: Path) -> None:
        file = last(folder) / MANIFEST
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return spoil


def parts_replace_one_another(folder: Path) -> None:
    names = [part.name for part in parts(folder)]
    for part in parts(folder):
        file = part / MANIFEST
        file.write_text(json.dumps(json.loads(file.read_text()) | {"replaces": names}))


def cut(table: str, share: float) -> Spoil:
    def spoil(folder: Path) -> None:
        file = last(folder) / f"{table}.parquet"
        os.truncate(file, int(share * file.stat().st_size))

    return spoil


def stretched(folder: Path) -> None:
    """Ten gigabytes that take no room on the disk."""
    os.truncate(last(folder) / "layers.parquet", 10 << 30)


def written_over(folder: Path) -> None:
    """Compressed pages that cannot be unpacked; the end of the file, which lists them, is fine."""
    file = last(folder) / "stored_errors.parquet"
    content = bytearray(file.read_bytes())
    for at in range(4, len(content) // 2):
        content[at] = 0xFF
    file.write_bytes(content)


def text(table: str) -> Spoil:
    def spoil(folder: Path) -> None:
        (last(folder) / f"{table}.parquet").write_text("model,sqnr\nx,99\n")

    return spoil


def as_query(where: Callable[[Path], Path], table: str, query: str) -> Spoil:
    def spoil(folder: Path) -> None:
        rewritten(where(folder) / f"{table}.parquet", query)

    return spoil


# What is wrong, how it came about, and words of the sentence that says so.
SPOILT: dict[str, tuple[Spoil, str]] = {
    "a part is a link": (part_is_a_link, "is a symbolic link"),
    "a part is a file": (part_is_a_file, "is no part that quantstore wrote"),
    "a part of another name": (part_of_another_name, "is no part that quantstore wrote"),
    "a file is a link": (file_is_a_link, "is not a regular file"),
    "a file is a link to a secret": (file_is_a_link_to_a_secret, "is not a regular file"),
    "a file is missing": (file_is_missing, "lacks histograms.parquet"),
    "a file is a folder": (file_is_a_folder, "is not a regular file"),
    "no manifest": (manifest_is_missing, "is no part that quantstore wrote"),
    "an empty manifest": (manifest(""), "is no part that quantstore wrote"),
    "a manifest of a list": (manifest("[]"), "is no part that quantstore wrote"),
    "a deep manifest": (manifest("[" * 100_000), "is no part that quantstore wrote"),
    "a long manifest": (manifest('"' + "x" * (20 << 20)), "is no part that quantstore wrote"),
    "another format": (manifest_with(format="x"), "is no part that quantstore wrote"),
    "a later schema": (manifest_with(schema_version=99), "by another release"),
    "an earlier schema": (manifest_with(schema_version=1), "by another release"),
    "a schema of text": (manifest_with(schema_version="x" * 1000), "by another release"),
    "replaces a number": (manifest_with(replaces=7), "is no part that quantstore wrote"),
    "replaces a path": (manifest_with(replaces=["../../x"]), "is no part that quantstore wrote"),
    "parts replace one another": (parts_replace_one_another, "holds no part"),
    "half of the models": (cut("models", 0.5), "models.parquet cannot be read"),
    "no byte of the models": (cut("models", 0), "models.parquet cannot be read"),
    "half of the layers": (cut("layers", 0.5), "layers.parquet cannot be read"),
    "most of the errors": (cut("stored_errors", 0.9), "stored_errors.parquet cannot be read"),
    "ten gigabytes of nothing": (stretched, "layers.parquet cannot be read"),
    "pages written over": (written_over, "cannot be read"),
    "text for models": (text("models"), "models.parquet cannot be read"),
    "text for errors": (text("stored_errors"), "stored_errors.parquet cannot be read"),
    "layers without depth": (
        as_query(last, "layers", "select * exclude (depth) from this"),
        "layers.parquet has other columns",
    ),
    "depth is text": (
        as_query(last, "layers", "select * replace ('x' as depth) from this"),
        "layers.parquet has other columns",
    ),
    "a measure is text": (
        as_query(last, "layers", "select * replace ('x' as kurtosis) from this"),
        "layers.parquet has other columns",
    ),
    "keys lose their last digits": (
        as_query(first, "models", "select * replace (model_id::double as model_id) from this"),
        "models.parquet has other columns",
    ),
    "the first part without a column": (
        as_query(first, "stored_errors", "select * exclude (scheme) from this"),
        "stored_errors.parquet has other columns",
    ),
    "another part without a column": (
        as_query(last, "stored_errors", "select * exclude (scheme) from this"),
        "stored_errors.parquet cannot be read",
    ),
    "a column of another part is text": (
        as_query(last, "models", "select * replace ('x' as weight_count) from this"),
        "models.parquet cannot be read",
    ),
    "more models than anybody has": (
        as_query(last, "models", "select * exclude (range) from this, range(1_200_000)"),
        "more than 1,000,000",
    ),
}


def views_of_somebody_else(folder: Path) -> None:
    """A file of views that names other files, and never ends; nothing of ours may open it."""
    views = folder / "published.duckdb"
    views.unlink()
    with duckdb.connect(views) as connection:
        connection.execute("create view store_info as from read_text('/etc/passwd')")
        connection.execute(
            "create view models as select 'forged' as model from range(1e15::bigint)"
        )


def views_are_no_database(folder: Path) -> None:
    (folder / "published.duckdb").write_text("forged")


def surroundings(folder: Path) -> None:
    """What file systems and people leave about."""
    (folder / ".DS_Store").write_text("x")
    (folder / "notes.txt").write_text("x")
    (last(folder) / ".nfs0001").write_text("x")
    (folder / ".part.quantstore-abcdefgh" / "part").mkdir(parents=True)


# They change nothing of what a reader sees.
HARMLESS: dict[str, Spoil] = {
    "views of somebody else": views_of_somebody_else,
    "views that are no database": views_are_no_database,
    "other files": surroundings,
}
