"""Damaged models by the thousand: each must end in a stored model or in one sentence.

    python bench/fuzz.py                  20,000 cases, seed 1
    python bench/fuzz.py --cases 500 --seed 7
    python bench/fuzz.py --store-every 10   the others are read to the last weight, not measured

The example models and the small ones that the onnx package brings are damaged at random: bits
flipped, ends cut off, pieces moved from one file into another, fields of the parsed message set to
what no exporter writes. Cases run in a child process with a limit on memory and an alarm for each
case; whatever ends the child, it is started again behind the case that did. A case is given by its
seed and number, so that a failure can be repeated: ``--first NUMBER --cases 1``.
"""

import argparse
import collections
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError, Message

from quantstore import graph, store
from quantstore.errors import QuantstoreError
from quantstore.layer import Layer
from quantstore.numerics.sweep import FULL_PLAN, SweepPlan
from quantstore.pipeline.files import demo_paths
from quantstore.pipeline.ingest import ingest_file
from quantstore.pipeline.outcome import IngestChoices
from quantstore.run.probe import Prober
from quantstore.schemes import INT8_SCHEMES, SCHEMES

MEMORY_BYTES = 3 << 30
# Of the processor: other programs may be at work, too.
CASE_SECONDS = 20
# Everything is measured in one case of so many; in the others four schemes do.
FULL_EVERY = 25
LIGHT_PLAN = SweepPlan({name: SCHEMES[name] for name in INT8_SCHEMES}, is_full=False)
CHECK_EVERY = 250
SMALL_BYTES = 100_000

# Numbers that no exporter writes.
NUMBERS = (
    *(-1, 0, 1, 2, 3, 4, 7, 8, 16, 127, 128, 255, 256, 1000),
    *(2**31 - 1, -(2**31), 2**32, 2**62, 2**63 - 1, -(2**63)),
)
WORDS = (
    *("", "x", "y", "w", "\0", "\n", "\x1b[2J", "../w", "/dev/zero", "ai.onnx", "com.microsoft"),
    *("Conv", "Gemm", "MatMul", "LSTM", "Gather", "Einsum", "If", "Loop", "Constant", "Identity"),
    *("DequantizeLinear", "BatchNormalization", "Concat", "ConstantOfShape", "a" * 10_000),
)


GOOD = ("stored", "already stored", "read", "refused")


@dataclass(frozen=True, slots=True)
class Case:
    """What became of one damaged model."""

    number: int
    outcome: str
    seconds: float
    detail: str = ""

    @property
    def is_failure(self) -> bool:
        return self.outcome not in GOOD


def corpus() -> list[bytes]:
    """The models that are damaged: the examples, and small ones from the onnx package."""
    models = [path.read_bytes() for path in demo_paths()]
    folder = Path(onnx.__file__).parent / "backend/test/data"
    for path in sorted(folder.rglob("*.onnx")):
        content = path.read_bytes()
        names = (b"Conv", b"Gemm", b"MatMul", b"LSTM", b"Gather", b"Linear", b"Loop", b"If")
        if len(content) < SMALL_BYTES and any(name in content for name in names):
            models.append(content)
    return models


def damaged(models: Sequence[bytes], seed: int, number: int) -> bytes:
    """The model of one case."""
    rng = random.Random(f"{seed} {number}")
    # One in two is an example: they have what a real network has.
    examples = len(demo_paths())
    content = rng.choice(models[:examples] if rng.random() < 0.5 else models)
    ways = (flipped, flipped, cut, spliced, doubled, *[rewritten] * 8)
    for _ in range(rng.choice((1, 1, 2, 3))):
        content = rng.choice(ways)(content, models, rng)
    return content


