"""How far the probe can be trusted: its figures beside those on real inputs, model by model.

``python bench/probe.py [MODEL...]`` runs the example models and those of ../shared/models, or those
named, on what they were made for: the photographs of ../shared/images, squashed to the input and
prepared as each network wants it; scikit-learn's digits; and for two networks something made up
(speech from a formant synthesizer, the bytes of the article). It writes ``results/probe.json`` and,
where asked, the tables of docs/method.md, section 8. Takes about three minutes.

The inputs of images are a choice: 1/f noise, drawn scenes, or both in turn. Networks are split into
two folds by name. What has the smallest mean error on one fold is judged on the other, so that no
network is judged by a choice that it had a part in. Twice: once ranges are found and outputs
compared on noise of one kind, as it is on real inputs; once they may differ.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
from PIL import Image

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))

from quantstore.pipeline.files import demo_paths  # noqa: E402
from quantstore.run import noise, pictures, points, states, twin  # noqa: E402
from quantstore.run.comparison import sqnr_db  # noqa: E402
from quantstore.run.emulator import Emulator  # noqa: E402
from quantstore.run.inputs import Samples  # noqa: E402
from quantstore.run.network import Network  # noqa: E402
from quantstore.run.placement import Placement, placement  # noqa: E402
from quantstore.run.plans import Planner, Rounding  # noqa: E402
from quantstore.run.probe_figures import (  # noqa: E402
    CALIBRATION_SEED,
    EXACT_DB,
    TEST_SEED,
    prepared,
)
from quantstore.run.ranges import observe  # noqa: E402
from quantstore.run.runtime import Feeds  # noqa: E402
from quantstore.schemes import SCHEMES, TARGETS  # noqa: E402

SHARED = Path(os.environ.get("QUANTSTORE_SHARED", ROOT.parent / "shared"))
RESULT = HERE / "results" / "probe.json"
METHOD = ROOT / "docs" / "method.md"
START, END = "<!-- bench-probe -->", "<!-- end of bench-probe -->"
# Above, on real inputs, the weights lie on the grid already or nearly: no test of a prediction.
LARGEST_TRUTH_DB = 60
BANDS_DB = (10, 20, 30)
# Beyond this, a prediction is named.
MISS_DB = 3.0
PHOTOGRAPHS = 12
WEIGHTS = ("int8_tensor_symmetric", "int8_channel_symmetric")
FULL = ("int8_tensor", "int8_channel", "int8_channel_fused")
FIGURES = (*(f"weights {scheme}" for scheme in WEIGHTS), *FULL)
# Images alone have a choice; the probe draws scenes.
KINDS = ("1/f", "scenes", "both")
OWN = "scenes -> scenes"

Make = Callable[[tuple[noise.Input, ...], int], list[Feeds]]


@dataclass(frozen=True)
class Subject:
    """A file, and how to make samples of what it was made for; ``is_real`` unless made up."""

    path: Path
    make: Make
    is_image: bool = True
    is_real: bool = True


def photographs(
    mean: tuple[float, ...] = (0.0,), std: tuple[float, ...] = (1.0,), *, bgr: bool = False
) -> Make:
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


def digits(*, is_mnist: bool = False) -> Make:
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
    """Vowels that follow one another: pulses through three resonances, at 16 kHz. Made up."""
    random = np.random.default_rng(3)
    sound = next(model_input for model_input in inputs if model_input.content == "sound")
    length = sound.shape[-1]
    wave = np.concatenate([_spoken(random, 12 * length) for _ in range(-(-count // 12))])
    at_rest = {
        model_input.name: np.zeros(model_input.shape, model_input.dtype) for model_input in inputs
    }
    return [
        at_rest
        | {sound.name: wave[index * length :][:length].reshape(sound.shape).astype(np.float32)}
        for index in range(count)
    ]


def _spoken(random: np.random.Generator, length: int) -> np.ndarray:
    wave = 0.01 * random.standard_normal(length + 2000)
    wave[:: int(16000 / random.uniform(90, 220))] += 1
    resonances = ((random.uniform(300, 800), 80), (random.uniform(900, 2200), 100), (2700, 150))
    for frequency, width in resonances:
        radius = np.exp(-np.pi * width / 16000)
        turn = 2 * radius * np.cos(2 * np.pi * frequency / 16000)
        for at in range(2, wave.size):
            wave[at] = (1 - radius) * wave[at] + turn * wave[at - 1] - radius**2 * wave[at - 2]
    return wave[2000:] * 0.3 / np.abs(wave[2000:]).max()


def text(inputs: tuple[noise.Input, ...], count: int) -> list[Feeds]:
    """Pieces of the article, as bytes."""
    (text_input,) = inputs
    content = np.frombuffer((SHARED / "article.txt").read_bytes(), np.uint8)
    length = text_input.shape[1]
    starts = [97 * index % (content.size - length) for index in range(count)]
    return [{text_input.name: content[at : at + length].reshape(text_input.shape)} for at in starts]


IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
CIFAR = ((125.3, 123.0, 113.9), (63.0, 62.1, 66.7))


def subjects() -> dict[str, Subject]:
    """Every file that runs. Preprocessing is known for some, a good guess for others."""
    models = SHARED / "models"
    by_name = {path.stem: Subject(path, digits()) for path in demo_paths()}
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
        by_name[name.removesuffix("/model")] = Subject(models / f"{name}.onnx", make)
    for name, make in (("silero-vad", speech), ("tract-bidi-lstm", text)):
        path = models / f"{name}.onnx"
        by_name[name] = Subject(path, make, is_image=False, is_real=False)
    return by_name


def fold_of(name: str) -> int:
    """0 or 1: in turn, by the alphabet, the image networks among themselves."""
    images = sorted(name for name, subject in subjects().items() if subject.is_image)
    return images.index(name) % 2


def drawn(kind: str, inputs: tuple[noise.Input, ...], count: int, seed: int) -> list[Feeds]:
    """Scenes, as the probe draws them; 1/f noise in their place; or both in turn."""
    samples = noise.samples(inputs, count, seed=seed)
    random = np.random.default_rng([seed, 1])
    for index in range(0, count, 1 if kind == "1/f" else 2) if kind != "scenes" else ():
        for one in inputs:
            if one.content == "image":
                field = pictures.one_over_f(random, *one.shape[1:])
                scaled = one.scale.applied(field)[np.newaxis].astype(one.dtype)
                samples[index] = {**samples[index], one.name: scaled}
    return samples


class Bench:
    """One network, run under every figure on any samples."""

    def __init__(self, network: Network, folder: Path) -> None:
        self._network, self._folder = network, folder
        self._placements: dict[str, Placement] = {
            name: placement(network, TARGETS[name]) for name in FULL
        }
        self._emulator = Emulator(network, list(self._placements.values()))

    def planner(self, calibration: list[Feeds]) -> Planner:
        """With the ranges of these samples."""
        roots = {root for placed in self._placements.values() for root in placed.grid_of.values()}
        given = Samples("given", len(calibration), lambda index: dict(calibration[index]))
        return Planner(self._network, observe(self._network, sorted(roots), given, self._folder))

    def reference(self, test: list[Feeds]) -> list[list[np.ndarray]]:
        """What the float network gives."""
        return [
            self._network.session.run(self._network.fed(one), self._network.outputs) for one in test
        ]

    def weights_alone(self, scheme: str, test: list[Feeds], expected: list) -> np.ndarray:
        """SQNR in dB: ``(samples, outputs)``."""
        rounded = {
            name: self._network.rounded(slot, SCHEMES[scheme]).values
            for name, slot in self._network.slot_of.items()
        }
        fed = {**self._network.constants, **rounded}
        session, names = self._network.session, self._network.outputs
        return _decibels(expected, (session.run({**fed, **one}, names) for one in test))

    def full(self, target: str, planner: Planner, test: list[Feeds], expected: list) -> np.ndarray:
        """The same of weights and activations."""
        plan = planner.plan(self._placements[target], Rounding.of(TARGETS[target]))
        return _decibels(expected, self._emulator.run(plan, test))


def _decibels(expected: list, changed: object) -> np.ndarray:
    return np.array(
        [
            [
                sqnr_db(one, other) if one.dtype.kind == "f" and one.any() else np.nan
                for one, other in zip(*pair, strict=True)
            ]
            for pair in zip(expected, changed, strict=True)
        ]
    )


def median(decibels: np.ndarray) -> float:
    """Over samples and outputs."""
    return float(np.nanmedian(decibels))


def compare(subject: Subject) -> list[dict[str, object]]:
    """Every figure on noise of every kind, and the same on real inputs."""
    started = time.process_time()
    model = twin.open_float(subject.path)
    for name, value in noise.frozen_inputs(model.model).items():
        twin.freeze_input(model.model, name, value)
    compared = points.cut(model.model)
    with tempfile.TemporaryDirectory() as name:
        network, inputs = prepared(model, compared.names, Path(name), fold=True)
        del model
        (sample,) = noise.samples(inputs, 1, seed=TEST_SEED)
        elements = noise.compared_elements(list(network.named_outputs(sample).values()))
        calibration_count, count = noise.sample_counts(inputs, elements)
        fed_back = noise.states(inputs)

        def stream(samples: list[Feeds]) -> list[Feeds]:
            return states.streamed(samples, fed_back, network.named_outputs)

        bench = Bench(network, Path(name))
        real = stream(subject.make(inputs, max(PHOTOGRAPHS, calibration_count + count)))
        rows = {figure: {"figure": figure} for figure in FIGURES}
        # Twice the truth, on halves of the real inputs that change their places.
        for key, order in (("real", 1), ("real_b", -1)):
            turned = real[::order]
            half = len(turned) // 2
            _figures(bench, turned[:half], turned[half:], key, rows)
        kinds = KINDS if subject.is_image else ("scenes",)
        tests = {}
        for kind in kinds:
            test = stream(drawn(kind, inputs, count, TEST_SEED))
            tests[kind] = (test, bench.reference(test))
            for scheme in WEIGHTS:
                figure = bench.weights_alone(scheme, *tests[kind])
                rows[f"weights {scheme}"] |= {f"{on} -> {kind}": median(figure) for on in kinds}
        for on in kinds:
            planner = bench.planner(stream(drawn(on, inputs, calibration_count, CALIBRATION_SEED)))
            for kind in kinds:
                for target in FULL:
                    figure = bench.full(target, planner, *tests[kind])
                    rows[target][f"{on} -> {kind}"] = median(figure)
    facts = {
        "input_shape": noise.shapes_text(inputs),
        "kind": ", ".join(model_input.content for model_input in inputs),
        "provisional": noise.provisional(inputs),
        "samples": f"{calibration_count} + {count}",
        "seconds": time.process_time() - started,
        "is_image": subject.is_image,
        "is_real": subject.is_real,
    }
    return [row | facts for row in rows.values()]


def _figures(
    bench: Bench, calibration: list[Feeds], test: list[Feeds], key: str, rows: dict[str, dict]
) -> None:
    expected = bench.reference(test)
    planner = bench.planner(calibration)
    for scheme in WEIGHTS:
        rows[f"weights {scheme}"][key] = median(bench.weights_alone(scheme, test, expected))
    for target in FULL:
        rows[target][key] = median(bench.full(target, planner, test, expected))


def truth(frame: pd.DataFrame) -> pd.Series:
    """On real inputs, the mean of both halves."""
    return frame[["real", "real_b"]].mean(axis=1)


def band(db: pd.Series | np.ndarray) -> np.ndarray:
    """0 broken, 1 at risk, 2 watch, 3 fine."""
    return np.searchsorted(BANDS_DB, db, side="right")


def usable(frame: pd.DataFrame, kind: str) -> pd.DataFrame:
    """Rows where something was rounded: model, figure, truth, what the probe says, its error."""
    found = pd.DataFrame(
        {
            "model": frame["model"],
            "figure": frame["figure"],
            "real": truth(frame),
            "probe": frame[kind],
        }
    )
    found["error"] = found["probe"] - found["real"]
    rounds = (found["real"] < LARGEST_TRUTH_DB) & (found["probe"] < EXACT_DB)
    return found[rounds & np.isfinite(found["error"])]


MATCHED = tuple(f"{kind} -> {kind}" for kind in KINDS)
EVERY_PAIR = tuple(f"{on} -> {kind}" for on in KINDS for kind in KINDS)


def chosen(frame: pd.DataFrame, fold: int, candidates: Sequence[str], *, is_full: bool) -> str:
    """The noise with the smallest mean error on a fold: ``ranges found on -> compared on``."""
    part = on_fold(frame, fold)
    part = part[part["figure"].isin(FULL) == is_full]
    return min(candidates, key=lambda noises: usable(part, noises)["error"].abs().mean())


def held_out(frame: pd.DataFrame, candidates: Sequence[str], *, is_full: bool) -> pd.DataFrame:
    """Each image network on the noise that was chosen on the networks of the other fold."""
    parts = []
    for fold in (0, 1):
        part = on_fold(frame, fold)
        noises = chosen(frame, 1 - fold, candidates, is_full=is_full)
        parts.append(usable(part[part["figure"].isin(FULL) == is_full], noises))
    return pd.concat(parts)


def on_fold(frame: pd.DataFrame, fold: int) -> pd.DataFrame:
    """The rows of its image networks."""
    images = frame[frame["is_image"]]
    return images[images["model"].map(fold_of) == fold]


def agreement(found: pd.DataFrame) -> dict[str, str]:
    """Spearman's correlation, errors in dB, bands, and what is far off by name."""
    error = found["error"].abs()
    right = band(found["probe"]) == band(found["real"])
    # How far a figure lies inside a band that is better than the true one.
    floor = np.array([-np.inf, *BANDS_DB])[band(found["probe"])]
    flatters = (band(found["probe"]) > band(found["real"])) & (floor - found["real"] > 1)
    misses = found[error > MISS_DB].sort_values("error", key=np.abs, ascending=False)
    return {
        "n": str(len(found)),
        "Spearman": f"{found['probe'].rank().corr(found['real'].rank()):.2f}",
        "median dB": f"{error.median():.1f}",
        "mean dB": f"{error.mean():.1f}",
        "largest dB": f"{error.max():.1f}",
        "right band": str(int(right.sum())),
        "a band too good by more than 1 dB": str(int(flatters.sum())),
        "off by more than 3 dB": ", ".join(
            f"{row.model} {row.error:+.1f}" for row in misses.itertuples()
        )
        or "none",
    }


