"""Many at once on one store, for minutes: nothing lost, nothing doubled, no error for a person.

    python bench/stress.py                  two minutes
    python bench/stress.py --minutes 10

Two processes read as the app does, each with two threads that ask what a page asks; a third keeps
the store open now and then, as a notebook does; three ``quantstore ingest`` of folders write, again
and again, with models of their own and some that all three have. In the end every file that was
ingested is in the store exactly once, whole, and every attempt has its row in ``ingests``.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from kill import small_models

from quantstore import queries, store
from quantstore.errors import QuantstoreError

INGESTS = 3
# Of the models of each folder, so many are in the other two as well.
OWN_MODELS, SHARED_MODELS = 3, 2
# As the app's pages wait.
PAGE_PATIENCE_SECONDS = 10.0
NOTEBOOK_SECONDS = 1.0


def read(path: Path, until: float, is_notebook: bool) -> None:
    """Ask again and again until a time; what it came to is JSON on standard output."""
    waits: list[float] = []
    errors: list[str] = []
    lock = threading.Lock()

    def ask() -> None:
        seen = 0
        while time.time() < until:
            started = time.monotonic()
            try:
                with store.reading(path, PAGE_PATIENCE_SECONDS) as connection:
                    waited = time.monotonic() - started
                    models = queries.models(connection)
                    connection.frame("from verdicts")
                    torn = connection.value(
                        "select count(*) from models where layer_count !="
                        " (select count(*) from layers where layers.model_id = models.model_id)"
                    )
                    if is_notebook:
                        time.sleep(NOTEBOOK_SECONDS)
                with lock:
                    waits.append(waited)
                    if torn or len(models) < seen:
                        errors.append(f"{torn} torn models; {len(models)} models after {seen}")
                seen = len(models)
            except QuantstoreError as error:
                with lock:
                    errors.append(error.sentence)
            # Somebody looks at the page before the next click.
            time.sleep(3.0 if is_notebook else 0.2)

    threads = [threading.Thread(target=ask) for _ in range(1 if is_notebook else 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps({"waits": waits, "errors": errors}))


def write(number: int, folder: Path, path: Path, models: list[Path], until: float) -> list[dict]:
    """Ingest folder after folder until a time; returns what became of each file."""
    shared, own_models = models[:SHARED_MODELS], models[SHARED_MODELS + number :: INGESTS]
    results: list[dict] = []
    turn = 0
    while time.time() < until and own_models[turn * OWN_MODELS :]:
        turn_folder = folder / f"{number}-{turn}"
        turn_folder.mkdir()
        for model in (*shared, *own_models[turn * OWN_MODELS : (turn + 1) * OWN_MODELS]):
            shutil.copy(model, turn_folder / f"{model.stem}.onnx")
        # Half of them measure in worker processes.
        jobs = str(1 + turn % 2)
        log = folder / f"{number}.log"
        command = [
            sys.executable,
            "-m",
            "quantstore",
            "ingest",
            str(turn_folder),
            "--db",
            str(path),
        ]
        done = subprocess.run(
            [*command, "--no-probe", "--json", "--jobs", jobs, "--log-file", str(log)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            results.append({"outcome": f"exit {done.returncode}", "error": done.stderr.strip()})
        results += json.loads(done.stdout or "[]")
        turn += 1
    return results


def main() -> int:
    """Run, print counts, say what went wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--read", nargs=3, metavar=("STORE", "UNTIL", "HOW"), help="internal")
    arguments = parser.parse_args()
    if arguments.read:
        path, until, reader_role = arguments.read
        read(Path(path), float(until), reader_role == "notebook")
        return 0
    with tempfile.TemporaryDirectory(prefix="quantstore-stress-") as name:
        return stress(Path(name), arguments.minutes)


def stress(folder: Path, minutes: float) -> int:
    """Everybody at once; 1 where something is lost, doubled, torn or refused."""
    path = folder / "store.duckdb"
    # No machine gets through more.
    models = small_models(folder, SHARED_MODELS + INGESTS * OWN_MODELS * int(20 * minutes + 1))
    until = time.time() + 60 * minutes
    script = [sys.executable, __file__, "--read", str(path), str(until)]
    written: list[list[dict]] = [[] for _ in range(INGESTS)]

    def keep_writing(number: int) -> None:
        written[number] = write(number, folder, path, models, until)

    writers = [threading.Thread(target=keep_writing, args=[n]) for n in range(INGESTS)]
    for writer in writers:
        writer.start()
    while not path.exists():
        time.sleep(0.05)
    readers = [
        subprocess.Popen([*script, reader_role], stdout=subprocess.PIPE, text=True)
        for reader_role in ("app", "app", "notebook")
    ]
    reports = [json.loads(reader.communicate()[0]) for reader in readers]
    for writer in writers:
        writer.join()
    return report(folder, path, [row for rows in written for row in rows], reports)


def report(folder: Path, path: Path, results: list[dict], reports: list[dict]) -> int:
    """Print what became of everything; 1 where something is wrong."""
    outcomes = Counter(result["outcome"] for result in results)
    files = {Path(result["path"]).stem for result in results if "path" in result}
    with store.reading(path) as connection:
        names = [name for (name,) in connection.rows("select model from models")]
        doubled = connection.value("select count(*) - count(distinct sha256) from models")
        torn = connection.value(
            "select count(*) from models where layer_count * (select count(*) from schemes) !="
            " (select count(*) from errors join layers using (layer_id)"
            " where layers.model_id = models.model_id)"
        )
        attempts = connection.value("select count(*) from ingests")
    opened = re.compile(r"opened \S+ for writing after (\S+) s")
    logs = "".join(log.read_text() for log in folder.glob("*.log"))
    write_waits = [float(seconds) for seconds in opened.findall(logs)]
    held = re.compile(r"closed \S+, which was open for (\S+) s")
    holds = sorted(float(seconds) for seconds in held.findall(logs))
    waits = sorted(wait for reader_report in reports for wait in reader_report["waits"])
    errors = [error for reader_report in reports for error in reader_report["errors"]]
    errors += [result["error"] for result in results if result.get("error")]
    problems = {
        "lost": len(files - set(names)),
        "doubled": doubled + len(names) - len(set(names)),
        "torn": torn,
        "errors": len(errors),
        "attempts without a row": len(results) - attempts,
    }
    print(f"ingests: {dict(outcomes)} of {len(files)} files; {len(names)} models in the store")
    print(
        f"reads: {len(waits)}, waiting median {waits[len(waits) // 2]:.3f} s,"
        f" 99 % {waits[int(0.99 * len(waits))]:.3f} s, worst {waits[-1]:.3f} s"
    )
    print(
        f"writes: {len(write_waits)}, waiting worst {max(write_waits):.3f} s;"
        f" open for {holds[len(holds) // 2]:.3f} s (median), {holds[-1]:.3f} s (worst)"
    )
    print(", ".join(f"{problem}: {count}" for problem, count in problems.items()))
    for error, count in Counter(errors).items():
        print(f"{count} times: {error}", file=sys.stderr)
    return 1 if any(problems.values()) else 0


if __name__ == "__main__":
    raise SystemExit(main())