def flipped(content: bytes, models: Sequence[bytes], rng: random.Random) -> bytes:
    """Some bits turned, mostly where no weights are."""
    changed = bytearray(content)
    bounds = list(_structure(content)) or [(0, len(content))]
    for _ in range(rng.choice((1, 1, 2, 4, 16)) if changed else 0):
        low, high = rng.choice(bounds) if rng.random() < 0.9 else (0, len(changed))
        changed[rng.randrange(low, high)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cut(content: bytes, models: Sequence[bytes], rng: random.Random) -> bytes:
    """The end, the start, or a piece in the middle is missing."""
    if not content:
        return content
    low, high = sorted((rng.randrange(len(content)), rng.randrange(len(content))))
    return rng.choice((content[:low], content[high:], content[:low] + content[high:]))


def spliced(content: bytes, models: Sequence[bytes], rng: random.Random) -> bytes:
    """A piece of another model, in place of what was there or between it."""
    donor = rng.choice(models)
    start = rng.randrange(len(donor))
    piece = donor[start : start + rng.choice((1, 4, 16, 64, 1024))]
    position = rng.randrange(len(content) + 1)
    return content[:position] + piece + content[position + rng.choice((0, len(piece))) :]


def doubled(content: bytes, models: Sequence[bytes], rng: random.Random) -> bytes:
    """A piece occurs twice. A whole model behind another is one message of both."""
    if rng.random() < 0.3:
        return content + rng.choice(models)
    low, high = sorted((rng.randrange(len(content) + 1), rng.randrange(len(content) + 1)))
    return content[:high] + content[low:]


def rewritten(content: bytes, models: Sequence[bytes], rng: random.Random) -> bytes:
    """Fields of the message hold what nobody expects; still a message."""
    try:
        model = onnx.load_model_from_string(content)
        donor = onnx.load_model_from_string(rng.choice(models))
    except DecodeError:
        return content
    messages = list(_messages(model))
    for _ in range(rng.choice((1, 2, 5))):
        _rewrite(rng.choice(messages), messages, list(_messages(donor)), rng)
    try:
        return model.SerializeToString()
    except (ValueError, DecodeError):
        # A message inside itself, deeper than protobuf allows.
        return content


def _structure(content: bytes) -> Iterator[tuple[int, int]]:
    """Where a file holds something else than weights."""
    try:
        model = onnx.load_model_from_string(content)
    except DecodeError:
        return
    end = 0
    for tensor in model.graph.initializer:
        if len(tensor.raw_data) > 64:
            position = content.find(tensor.raw_data, end)
            if position > end:
                yield end, position
            end = max(end, position + len(tensor.raw_data))
    if end < len(content):
        yield end, len(content)


def _messages(message: Message) -> Iterator[Message]:
    waiting = [message]
    while waiting:
        current = waiting.pop()
        yield current
        for _, value in current.ListFields():
            if isinstance(value, Message):
                waiting.append(value)
            elif not isinstance(value, str | bytes | int | float) and len(value):
                waiting.extend(part for part in value if isinstance(part, Message))


def _rewrite(
    target: Message,
    own_messages: Sequence[Message],
    donor_messages: Sequence[Message],
    rng: random.Random,
) -> None:
    field = rng.choice(target.DESCRIPTOR.fields)
    try:
        value = getattr(target, field.name)
        if field.message_type is not None:
            alike = [
                message
                for message in (
                    *rng.sample(own_messages, min(50, len(own_messages))),
                    *donor_messages,
                )
                if message.DESCRIPTOR is field.message_type
            ]
            if field.is_repeated:
                _shuffle(value, alike, rng)
            elif alike:
                value.CopyFrom(_copy(rng.choice(alike)))
            else:
                value.SetInParent()
            return
        new = _scalar(field, rng)
        if not field.is_repeated:
            setattr(target, field.name, new)
        elif rng.random() < 0.3 and len(value):
            del value[rng.randrange(len(value))]
        elif rng.random() < 0.7 and len(value):
            value[rng.randrange(len(value))] = new
        else:
            value.append(new)
    except (ValueError, TypeError, DecodeError, OverflowError):
        # A number that does not fit the field.
        return


def _shuffle(value: "list[Message]", alike: Sequence[Message], rng: random.Random) -> None:
    if len(value) and rng.random() < 0.3:
        del value[rng.randrange(len(value))]
    elif len(value) > 1 and rng.random() < 0.4:
        first, second = rng.sample(range(len(value)), 2)
        value[first].CopyFrom(_copy(value[second]))
    elif alike:
        value.append(_copy(rng.choice(alike)))


def _copy(message: Message) -> Message:
    """A message of its own: protobuf crashes where one is copied into its own inside."""
    duplicate = type(message)()
    duplicate.CopyFrom(message)
    return duplicate


def _scalar(field: object, rng: random.Random) -> object:
    cpp_type = field.cpp_type  # type: ignore[attr-defined]
    if cpp_type == field.CPPTYPE_STRING:  # type: ignore[attr-defined]
        word = rng.choice(WORDS)
        is_bytes = field.type == field.TYPE_BYTES  # type: ignore[attr-defined]
        return rng.randbytes(rng.choice((0, 1, 4, 100))) if is_bytes else word
    if cpp_type in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):  # type: ignore[attr-defined]
        return rng.choice((0.0, -1.0, 1e38, 1e-45, float("nan"), float("inf")))
    if cpp_type == field.CPPTYPE_ENUM:  # type: ignore[attr-defined]
        return rng.randrange(-1, 30)
    return rng.choice(NUMBERS)


