"""How far the probe can be trusted: its figures beside those on real inputs, model by model.

``python bench/probe.py [MODEL...]`` runs the example models and those of ../shared/models, or those
named, on what they were made for: the photographs of ../shared/images, squashed to the input and
prepared as each network wants it; scikit-learn's digits; and for two networks something made up
(speech from a formant synthesizer, the bytes of the article). It writes ``results/probe.json`` and
prints the tables of docs/method.md, section 8. Takes about five minutes.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
from PIL import Image

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from quantstore.pipeline.files import demo_paths  # noqa: E402
from quantstore.run import noise, points, twin  # noqa: E402
from quantstore.run.comparison import Reference  # noqa: E402
from quantstore.run.plan import PLAN  # noqa: E402
from quantstore.run.probe_figures import (  # noqa: E402
    CALIBRATION_SEED,
    EXACT_DB,
    TEST_SEED,
    WEIGHTS_SEED,
    accepted_inputs,
    fix_shapes,
)
from quantstore.run.runtime import Feeds, Session, quantizable  # noqa: E402
from quantstore.schemes import SCHEMES  # noqa: E402
from tests.support.referees import quantize_file  # noqa: E402

SHARED = HERE.parent.parent / "shared"
RESULT = HERE / "results" / "probe.json"
# Above, on real inputs, the weights lie on the grid already or nearly: no test of a prediction.
LARGEST_TRUTH_DB = 60
BANDS_DB = (10, 20, 30)

MAKE = Callable[[tuple[noise.Input, ...], int], list[Feeds]]


@dataclass(frozen=True)
class Network:
    """A file, and how to make samples of what it was made for; ``is_real`` unless made up."""

    path: Path
    make: MAKE
    is_image: bool = True
    is_real: bool = True


def photographs(
    mean: tuple[float, ...] = (0.0,), std: tuple[float, ...] = (1.0,), *, bgr: bool = False
) -> MAKE:
    """The shared photographs in a fixed random order; for tiny inputs random crops of them."""

    def make(inputs: tuple[noise.Input, ...], count: int) -> list[Feeds]:
        (image_input,) = inputs
        _, _, height, width = image_input.shape
        files = sorted((SHARED / "images").glob("*.jpg"))
        order = np.random.default_rng(4).permutation(len(files))
        random = np.random.default_rng(5)
        samples = []
        for index in range(count):
            image = Image.open(files[order[index % len(files)]]).convert("RGB")
            if height <= noise.SMALL_SIDE:
                side = int(min(image.size) * random.uniform(0.3, 1))
                x, y = (int(random.integers(0, size - side + 1)) for size in image.size)
                image = image.crop((x, y, x + side, y + side))
            resized = image.resize((width, height), Image.Resampling.BILINEAR)
            values = (np.asarray(resized, np.float32) - mean) / std
            planes = values[..., ::-1] if bgr else values
            chw = np.ascontiguousarray(planes.transpose(2, 0, 1)[np.newaxis])
            samples.append({image_input.name: chw.astype(np.float32)})
        return samples

    return make


def digits(*, is_mnist: bool = False) -> MAKE:
    """scikit-learn's 8x8 digits; for a network made for MNIST drawn 20x20 into 28x28."""

    def make(inputs: tuple[noise.Input, ...], count: int) -> list[Feeds]:
        from sklearn.datasets import load_digits

        (image_input,) = inputs
        images = load_digits().images.astype(np.float32) / 16
        order = np.random.default_rng(1).permutation(len(images))[:count]
        return [
            {
                image_input.name: (_mnist(images[at]) if is_mnist else images[at]).reshape(
                    image_input.shape
                )
            }
            for at in order
        ]

    return make


def _mnist(digit: np.ndarray) -> np.ndarray:
    drawn = Image.fromarray((digit * 255).astype(np.uint8)).resize((20, 20))
    canvas = np.zeros((28, 28), np.float32)
    canvas[4:24, 4:24] = np.asarray(drawn, np.float32) / 255
    return (canvas - np.float32(0.1307)) / np.float32(0.3081)


def speech(inputs: tuple[noise.Input, ...], count: int) -> list[Feeds]:
    """Vowels: glottal pulses through three resonances, 576 samples at 16 kHz. Made up."""
    random = np.random.default_rng(3)
    samples = []
    for _ in range(count):
        pitch = random.uniform(90, 220)
        wave = 0.01 * random.standard_normal(2576)
        wave[:: int(16000 / pitch)] += 1
        resonances = ((random.uniform(300, 800), 80), (random.uniform(900, 2200), 100), (2700, 150))
        for frequency, width in resonances:
            radius = np.exp(-np.pi * width / 16000)
            turn = 2 * radius * np.cos(2 * np.pi * frequency / 16000)
            for at in range(2, wave.size):
                wave[at] = (1 - radius) * wave[at] + turn * wave[at - 1] - radius**2 * wave[at - 2]
        spoken = wave[2000:] * 0.3 / np.abs(wave[2000:]).max()
        feeds = {
            model_input.name: np.zeros(model_input.shape, model_input.dtype)
            for model_input in inputs
        }
        samples.append(feeds | {"input": spoken[np.newaxis].astype(np.float32)})
    return samples


