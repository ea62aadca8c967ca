"""Files in, feeds out: images and arrays as the samples a model is run on.

A sample is one run of the model: the arrays of all its inputs, by name. Knows Pillow and numpy, not
the runtime: what a model asks for comes as :class:`ModelInput`.
"""

import dataclasses
import functools
import math
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from quantstore.errors import InputsError, hint_for

Feed = dict[str, npt.NDArray[Any]]
Color = Literal["rgb", "bgr", "gray"]
Spaced = TypeVar("Spaced")

# Enough for a stable figure, few enough to wait for.
DEFAULT_SAMPLES = 32
# Decoded images beyond this are decoded again when they are needed.
CACHE_BYTES = 256 << 20
# Where a model leaves the size of its images open and nobody says one.
OPEN_SIDE = 320
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
# Not the name of an input: the right class of each sample, for the accuracy.
LABEL_NAMES = ("labels", "label")
COLORS = (1, 3)


@dataclass(frozen=True, slots=True)
class ModelInput:
    """One input of a model. A dimension is None where the model leaves it open."""

    name: str
    shape: tuple[int | None, ...]
    dtype: np.dtype[Any]

    @property
    def shape_text(self) -> str:
        """The shape as people write it, open dimensions as ``?``."""
        return "x".join("?" if size is None else str(size) for size in self.shape) or "scalar"

    @property
    def image(self) -> "ImageShape | None":
        """How an image lies in this input; None where it cannot be one."""
        if len(self.shape) not in (3, 4):
            return None
        has_batch = len(self.shape) == 4
        first, second, third = self.shape[-3:]
        if first in COLORS or (first is None and third not in COLORS):
            return ImageShape(first, second, third, channels_first=True, has_batch=has_batch)
        if third in COLORS:
            return ImageShape(third, first, second, channels_first=False, has_batch=has_batch)
        return None


@dataclass(frozen=True, slots=True)
class ImageShape:
    """Channels, height and width of an input, None where the model leaves them open."""

    channels: int | None
    height: int | None
    width: int | None
    channels_first: bool
    has_batch: bool


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """What becomes of a pixel: ``(pixel * scale - mean) / std``, pixels from 0 to 255.

    ``mean`` and ``std`` have one number, or one per channel in the order of ``color``. Images are
    stretched to the size of the input, bilinearly; ``size`` (height, width) is for inputs that
    leave it open.
    """

    color: Color = "rgb"
    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    size: tuple[int, int] | None = None
    name: str = "own"
    description: str = ""

    def __post_init__(self) -> None:
        channels = 1 if self.color == "gray" else 3
        for field, numbers in (("mean", self.mean), ("std", self.std)):
            if len(numbers) not in (1, channels) or not all(map(math.isfinite, numbers)):
                raise InputsError(
                    f"{field} must be one number or {channels}, one per channel of {self.color}"
                )
        if 0 in self.std or not math.isfinite(self.scale) or self.scale == 0:
            raise InputsError("neither std nor scale may be 0")
        if self.size is not None and min(self.size) < 1:
            raise InputsError("the size must be at least 1 by 1")


def _preset(name: str, description: str, **settings: Any) -> Preprocessing:
    return Preprocessing(name=name, description=description, **settings)