class _TooLong(BaseException):
    """Not an Exception: nothing that is tried may swallow it."""


def _alarm(*_: object) -> None:
    raise _TooLong


def read(path: Path) -> None:
    """Everything short of measuring: every weight, every pair, every finding."""
    file = graph.open_model(path)
    survey = graph.survey(file)
    sites, left_out = graph.within_limits(survey.sites)
    for site in sites:
        layer = graph.read_or_reason(file, site)
        if isinstance(layer, Layer):
            low, high = (
                pick(np.nan_to_num(layer.weights), axis=1).astype(float)
                for pick in (np.min, np.max)
            )
            graph.of_layer(
                site,
                layer,
                channel_min=low,
                channel_max=high,
                nonfinite_count=0,
                fold=True,
            )
    graph.find_pairs(file, list(sites), fold=True)
    graph.of_model(file, survey.unread, left_out, fold=True)


def run(
    models: Sequence[bytes],
    seed: int,
    number: int,
    folder: Path,
    *,
    is_stored: bool = True,
    prober: Prober | None = None,
) -> Case:
    """Damage one model and ingest it into the store in a folder, or only read it.

    Args:
        prober: the process that runs it; by default a new one, which takes a second to start.
    """
    path = folder / f"case{number}.onnx"
    path.write_bytes(damaged(models, seed, number))
    plan = FULL_PLAN if number % FULL_EVERY == 0 else LIGHT_PLAN
    started = time.monotonic()
    signal.signal(signal.SIGPROF, _alarm)
    signal.setitimer(signal.ITIMER_PROF, CASE_SECONDS)
    try:
        outcome, detail = "read", ""
        if is_stored:
            choices = IngestChoices(jobs=1, plan=plan)
            done = ingest_file(path, folder / "store.duckdb", choices, prober=prober)
            outcome = str(done.outcome)
        else:
            read(path)
    except QuantstoreError as error:
        outcome, detail = "refused", error.sentence
        if not (detail and detail.isprintable() and len(detail) < 2_000):
            outcome = "no sentence"
    except _TooLong:
        outcome, detail = "too long", traceback.format_exc(limit=-6)
    except Exception:
        outcome, detail = "traceback", traceback.format_exc(limit=-6)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        path.unlink()
    return Case(number, outcome, time.monotonic() - started, detail)