def text(inputs: tuple[noise.Input, ...], count: int) -> list[Feeds]:
    """Pieces of the article, as bytes."""
    (text_input,) = inputs
    content = np.frombuffer((SHARED / "article.txt").read_bytes(), np.uint8)
    length = text_input.shape[1]
    starts = [97 * index % (content.size - length) for index in range(count)]
    return [{text_input.name: content[at : at + length].reshape(text_input.shape)} for at in starts]


IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
CIFAR = ((125.3, 123.0, 113.9), (63.0, 62.1, 66.7))


def networks() -> dict[str, Network]:
    """Every file that runs. Preprocessing is known for some, a good guess for others."""
    models = SHARED / "models"
    by_name = {path.stem: Network(path, digits()) for path in demo_paths()}
    # The same network twice, its BatchNormalization folded once.
    del by_name["digits-separable-unfolded"]
    made_for = {
        "ext-digits-dynamo/model": digits(is_mnist=True),
        "rtmdet-nano": photographs(*IMAGENET, bgr=True),
        "yolov10n-quant": photographs((0,), (255,)),
        "retinaface-mnet025": photographs((123, 117, 104), bgr=True),
        "ultraface-rfb320": photographs((127,), (128,)),
        "ppocr-v2-det": photographs(*IMAGENET, bgr=True),
        "squeezenet-winml": photographs(bgr=True),
        "maui-model": photographs(*IMAGENET),
        "mobilenetv2-12-int8": photographs(*IMAGENET),
        "vit-pgd_2_3_16": photographs(*CIFAR),
        "fasterrcnn-structure": photographs((0,), (255,)),
    }
    for name, make in made_for.items():
        by_name[name.removesuffix("/model")] = Network(models / f"{name}.onnx", make)
    for name, make in (("silero-vad", speech), ("tract-bidi-lstm", text)):
        path = models / f"{name}.onnx"
        by_name[name] = Network(path, make, is_image=False, is_real=False)
    return by_name


def compare(network: Network) -> list[dict[str, object]]:
    """Every figure of the probe, and the same on real inputs."""
    started = time.perf_counter()
    model = twin.open_float(network.path)
    for name, value in noise.frozen_inputs(model.model).items():
        twin.freeze_input(model.model, name, value)
    compared = points.cut(model.model)
    choices = list(noise.choices(model.model))
    whole = twin.to_proto(model)
    slots = twin.lift_weights(model)
    twin.weights_as_inputs(model, slots)
    session = Session(twin.to_proto(model))
    floats = {str(slot.value.name): twin.float_weights(slot) for slot in slots}
    inputs = accepted_inputs(session, choices, floats)
    calibration_count, count = noise.sample_counts(inputs)
    noise_kind = noise.spectrum_for(inputs)
    # Three photographs are few; small inputs have enough samples as it is.
    real_count = count if count > 3 else 6

    rows = []
    fed = {
        "white": noise.samples(inputs, count, seed=WEIGHTS_SEED, spectrum="white"),
        "image": noise.samples(inputs, count, seed=1, spectrum="image"),
        "real": network.make(inputs, real_count),
    }
    if not network.is_image:
        del fed["image"]
    references = {
        name: Reference(compared.names, [session.run({**floats, **feeds}) for feeds in samples])
        for name, samples in fed.items()
    }
    for scheme, mode in PLAN:
        if mode == "weights":
            rounded = {
                str(slot.value.name): twin.quantized_weights(model, slot, SCHEMES[scheme])
                for slot in slots
            }
            decibels = {
                name: references[name].median_db(
                    [session.run({**rounded, **feeds}) for feeds in samples]
                )
                for name, samples in fed.items()
            }
            probed = decibels["white"]
            rows.append({"scheme": scheme, "mode": mode, "probe_db": probed} | decibels)
    weights_seconds = time.perf_counter() - started
    del session, floats, slots, model

    real = network.make(inputs, max(12, 2 * (calibration_count + count)))
    one_set = calibration_count + count
    # Split B from the other end: with a dozen photographs the two share some.
    splits = {"real": real[:one_set], "real_b": real[-one_set:][::-1]}
    fed = {
        name: (part[:calibration_count], part[calibration_count:]) for name, part in splits.items()
    }
    for name in ("white", "image") if network.is_image else ("white",):
        fed[name] = tuple(
            noise.samples(inputs, size, seed=seed, spectrum=name)
            for size, seed in ((calibration_count, CALIBRATION_SEED), (count, TEST_SEED))
        )
    decibels_by_scheme = {scheme: {} for scheme, mode in PLAN if mode == "both"}
    with tempfile.TemporaryDirectory() as folder:
        room = Path(folder)
        fix_shapes(whole, inputs)
        source = quantizable(whole, room)
        session = Session(source)
        for name, (calibration, test) in fed.items():
            reference = Reference(
                compared.names, [session.run(feeds, compared.names) for feeds in test]
            )
            for scheme, decibels in decibels_by_scheme.items():
                target = quantize_file(
                    source,
                    room / "quantized.onnx",
                    calibration,
                    per_channel=SCHEMES[scheme].is_per_channel,
                    ranges_file=room / f"{name}.json",
                )
                quantized = Session(target)
                decibels[name] = reference.median_db(
                    [quantized.run(feeds, compared.names) for feeds in test]
                )
    for scheme, decibels in decibels_by_scheme.items():
        rows.append({"scheme": scheme, "mode": "both", "probe_db": decibels[noise_kind]} | decibels)
    seconds = time.perf_counter() - started
    facts = {
        "input_shape": noise.shapes_text(inputs),
        "compared": compared.description,
        "weights_seconds": weights_seconds,
        "seconds": seconds,
        "is_image": network.is_image,
        "is_real": network.is_real,
    }
    return [row | facts for row in rows]