# By convention, not by guess: torchvision, PaddleOCR, OpenMMLab and Caffe write theirs down.
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PRESETS = {
    preset.name: preset
    for preset in (
        _preset("zero-one", "RGB from 0 to 1 (most YOLO models)"),
        _preset(
            "imagenet",
            "RGB from 0 to 1, ImageNet's mean and std (torchvision, timm)",
            mean=_IMAGENET_MEAN,
            std=_IMAGENET_STD,
        ),
        _preset("minus-one-one", "RGB from -1 to 1 (TensorFlow)", scale=1 / 127.5, mean=(1.0,)),
        _preset(
            "ultraface",
            "RGB, (pixel - 127) / 128 (UltraFace)",
            scale=1.0,
            mean=(127.0,),
            std=(128.0,),
        ),
        _preset(
            "mmdet-bgr",
            "BGR from 0 to 255, ImageNet's mean and std in pixels (OpenMMLab: RTMDet, RTMPose)",
            color="bgr",
            scale=1.0,
            mean=(103.53, 116.28, 123.675),
            std=(57.375, 57.12, 58.395),
        ),
        _preset(
            "caffe-bgr",
            "BGR from 0 to 255, minus the means 104, 117, 123 (Caffe, RetinaFace)",
            color="bgr",
            scale=1.0,
            mean=(104.0, 117.0, 123.0),
        ),
        _preset(
            "paddle-bgr",
            "BGR from 0 to 1, ImageNet's mean and std in RGB order (PaddleOCR)",
            color="bgr",
            mean=_IMAGENET_MEAN,
            std=_IMAGENET_STD,
        ),
        _preset("raw-rgb", "RGB from 0 to 255", scale=1.0),
        _preset("raw-bgr", "BGR from 0 to 255", color="bgr", scale=1.0),
        _preset("gray", "one channel from 0 to 1", color="gray"),
    )
}
# The models people know it by.
ALIASES = {"rtmdet": "mmdet-bgr", "retinaface": "caffe-bgr", "yolo": "zero-one"}
AUTO = "auto"


def preset(name: str) -> Preprocessing:
    """A preset by its name.

    Raises:
        InputsError: there is none.
    """
    preprocessing = PRESETS.get(ALIASES.get(name, name))
    if preprocessing is None:
        hint = hint_for(name, (*PRESETS, *ALIASES), f"choose {', '.join(PRESETS)}")
        raise InputsError(f"no preprocessing is named {name!r}", hint)
    return preprocessing


def changed(base: Preprocessing, **changes: Any) -> Preprocessing:
    """A preset with something else in it; it then goes by another name.

    Raises:
        InputsError: the numbers do not fit together.
    """
    if not changes:
        return base
    if changes.get("color") == "gray" and "mean" not in changes and len(base.mean) > 1:
        changes["mean"] = (sum(base.mean) / 3,)
        changes["std"] = changes.get("std", (sum(base.std) / len(base.std),))
    name = base.name if changes.keys() <= {"size"} else f"{base.name}, changed"
    return dataclasses.replace(base, **changes, name=name)


def preprocessing_of(plain: "str | dict[str, Any]") -> str | Preprocessing:
    """A preprocessing that came as JSON, which has no tuples; a name stays one."""
    if isinstance(plain, str):
        return plain
    tuples = {key: tuple(plain[key]) for key in ("mean", "std", "size") if plain[key]}
    return Preprocessing(**(plain | tuples))


@dataclass(frozen=True, slots=True)
class Source:
    """Where an input came from. ``pixels``: the image as the model sees it, before preprocessing.

    ``(height, width, channels)`` of uint8, red first; None where it came as an array.
    """

    name: str
    pixels: Callable[[], npt.NDArray[np.uint8]] | None = None


@dataclass(frozen=True, slots=True)
class Samples:
    """What a model is run on, one feed per run; decoded when asked for.

    ``labels`` are the right classes, one per run, where the file says them. ``picture_size``:
    height and width of the images. ``origins``: of a run, where its inputs came from, row by row of
    the batch; None where they were drawn.
    """

    description: str
    count: int
    feed: Callable[[int], Feed]
    notes: tuple[str, ...] = ()
    labels: npt.NDArray[np.int64] | None = None
    picture_size: tuple[int, int] | None = None
    origins: Callable[[int], Sequence[Source]] | None = None

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Feed:
        if not 0 <= index < self.count:
            raise IndexError(index)
        return self.feed(index)

    def some(self, indices: Sequence[int]) -> "Samples":
        """These runs alone, in this order."""
        chosen = list(indices)
        origins = self.origins
        return dataclasses.replace(
            self,
            count=len(chosen),
            feed=lambda index: self.feed(chosen[index]),
            labels=None if self.labels is None else self.labels[chosen],
            origins=None if origins is None else lambda index: origins(chosen[index]),
        )

    def sources(self, index: int) -> Sequence[Source]:
        """Where the inputs of a run came from, row by row of the batch."""
        return [Source(f"sample {index + 1}")] if self.origins is None else self.origins(index)

    @property
    def shapes(self) -> str:
        """The shapes fed, in words: ``input 1x3x320x320``."""
        return ", ".join(
            f"{name} {'x'.join(map(str, array.shape)) or 'scalar'}"
            for name, array in self[0].items()
        )


