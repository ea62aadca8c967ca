"""What a network answers on one input: boxes, classes, or a map. As text for the store, and back.

Positions are shares of the input's width and height, so that an answer fits a picture of any size.
Text that comes back was perhaps written by somebody else: it is checked whole.
"""

import base64
import binascii
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

# ``boxes``: detections. ``classes``: the largest scores of a classifier. ``scores``: a map of the
# largest score at each location. ``energy``: a map of the root mean square over channels.
AnswerForm = Literal["boxes", "classes", "scores", "energy"]
MAP_FORMS: tuple[AnswerForm, ...] = ("scores", "energy")
ANSWER_FORMS: tuple[AnswerForm, ...] = ("boxes", "classes", *MAP_FORMS)
# Of a row of ``simulation_answers`` whose outputs have none of these forms.
NO_FORM = "none"

MOST_BOXES = 100
MOST_CLASSES = 5
MOST_CELLS_ASIDE = 64
LONGEST_LABEL = 60
# Of an answer as text, or of a picture. Nobody writes a larger one; a page would have to carry it.
LONGEST_ANSWER_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class DetectedBox:
    """A detection, its corners as shares of the input. ``stays``: the other network has it too."""

    x_min: float
    y_min: float
    x_max: float
    y_max: float
    label: int
    score: float
    stays: bool


@dataclass(frozen=True, slots=True)
class ScoredClass:
    """A class by its index, and its score."""

    label: int
    score: float


@dataclass(frozen=True, slots=True)
class ValueMap:
    """Values row by row, as bytes: 255 stands for ``full_scale``, which float and int8 share."""

    rows: int
    columns: int
    values: bytes
    full_scale: float


@dataclass(frozen=True, slots=True)
class NetworkAnswer:
    """What one network says of one input; what its form has no use for is empty.

    ``names``: of the classes that occur, as far as the file says them.
    """

    form: AnswerForm
    boxes: tuple[DetectedBox, ...] = ()
    classes: tuple[ScoredClass, ...] = ()
    map: ValueMap | None = None
    names: Mapping[int, str] = field(default_factory=dict)

    def name_of(self, label: int) -> str:
        """A class in words: its name, else ``class 3``."""
        return self.names.get(label) or f"class {label}"

    def to_json(self) -> str:
        """One line for the store."""
        content: dict[str, Any] = {"form": self.form}
        if self.form == "boxes":
            content["boxes"] = [
                [
                    *(round(side, 4) for side in (box.x_min, box.y_min, box.x_max, box.y_max)),
                    box.label,
                    round(box.score, 4),
                    box.stays,
                ]
                for box in self.boxes
            ]
        if self.form == "classes":
            content["classes"] = [[item.label, _rounded(item.score)] for item in self.classes]
        if self.map is not None:
            content["map"] = {
                "rows": self.map.rows,
                "columns": self.map.columns,
                "full_scale": _rounded(self.map.full_scale),
                "values": base64.b64encode(self.map.values).decode("ascii"),
            }
        if self.names:
            content["names"] = {str(label): name for label, name in self.names.items()}
        return json.dumps(content, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "NetworkAnswer":
        """What :meth:`to_json` wrote.

        Raises:
            ValueError: it is no such text, or holds more than an answer does.
        """
        try:
            return _read(json.loads(text))
        except (TypeError, KeyError, AttributeError, RecursionError, binascii.Error) as error:
            raise ValueError("this is not the answer of a network") from error


def _rounded(value: float) -> float:
    """To four significant digits: an answer is looked at, not computed with."""
    return float(f"{value:.4g}")


def _read(content: Any) -> NetworkAnswer:
    form = content["form"]
    if form not in ANSWER_FORMS:
        raise ValueError(f"unknown form of an answer: {form!r}")
    boxes = tuple(_box(row) for row in _few(content.get("boxes", []), MOST_BOXES))
    classes = tuple(
        ScoredClass(_label(label), _number(score))
        for label, score in _few(content.get("classes", []), MOST_CLASSES)
    )
    names = {
        _label(int(label)): str(name)[:LONGEST_LABEL]
        for label, name in content.get("names", {}).items()
    }
    value_map = _map(content["map"]) if form in MAP_FORMS else None
    return NetworkAnswer(form, boxes, classes, value_map, names)


def _box(row: Sequence[Any]) -> DetectedBox:
    x_min, y_min, x_max, y_max, label, score, stays = row
    return DetectedBox(
        x_min=_number(x_min),
        y_min=_number(y_min),
        x_max=_number(x_max),
        y_max=_number(y_max),
        label=_label(label),
        score=_number(score),
        stays=stays is True,
    )


def _map(content: Mapping[str, Any]) -> ValueMap:
    rows, columns = _label(content["rows"]), _label(content["columns"])
    values = base64.b64decode(content["values"], validate=True)
    if not 0 < rows <= MOST_CELLS_ASIDE or not 0 < columns <= MOST_CELLS_ASIDE:
        raise ValueError("the size of a map is out of bounds")
    if len(values) != rows * columns:
        raise ValueError("a map has a different number of values than its size requires")
    return ValueMap(rows, columns, values, _number(content["full_scale"]))


def _few(items: Any, most: int) -> Sequence[Any]:
    if not isinstance(items, list) or len(items) > most:
        raise ValueError(f"a list of at most {most} items is required")
    return items


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("a number is missing")
    if not math.isfinite(value):
        raise ValueError("a number is not finite")
    return float(value)


def _label(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 31:
        raise TypeError("a whole number is missing")
    return value
