"""The formats of model files that are read: what each is called, and whether it can be run."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePath

# How a file is called that says which tensors lie in which other files.
INDEX_SUFFIX = ".safetensors.index.json"
_PART_NAME = re.compile(
    r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.safetensors|\.gguf)",
    re.IGNORECASE,
)

RUNS_ONNX_ONLY = "only ONNX files are run: export the network to ONNX to test it"
HAS_NO_GRAPH = (
    "a file without a graph cannot be run: export the network to ONNX with torch.onnx.export or"
    " optimum to test it"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFormat:
    """A format, and what can be done with a file of it.

    Attributes:
        name: the column ``file_format`` of ``models``.
        suffixes: how names of such files end, in lower case.
        extra: of quantstore, which reads it; empty where none is needed.
        why_not_run: why a target cannot be measured, a part of a sentence; empty where it can.
        has_graph: whether the file says how its layers are connected.
    """

    name: str
    suffixes: tuple[str, ...] = ()
    extra: str = ""
    why_not_run: str = ""
    has_graph: bool = True

    @property
    def install(self) -> str:
        """The command that installs what reads it."""
        return f"pip install 'quantstore[{self.extra}]'"


ONNX = FileFormat(name="ONNX", suffixes=(".onnx",))
QONNX = FileFormat(name="QONNX")
TENSORFLOW_LITE = FileFormat(
    name="TensorFlow Lite", suffixes=(".tflite",), extra="tflite", why_not_run=RUNS_ONNX_ONLY
)
SAFETENSORS = FileFormat(
    name="safetensors",
    suffixes=(".safetensors", INDEX_SUFFIX),
    extra="safetensors",
    why_not_run=HAS_NO_GRAPH,
    has_graph=False,
)
GGUF = FileFormat(
    name="GGUF", suffixes=(".gguf",), extra="gguf", why_not_run=HAS_NO_GRAPH, has_graph=False
)
FORMATS = {
    file_format.name: file_format
    for file_format in (ONNX, QONNX, TENSORFLOW_LITE, SAFETENSORS, GGUF)
}
SUFFIXES = tuple(suffix for file_format in FORMATS.values() for suffix in file_format.suffixes)


@dataclass(frozen=True, slots=True)
class PartName:
    """How one file of a model in several files is called: ``net-00002-of-00003.gguf``."""

    stem: str
    number: int
    count: int
    suffix: str

    def of(self, number: int) -> str:
        """How another part of the same model is called; they count from 1."""
        return f"{self.stem}-{number:05}-of-{self.count:05}{self.suffix}"


def part_name(name: str | PurePath) -> PartName | None:
    """What the name of a part says; None of a file that is not called like one."""
    match = _PART_NAME.fullmatch(PurePath(name).name)
    if match is None:
        return None
    return PartName(match["stem"], int(match["number"]), int(match["count"]), match["suffix"])


def why_not_run(format_name: str) -> str:
    """Why a model of a format cannot be run; empty where it can, or where nobody knows."""
    file_format = FORMATS.get(format_name)
    return "" if file_format is None else file_format.why_not_run


def any_of(suffixes: Iterable[str]) -> str:
    """``.onnx, .tflite or .gguf``, without those that another one ends as well."""
    *others, last = (suffix for suffix in suffixes if suffix != INDEX_SUFFIX)
    return f"{', '.join(others)} or {last}" if others else last


def why_not_run_sentence(format_name: str) -> str:
    """The same as a sentence of its own."""
    reason = why_not_run(format_name)
    return f"{reason[:1].upper()}{reason[1:]}." if reason else ""


def has_suffix(name: str | PurePath, suffixes: Iterable[str] = SUFFIXES) -> bool:
    """Whether a name ends as those of a format do, with something in front."""
    lowered = PurePath(name).name.lower()
    return any(lowered.endswith(suffix) and lowered != suffix for suffix in suffixes)