NO_FILE_OR_FOLDER = "no such file or folder"


def read_samples(
    source: str,
    model_inputs: Sequence[ModelInput],
    *,
    count: int | None = None,
    preprocess: str | Preprocessing = AUTO,
) -> Samples:
    """The samples in a folder of images, an image, an ``.npz`` or an ``.npy``.

    Args:
        count: at most so many; where there are more, they are taken at even distances.
        preprocess: for images: a preset's name, or how; ``auto`` is ``imagenet``, ``gray`` for
            inputs of one channel, ``raw-rgb`` for integers.

    Raises:
        InputsError: no such file, nothing readable in it, or it does not fit the model.
    """
    path = Path(source).expanduser()
    limit = DEFAULT_SAMPLES if count is None else count
    try:
        is_folder, is_file = path.is_dir(), path.is_file()
    except (OSError, ValueError) as error:
        raise InputsError(f"{source}: no such path") from error
    if not is_folder and not is_file:
        raise InputsError(
            f"{source}: {NO_FILE_OR_FOLDER}",
            "name a folder of images, an .npz or .npy file, or noise",
        )
    if is_folder or path.suffix.lower() in IMAGE_SUFFIXES:
        return _images(path, model_inputs, limit, preprocess)
    if path.suffix.lower() in (".npz", ".npy"):
        return _arrays(path, model_inputs, limit)
    raise InputsError(
        f"{source}: this kind of input is not supported",
        "name a folder of images, an .npz or .npy file, or noise",
    )


# Images


def size_left_open(name: str, height: int, width: int) -> str:
    """What to say of an input that takes images of any size."""
    return f"images resized to {height}x{width}: input {name!r} has no fixed size"


def _images(
    path: Path, model_inputs: Sequence[ModelInput], limit: int, preprocess: str | Preprocessing
) -> Samples:
    target, shape = _image_input(model_inputs)
    preprocessing = _resolved(preprocess, shape, target)
    height, width = _size(shape, preprocessing, target)
    per_run = _batch_of(target) if shape.has_batch else 1
    files = _image_files(path)
    notes = []
    if preprocess == AUTO:
        notes.append(f"preprocessing by default: {preprocessing.name}, {preprocessing.description}")
    if preprocessing.size is None and None in (shape.height, shape.width):
        notes.append(size_left_open(target.name, height, width))
    reader = _ImageReader(preprocessing, height, width, target, shape)

    readable: list[Path] = []
    unreadable: list[str] = []
    for file in _evenly(files, limit * per_run):
        try:
            reader.read(file)
        except InputsError as error:
            unreadable.append(str(error))
        else:
            readable.append(file)
    if not readable:
        raise InputsError(f"no image in {path} can be read: {unreadable[0]}")
    if unreadable:
        notes.append(f"skipped {len(unreadable)} of {len(files)} images: {unreadable[0]}")
    runs = len(readable) // per_run
    if not runs:
        raise InputsError(
            f"input {target.name!r} expects {per_run} images at a time, {path} has {len(readable)}"
        )

    def feed(index: int) -> Feed:
        pixels = [reader.read(file) for file in readable[index * per_run : (index + 1) * per_run]]
        array = np.stack(pixels) if shape.has_batch else pixels[0]
        return {target.name: array}

    def origins(index: int) -> list[Source]:
        return [
            Source(_name_in(path, file), functools.partial(reader.pixels, file))
            for file in readable[index * per_run : (index + 1) * per_run]
        ]

    images = "1 image" if len(readable) == 1 else f"{len(readable)} images"
    folder = "/" if path.is_dir() else ""
    return Samples(
        description=f"{images} from {path.name or path}{folder}, {preprocessing.name}",
        count=runs,
        feed=feed,
        notes=tuple(notes),
        picture_size=(height, width),
        origins=origins,
    )