def damage_of_store(path: Path, stored: int) -> str:
    """What is wrong with a store after so many models, empty where nothing is."""
    with store.reading(path) as connection:
        models = connection.value("select count(*) from models")
        # A child without its parent, or a model without a layer.
        orphans = connection.value(
            """
            select
                (select count(*) from layers anti join models using (model_id))
                + (select count(*) from errors anti join layers using (layer_id))
                + (select count(*) from channels anti join layers using (layer_id))
                + (select count(*) from findings anti join models using (model_id))
                + (select count(*) from models anti join layers using (model_id))
                + (
                    select count(*) from models
                    where layer_count <> (
                        select count(*) from layers where layers.model_id = models.model_id
                    )
                )
            """
        )
    if models != stored:
        return f"the store holds {models} models instead of {stored}"
    return f"{orphans} rows without their other half" if orphans else ""


def _child(seed: int, first: int, cases: int, store_every: int, folder: Path) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    models = corpus()
    stored = 0
    for number in range(first, first + cases):
        print(json.dumps({"start": number}), flush=True)
        case = run(models, seed, number, folder, is_stored=number % store_every == 0)
        stored += case.outcome == "stored"
        line = {"case": [case.number, case.outcome, case.seconds, case.detail]}
        print(json.dumps(line), flush=True)
        if (number - first) % CHECK_EVERY == CHECK_EVERY - 1 or number == first + cases - 1:
            wrong = damage_of_store(folder / "store.duckdb", stored) if stored else ""
            if wrong:
                print(json.dumps({"case": [number, "store damaged", 0, wrong]}), flush=True)
            # A store of its own for the next ones: a large one would slow them down.
            (folder / "store.duckdb").unlink(missing_ok=True)
            stored = 0


def fuzz(seed: int, first: int, cases: int, store_every: int = 1) -> Iterator[Case]:
    """Every case, in child processes with limits; one that ends its process is a ``crash``."""
    end = first + cases
    while first < end:
        # In memory, where there is such a place: a store waits for the disk at every commit.
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        with tempfile.TemporaryDirectory(prefix="quantstore-fuzz-", dir=memory) as folder:
            command = [sys.executable, "-P", __file__, "--child", folder]
            options = ["--seed", str(seed), "--first", str(first), "--cases", str(end - first)]
            options += ["--store-every", str(store_every)]
            path = os.pathsep.join(filter(None, sys.path))
            started = first
            with subprocess.Popen(
                [*command, *options],
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": path, "ONNX_IR_LOG": "error"},
            ) as process:
                for line in process.stdout or ():
                    try:
                        message = json.loads(line)
                    except json.JSONDecodeError:
                        continue
                    if "start" in message:
                        started = message["start"]
                    else:
                        first = message["case"][0] + 1
                        yield Case(*message["case"])
            if first < end:
                yield Case(started, "crash", 0, f"the child ended with {process.returncode}")
                first = started + 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the cases; exit code 1 where one ended badly."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--store-every", type=int, default=1)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        import logging

        logging.disable()
        _child(options.seed, options.first, options.cases, options.store_every, options.child)
        return 0
    started, slowest = time.monotonic(), 0.0
    outcomes: collections.Counter[str] = collections.Counter()
    sentences: collections.Counter[str] = collections.Counter()
    for case in fuzz(options.seed, options.first, options.cases, options.store_every):
        outcomes[case.outcome] += 1
        slowest = max(slowest, case.seconds)
        if case.outcome == "refused":
            sentences[case.detail.split("(")[0].split("'")[0][:60]] += 1
        if case.is_failure:
            print(f"case {case.number}: {case.outcome}\n{case.detail}", flush=True)
        if sum(outcomes.values()) % 1000 == 0:
            print(f"{time.monotonic() - started:6.0f} s {dict(outcomes)}", flush=True)
    for sentence, times in sentences.most_common(25):
        print(f"{times:6} {sentence}")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"seed {options.seed}: {options.cases} cases in {time.monotonic() - started:.0f} s")
    print(f"{dict(outcomes)}; slowest {slowest:.1f} s; peak {peak:.0f} MB")
    return 1 if set(outcomes) - set(GOOD) else 0


if __name__ == "__main__":
    raise SystemExit(main())