def truth(frame: pd.DataFrame) -> pd.Series:
    """On real inputs; for full int8 the mean of two calibrations and tests."""
    return frame[["real", "real_b"]].mean(axis=1)


def band(db: pd.Series) -> np.ndarray:
    """0 broken, 1 at risk, 2 watch, 3 fine."""
    return np.searchsorted(BANDS_DB, db, side="right")


def agreement(frame: pd.DataFrame, column: str = "probe_db") -> dict[str, object]:
    """Spearman's correlation and errors in dB of a column against the truth."""
    real_db = truth(frame)
    usable = real_db.notna() & frame[column].notna() & (real_db < LARGEST_TRUTH_DB)
    usable &= frame[column] < EXACT_DB
    real_db, predicted = real_db[usable], frame[column][usable]
    error = (predicted - real_db).abs()
    return {
        "n": int(usable.sum()),
        "Spearman": float(predicted.rank().corr(real_db.rank())),
        "median dB": float(error.median()),
        "mean dB": float(error.mean()),
        "largest dB": float(error.max()),
        "same band": int((band(predicted) == band(real_db)).sum()),
    }


def tables(frame: pd.DataFrame) -> str:
    """The tables of docs/method.md, section 8."""
    lines = []
    titles = {key: f"{mode}, {scheme}" for key in PLAN for scheme, mode in [key]}
    for mode in ("weights", "both"):
        keys = [key for key in PLAN if key[1] == mode]
        lines += ["", f"| model | {' | '.join(scheme for scheme, _ in keys)} |"]
        lines.append(f"| --- |{' --- |' * len(keys)}")
        for model, part in frame.groupby("model", sort=False):
            cells = []
            for scheme, _ in keys:
                (row,) = part[(part["scheme"] == scheme) & (part["mode"] == mode)].to_dict(
                    "records"
                )
                real = [row["real"]] if mode == "weights" else [row["real"], row["real_b"]]
                cells.append(" / ".join(f"{db:.1f}" for db in [row["probe_db"], *real]))
            lines.append(f"| {model} | {' | '.join(cells)} |")
    lines += [
        "",
        "| figure | models | n | Spearman | median dB | mean dB | largest dB | same band |",
    ]
    lines.append("| --- |" + " --- |" * 7)
    for key in PLAN:
        scheme, mode = key
        part = frame[(frame["scheme"] == scheme) & (frame["mode"] == mode)]
        for who, chosen in (("all", part), ("image networks", part[part["is_image"]])):
            lines.append(_line(titles[key], who, agreement(chosen)))
        other_noise = "image" if mode == "weights" else "white"
        chosen = part[part["is_image"]]
        lines.append(
            _line(titles[key], f"the same with {other_noise} noise", agreement(chosen, other_noise))
        )
    return "\n".join(lines[1:])


def _line(title: str, who: str, figures: dict[str, object]) -> str:
    cells = [
        f"{figure:.2f}" if isinstance(figure, float) else str(figure) for figure in figures.values()
    ]
    return f"| {title} | {who} | {' | '.join(cells)} |"


def main() -> None:
    """Run what was asked for, write and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", help="by default all of them")
    chosen_models = parser.parse_args().models
    rows = []
    for name, network in networks().items():
        if chosen_models and name not in chosen_models:
            continue
        print(name, file=sys.stderr, flush=True)
        rows += [{"model": name} | row for row in compare(network)]
    frame = pd.DataFrame(rows).replace([np.inf, -np.inf], np.nan)
    if not chosen_models:
        content = {
            "onnxruntime": onnxruntime.__version__,
            "rows": json.loads(frame.to_json(orient="records", double_precision=3)),
        }
        RESULT.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(tables(frame))


if __name__ == "__main__":
    main()