def _name_in(path: Path, file: Path) -> str:
    """A file by its name in the folder that was asked for, and by no other folder."""
    return file.name if file == path else file.relative_to(path).as_posix()


def _image_input(model_inputs: Sequence[ModelInput]) -> tuple[ModelInput, ImageShape]:
    fitting = [
        (model_input, shape)
        for model_input in model_inputs
        if (shape := model_input.image) is not None
    ]
    if len(fitting) != 1:
        inputs = ", ".join(
            f"{model_input.name} {model_input.shape_text}" for model_input in model_inputs
        )
        raise InputsError(
            f"the model does not take images alone, its inputs are {inputs}",
            "give arrays by input name in an .npz file",
        )
    others = [model_input.name for model_input in model_inputs if model_input is not fitting[0][0]]
    if others:
        raise InputsError(
            f"images fill input {fitting[0][0].name!r}, but {', '.join(others)} would be missing",
            "give arrays by input name in an .npz file",
        )
    return fitting[0]


def _resolved(
    preprocess: str | Preprocessing, shape: ImageShape, target: ModelInput
) -> Preprocessing:
    if isinstance(preprocess, Preprocessing):
        preprocessing = preprocess
    elif preprocess != AUTO:
        preprocessing = preset(preprocess)
    elif target.dtype.kind in "iu":
        preprocessing = PRESETS["raw-rgb"]
    else:
        preprocessing = PRESETS["gray" if shape.channels == 1 else "imagenet"]
    channels = 3 if shape.channels is None else shape.channels
    if channels == 1 and preprocessing.color != "gray":
        if max(len(preprocessing.mean), len(preprocessing.std)) > 1:
            raise InputsError(
                f"input {target.name!r} has one channel, {preprocessing.name} is for three",
                "choose gray, or give one mean and one std",
            )
        preprocessing = dataclasses.replace(preprocessing, color="gray")
    if channels == 3 and preprocessing.color == "gray":
        raise InputsError(f"input {target.name!r} has three channels, gray images have one")
    return preprocessing


def _size(shape: ImageShape, preprocessing: Preprocessing, target: ModelInput) -> tuple[int, int]:
    sizes = []
    for side, fixed, asked in zip(
        ("height", "width"),
        (shape.height, shape.width),
        preprocessing.size or (None, None),
        strict=True,
    ):
        if fixed is not None and asked is not None and fixed != asked:
            raise InputsError(
                f"input {target.name!r} has {side} {fixed} (shape {target.shape_text}), not"
                f" {asked}",
                "leave the size out",
            )
        size = fixed if fixed is not None else asked
        sizes.append(OPEN_SIDE if size is None else size)
    return sizes[0], sizes[1]


def _image_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    try:
        files = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    except OSError as error:
        raise InputsError(f"{path} cannot be read ({error.strerror})") from error
    if not files:
        raise InputsError(f"the folder {path} has no images", "add .jpg or .png files")
    return files