def markdown(rows: Sequence[dict[str, str]]) -> str:
    """A table."""
    heads = list(rows[0])
    lines = [heads, ["---"] * len(heads), *([row[head] for head in heads] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def tables(frame: pd.DataFrame) -> str:
    """The tables of docs/method.md, section 8."""
    images = frame[frame["is_image"]]
    networks = []
    for model, part in frame.groupby("model", sort=False):
        pairs = zip(part["figure"], part[OWN], truth(part), strict=True)
        cells = {figure: f"{_decibel(probe)} / {_decibel(real)}" for figure, probe, real in pairs}
        networks.append({"network": str(model)} | cells)
    agreements = []
    for figure in FIGURES:
        is_full = figure in FULL
        probed = usable(images[images["figure"] == figure], OWN)
        agreements.append({"figure": figure, "noise": "the probe's"} | agreement(probed))
        trials = {"chosen on the other fold": MATCHED}
        if is_full:
            trials["the same among nine"] = EVERY_PAIR
        for noises, candidates in trials.items():
            blind = held_out(frame, candidates, is_full=is_full)
            found = agreement(blind[blind["figure"] == figure])
            if found == agreement(probed):
                # The choice is what the probe does.
                continue
            agreements.append({"figure": figure, "noise": noises} | found)
    folds = [
        {
            "networks": ", ".join(on_fold(frame, fold)["model"].unique()),
            "weights": chosen(frame, fold, MATCHED, is_full=False),
            "full int8": chosen(frame, fold, MATCHED, is_full=True),
            "full int8 among nine": chosen(frame, fold, EVERY_PAIR, is_full=True),
        }
        for fold in (0, 1)
    ]
    kinds = [{"noise": noises} for noises in EVERY_PAIR]
    for row in kinds:
        for figure in FIGURES:
            error = usable(images[images["figure"] == figure], row["noise"])["error"]
            row[figure] = f"{error.abs().mean():.1f}"
    others = frame[~frame["is_image"]]
    recurrent = [
        {"network": str(model), "mean error, dB": f"{usable(part, OWN)['error'].abs().mean():.1f}"}
        for model, part in others.groupby("model", sort=False)
    ]
    parts = (
        "Probe / real inputs, dB; `-` where nothing was rounded:",
        markdown(networks),
        "Agreement over the image networks:",
        markdown(agreements),
        "What each fold chooses:",
        markdown(folds),
        "Mean error in dB over all image networks, by the noise that ranges were found on and the"
        " noise that was compared on:",
        markdown(kinds),
    )
    if recurrent:
        parts += ("Recurrent networks, over all figures:", markdown(recurrent))
    return "\n\n".join(parts)


def _decibel(db: float) -> str:
    return f"{db:.1f}" if db < EXACT_DB else "-"


def rewritten(document: str, found: str) -> str:
    """The document with these tables between its marks."""
    before, rest = document.split(START)
    return f"{before}{START}\n{found}\n{END}{rest.split(END)[1]}"


def main() -> None:
    """Run what was asked for, write and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", help="by default all of them")
    parser.add_argument(
        "--write", action="store_true", help="write the tables into docs/method.md as well"
    )
    parser.add_argument(
        "--saved", action="store_true", help="run nothing: the results of the last complete run"
    )
    options = parser.parse_args()
    if options.saved:
        frame = pd.DataFrame(json.loads(RESULT.read_text(encoding="utf-8"))["rows"])
    else:
        frame = measured(options.models)
    written = tables(frame)
    print(written)
    if options.write and not options.models:
        METHOD.write_text(rewritten(METHOD.read_text(encoding="utf-8"), written), encoding="utf-8")


def measured(models: Sequence[str]) -> pd.DataFrame:
    """Run these, or all, and keep the results of a complete run."""
    rows = []
    for name, subject in subjects().items():
        if models and name not in models:
            continue
        print(name, file=sys.stderr, flush=True)
        rows += [{"model": name} | row for row in compare(subject)]
    frame = pd.DataFrame(rows).replace([np.inf, -np.inf], np.nan)
    if not models:
        content = {
            "onnxruntime": onnxruntime.__version__,
            "rows": json.loads(frame.to_json(orient="records", double_precision=3)),
        }
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return frame


if __name__ == "__main__":
    main()
