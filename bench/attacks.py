"""Every attack on the SQL console that we know of, each in a child process, as the page runs it.

    python bench/attacks.py [--seconds 2] [--jobs 2] [--published]

Prints how many of each kind were refused, stopped or answered, and how long the slowest took. Ends
with 1 where one reached something, left a trace, took too long or ended the process that asked.
With ``--published`` the store is a published folder, which DuckDB may read: the same attacks, those
on this door, and folders that somebody spoiled before a command opens them.
"""

import argparse
import dataclasses
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from quantstore import store
from quantstore.console import statement
from quantstore.console.answer import out_of_memory
from quantstore.errors import RejectedQueryError
from quantstore.pipeline.files import demo_paths
from quantstore.pipeline.ingest import ingest_file
from quantstore.pipeline.outcome import IngestChoices
from quantstore.wording import tables

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.support import hostile, hostile_folders

SECRET = "3b1f-what-no-answer-may-hold"
# Beyond the time allowed: the start of Python, megabytes on their way, a busy machine.
SPARE_SECONDS = 20.0
ANSWERED, REFUSED, TOO_SLOW, TOO_LARGE, CRASHED = (
    "answered",
    "refused",
    "stopped: time",
    "stopped: memory",
    "crashed alone",
)
OUTCOMES = (REFUSED, TOO_SLOW, TOO_LARGE, CRASHED, ANSWERED)


@dataclass(frozen=True)
class Attack:
    """A statement, and what may become of it."""

    category: str
    sql: str
    allowed: tuple[str, ...]


@dataclass(frozen=True)
class Result:
    """What became of an attack; ``wrong`` says what should not have."""

    attack: Attack
    outcome: str
    seconds: float
    wrong: str


def all_attacks() -> Iterator[Attack]:
    """Every statement of ``tests/support/hostile.py``, with what may become of it."""
    for category, statements in hostile.REFUSED.items():
        for sql in statements:
            yield Attack(category, sql, (REFUSED,))
    yield from (Attack("harmless", sql, (ANSWERED,)) for sql in hostile.HARMLESS)
    stopped = (TOO_SLOW, TOO_LARGE)
    yield from (Attack("endless", sql, stopped) for sql in hostile.ENDLESS)
    yield from (Attack("greedy", sql, (REFUSED, *stopped)) for sql in hostile.GREEDY)
    yield from (Attack("monstrous", sql, OUTCOMES) for sql in hostile.MONSTROUS.values())
    yield from (Attack("deadly", sql, (CRASHED, *stopped)) for sql in hostile.DEADLY)


def attacks_on_a_folder() -> Iterator[Attack]:
    """The same, and those that the door of a published folder could let in."""
    for attack in all_attacks():
        if attack.sql == ABOUT_A_TABLE:
            attack = dataclasses.replace(attack, allowed=(REFUSED,))
        yield attack
    for category, statements in hostile.REFUSED_AT_A_FOLDER.items():
        yield from (Attack(category, sql, (REFUSED,)) for sql in statements)
    for sql in hostile.HARMLESS_AT_A_FOLDER:
        yield Attack("folder: harmless", sql, (ANSWERED,))


# In a folder, models is a view.
ABOUT_A_TABLE = "from pragma_storage_info('models') limit 1"


def run(attack: Attack, path: Path, seconds: float) -> Result:
    """Ask as the page asks: so many rows, so much time; and print the answer in every format."""
    sql = hostile.aimed(attack.sql, path.parent)
    sql = hostile.aimed_at_folder(sql, path, path.parent / "outside")
    started = time.monotonic()
    try:
        answer = statement.run(path, sql, row_limit=1_000, timeout_seconds=seconds)
        frame = answer.frame
        output = tables.to_table(frame) + tables.to_json(frame) + tables.to_csv(frame)
        outcome = ANSWERED
    except RejectedQueryError as error:
        output = f"{error.sentence} {error.detail}"
        outcome = outcome_of(error)
    except Exception as error:
        # No refusal at all: somebody would have seen a traceback.
        output, outcome = repr(error), "failed"
    elapsed = time.monotonic() - started
    if SECRET in output:
        wrong = "it told the secret"
    elif outcome not in attack.allowed:
        wrong = f"{outcome}: {output[:200]!r}"
    elif elapsed > seconds + SPARE_SECONDS:
        wrong = f"it took {elapsed:.1f} s"
    else:
        wrong = ""
    return Result(attack, outcome, elapsed, wrong)


def outcome_of(error: RejectedQueryError) -> str:
    """Which of the ends a refusal stands for."""
    text = str(error)
    if text.startswith("the query was stopped after"):
        return TOO_SLOW
    if text == str(out_of_memory()) or text.startswith("the answer is larger than"):
        return TOO_LARGE
    return CRASHED if "crashed" in text else REFUSED