class _ImageReader:
    """Images as arrays of one size, kept while there is room."""

    def __init__(
        self,
        preprocessing: Preprocessing,
        height: int,
        width: int,
        target: ModelInput,
        shape: ImageShape,
    ) -> None:
        self._preprocessing, self._size = preprocessing, (width, height)
        self._dtype, self._channels_first = target.dtype, shape.channels_first
        self._kept: dict[Path, npt.NDArray[Any]] = {}
        self._bytes = 0

    def read(self, path: Path) -> npt.NDArray[Any]:
        """The image as the model wants it, without the batch axis.

        Raises:
            InputsError: it cannot be decoded.
        """
        array = self._kept.get(path)
        if array is None:
            array = self._decoded(path)
            if self._bytes + array.nbytes <= CACHE_BYTES:
                self._kept[path] = array
                self._bytes += array.nbytes
        return array

    def pixels(self, path: Path) -> npt.NDArray[np.uint8]:
        """The image at its size, ``(height, width, 1 or 3)``, red first; nothing else is done.

        Raises:
            InputsError: it cannot be decoded.
        """
        try:
            with Image.open(path) as file:
                upright = ImageOps.exif_transpose(file)
                image = upright.convert("L" if self._preprocessing.color == "gray" else "RGB")
                pixels = np.asarray(image.resize(self._size, Image.Resampling.BILINEAR))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise InputsError(f"{path.name} is not a readable image ({error})") from error
        return pixels.reshape(*pixels.shape[:2], -1)

    def _decoded(self, path: Path) -> npt.NDArray[Any]:
        chosen = self._preprocessing
        pixels = self.pixels(path)
        if chosen.color == "bgr":
            pixels = pixels[..., ::-1]
        values = (pixels.astype(np.float64) * chosen.scale - np.array(chosen.mean)) / np.array(
            chosen.std
        )
        if self._dtype.kind in "iu":
            values = np.rint(values)
            limits = np.iinfo(self._dtype)
            if values.min() < limits.min or values.max() > limits.max:
                raise InputsError(f"{chosen.name} leaves the range of {self._dtype}")
        if self._channels_first:
            values = values.transpose(2, 0, 1)
        return np.ascontiguousarray(values, dtype=self._dtype)


# Arrays


def _arrays(path: Path, model_inputs: Sequence[ModelInput], limit: int) -> Samples:
    arrays = _loaded(path)
    by_name, rest = _matched(path, arrays, model_inputs)
    notes: list[str] = []
    split = {
        model_input.name: _runs(path, model_input, by_name[model_input.name], notes)
        for model_input in model_inputs
        if model_input.name in by_name
    }
    counts = {name: len(runs) for name, runs in split.items()}
    runs = max(counts.values())
    uneven = {name: count for name, count in counts.items() if count not in (1, runs)}
    if uneven:
        listing = ", ".join(f"{name} has {count}" for name, count in counts.items())
        raise InputsError(f"{path.name} holds different numbers of samples: {listing}")
    largest = max((per_run[0] for per_run in split.values()), key=lambda array: array.size)
    rows = len(largest) if largest.ndim > 1 else 1
    labels = None
    for name, array in rest.items():
        per_run = runs == array.size and array.dtype.kind in "iu"
        if name in LABEL_NAMES and per_run:
            labels = array.reshape(-1).astype(np.int64)
        else:
            notes.append(f"{path.name}: array {name!r} is not an input of the model and is ignored")

    def feed(index: int) -> Feed:
        return {name: per_run[index if len(per_run) > 1 else 0] for name, per_run in split.items()}

    samples = Samples(
        description="",
        count=runs,
        feed=feed,
        notes=tuple(notes),
        labels=labels,
        origins=lambda index: [
            Source(f"sample {index * rows + row + 1} of {path.name}") for row in range(rows)
        ],
    ).some(_evenly(range(runs), limit))
    return dataclasses.replace(
        samples,
        description=f"{len(samples)} sample{'s' * (len(samples) != 1)} from {path.name}",
    )


ARE_NO_ARRAYS = "cannot be read as numpy arrays"