def fingerprint(folder: Path) -> dict[str, str]:
    """What every file of a folder holds."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


def main() -> int:
    """Attack a store of the example models, with a secret beside it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="time for each statement")
    parser.add_argument("--jobs", type=int, default=2, help="statements at the same time")
    parser.add_argument("--only", help="one kind of attack")
    parser.add_argument("--published", action="store_true", help="attack a published folder")
    options = parser.parse_args()
    os.environ["QUANTSTORE_TEST_SECRET"] = SECRET
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        path = folder / "store.duckdb"
        for model in demo_paths():
            ingest_file(model, path, IngestChoices(probe=False))
        (folder / "secret.csv").write_text(SECRET)
        if not options.published:
            return report(folder, path, all_attacks(), options)
        shared = folder / "shared"
        for tag in ("former", "latter"):
            with store.writing(path) as connection:
                store.set_tags(connection, "digits-plain", [tag])
            store.publish(path, shared)
        spoilt = [] if options.only else open_spoilt(shared, options.jobs)
        hostile.lay_links(shared, folder / "outside", SECRET)
        return report(folder, shared, attacks_on_a_folder(), options) or bool(spoilt)


# Of every row that a page shows something.
QUESTION = """
    select model, models.weight_count, tags, layer, scheme, channel_sqnr_p10_db, kurtosis
    from stored_errors join layers using (layer_id) join models using (model_id) order by all
"""


def open_spoilt(shared: Path, jobs: int) -> list[str]:
    """Ask copies of a folder that somebody spoiled; prints and returns what went wrong."""

    def ask(folder: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "quantstore", "sql", QUESTION, "--format", "csv"]
        return subprocess.run(
            [*command, "--db", str(folder)], capture_output=True, text=True, check=False
        )

    sound = ask(shared)

    def judge(name: str) -> str:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "shared"
            shutil.copytree(shared, folder)
            if name in hostile_folders.HARMLESS:
                hostile_folders.HARMLESS[name](folder)
                done = ask(folder)
                is_right = (done.returncode, done.stdout) == (0, sound.stdout)
            else:
                spoil, words = hostile_folders.SPOILT[name]
                spoil(folder)
                done = ask(folder)
                is_sentence = len(done.stderr.strip().splitlines()) == 1 and words in done.stderr
                is_right = (done.returncode, done.stdout, is_sentence) == (3, "", True)
        return "" if is_right else f"{name}: {done.returncode} {done.stdout[:80]!r} {done.stderr!r}"

    names = [*hostile_folders.SPOILT, *hostile_folders.HARMLESS]
    with ThreadPoolExecutor(jobs) as pool:
        wrong = [*filter(None, pool.map(judge, names))]
    print(
        f"{len(names) - len(wrong)} of {len(names)} spoilt folders: one sentence, or no difference"
    )
    for line in wrong:
        print(f"WRONG: {line}")
    return wrong


def report(folder: Path, path: Path, attacks: Iterator[Attack], options: argparse.Namespace) -> int:
    """Run the attacks, print the table; returns the exit code."""
    before = fingerprint(folder)
    chosen = [attack for attack in attacks if options.only in (None, attack.category)]
    with ThreadPoolExecutor(options.jobs) as pool:
        results = list(pool.map(lambda attack: run(attack, path, options.seconds), chosen))
    categories = list(dict.fromkeys(attack.category for attack in chosen))
    print(f"{'kind':28}{'attacks':>8}{''.join(f'{name:>17}' for name in OUTCOMES)}{'slowest':>10}")
    for category in [*categories, "all"]:
        of_category = [result for result in results if category in ("all", result.attack.category)]
        counts = Counter(result.outcome for result in of_category)
        numbers = "".join(f"{counts[name] or '':>17}" for name in OUTCOMES)
        slowest = max(result.seconds for result in of_category)
        print(f"{category:28}{len(of_category):>8}{numbers}{slowest:>8.1f} s")
    wrong = [
        f"{result.attack.category}: {result.attack.sql[:120]!r}: {result.wrong}"
        for result in results
        if result.wrong
    ]
    if fingerprint(folder) != before:
        wrong.append("the folder of the store is not as it was")
    alive = statement.run(path, "select count(*) from models", row_limit=1, timeout_seconds=30)
    if alive.table.column(0).to_pylist() != [4]:
        wrong.append("the store does not answer as it did")
    for line in wrong:
        print(f"WRONG: {line}")
    if not wrong:
        print("the process that asked is alive; the store and its folder are as they were")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