def _loaded(path: Path) -> dict[str, npt.NDArray[Any]]:
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"": loaded}
        with loaded:
            return {name: loaded[name] for name in loaded.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise InputsError(
            f"{path.name} {ARE_NO_ARRAYS} ({str(error).splitlines()[0]})",
            "write it with numpy.savez or numpy.save",
        ) from error


def _matched(
    path: Path, arrays: Mapping[str, npt.NDArray[Any]], model_inputs: Sequence[ModelInput]
) -> tuple[dict[str, npt.NDArray[Any]], dict[str, npt.NDArray[Any]]]:
    """Arrays by the input they fill, and those that fill none."""
    names = {model_input.name for model_input in model_inputs}
    by_name = {name: array for name, array in arrays.items() if name in names}
    rest = {name: array for name, array in arrays.items() if name not in names}
    unnamed = [name for name in rest if name not in LABEL_NAMES]
    if not by_name and len(model_inputs) == 1 and len(unnamed) == 1:
        # One array for one input needs no name.
        by_name = {model_inputs[0].name: rest.pop(unnamed[0])}
    missing = [model_input for model_input in model_inputs if model_input.name not in by_name]
    if missing:
        holds = ", ".join(repr(name) for name in arrays if name) or "one array without a name"
        wants = ", ".join(
            f"{model_input.name!r} ({model_input.shape_text})" for model_input in missing
        )
        raise InputsError(
            f"the model also needs input {wants}; {path.name} has {holds}",
            "give every input by its name in an .npz file",
        )
    return by_name, rest


def _runs(
    path: Path, target: ModelInput, array: npt.NDArray[Any], notes: list[str]
) -> Sequence[npt.NDArray[Any]]:
    """An array as one array per run."""
    array = _cast(path, target, array)
    shape, rank = target.shape, len(target.shape)
    wrong = InputsError(
        f"input {target.name!r} expects shape {target.shape_text}, but {path.name} has"
        f" {'x'.join(map(str, array.shape)) or 'a single number'}",
        "the first axis may count the samples",
    )
    if array.size == 0:
        raise wrong
    if array.ndim == rank + 1 and _fits(array.shape[1:], shape):
        return list(array)
    if array.ndim != rank or (rank and not _fits(array.shape[1:], shape[1:])):
        raise wrong
    if rank == 0:
        return [array]
    per_run = _batch_of(target)
    runs, leftover = divmod(len(array), per_run)
    if not runs:
        raise wrong
    if leftover:
        notes.append(
            f"{path.name}: the last {leftover} of {len(array)} samples are ignored, because"
            " they do not fill a batch"
        )
    return [array[run * per_run : (run + 1) * per_run] for run in range(runs)]


def _fits(shape: tuple[int, ...], model_shape: tuple[int | None, ...]) -> bool:
    return len(shape) == len(model_shape) and all(
        size == want or want is None for size, want in zip(shape, model_shape, strict=True)
    )


def _cast(path: Path, target: ModelInput, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if array.dtype == target.dtype:
        cast = array
    else:
        if array.dtype.kind not in "fiub":
            raise InputsError(
                f"{path.name}: input {target.name!r} has type {array.dtype}; it must be numeric"
            )
        with np.errstate(all="ignore"):
            cast = array.astype(target.dtype)
        if target.dtype.kind in "iub" and not np.array_equal(cast, array):
            raise InputsError(
                f"{path.name}: input {target.name!r} expects {target.dtype}, not {array.dtype}"
            )
    if cast.dtype.kind == "f" and not np.isfinite(cast).all():
        raise InputsError(f"{path.name}: input {target.name!r} contains NaN or infinity")
    return cast


def _batch_of(target: ModelInput) -> int:
    return target.shape[0] or 1


def _evenly(items: Sequence[Spaced], count: int) -> list[Spaced]:
    """At most so many of them, at even distances, the first among them."""
    if len(items) <= count:
        return list(items)
    return [items[index * len(items) // count] for index in range(count)]
