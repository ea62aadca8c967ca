"""An answer drawn over the picture it is about: boxes, or a map. SVG out, the same in both themes.

Lines are light with a dark rim, so that they show on any photograph. Colour means band, and nothing
here is one: what stays, is lost or is new is told by the dash of a line and a word.
"""

import base64
import html
import io

from PIL import Image

from quantstore.answers import DetectedBox, NetworkAnswer, ValueMap
from quantstore.errors import printable

WIDTH = 320
# A picture that is taller is drawn as if it were not.
_TALLEST = 3.0
# Of a box that stays, of a float box that is lost, and of an int8 box that is new.
STAYS, LOST, NEW = "", "7 4", "2 3"
# Words on more boxes than that cover the picture.
_MOST_NAMED = 6
_LETTER_WIDTH = 6.3
_LONGEST_NAME = 18
# A map is brighter than what lies below it.
_DIMMED = 0.5


def drawn(answer: NetworkAnswer, picture: bytes | None, network: str) -> str:
    """The SVG of an answer that has boxes or a map.

    Args:
        picture: a JPEG of what the networks were fed; without one the ground is dark.
        network: ``float`` or ``int8``: whose boxes that do not stay are lost, or new.
    """
    image = _opened(picture)
    height = _height(image, answer.map)
    ground = f'<rect width="{WIDTH}" height="{height}" fill="#20242a"/>'
    if image is not None:
        shown = image if answer.map is None else image.convert("L").point(_dimmed)
        ground += _image(_encoded(shown, "JPEG"), "jpeg", height)
    if answer.map is not None:
        ground += _image(_encoded(_light(answer.map), "PNG"), "png", height, is_pixelated=True)
    boxes = _boxes(answer, network, height)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}"'
        f' height="{height}">{ground}{boxes}</svg>'
    )


def as_address(svg: str) -> str:
    """An SVG as the address of an image."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode('ascii')}"


def thumbnail(picture: bytes | None) -> str:
    """A picture as the address of an image; empty where there is none."""
    image = _opened(picture)
    if image is None:
        return ""
    return f"data:image/jpeg;base64,{base64.b64encode(_encoded(image, 'JPEG')).decode('ascii')}"


def _opened(picture: bytes | None) -> Image.Image | None:
    """The picture; None where it is none: a store may come from somebody else."""
    if picture is None:
        return None
    try:
        image = Image.open(io.BytesIO(picture), formats=("JPEG",))
        image.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    return image if image.mode in ("L", "RGB") else image.convert("RGB")


def _height(image: Image.Image | None, value_map: ValueMap | None) -> int:
    size = (1, 1)
    if image is not None:
        size = image.size
    elif value_map is not None:
        size = (value_map.columns, value_map.rows)
    return round(WIDTH * min(_TALLEST, max(1 / _TALLEST, size[1] / size[0])))


def _dimmed(value: float) -> float:
    return value * _DIMMED


def _light(value_map: ValueMap) -> Image.Image:
    """White, the more of it the larger the value."""
    size = (value_map.columns, value_map.rows)
    light = Image.new("LA", size, (255, 0))
    light.putalpha(Image.frombytes("L", size, value_map.values))
    return light


def _encoded(image: Image.Image, file_format: str) -> bytes:
    stream = io.BytesIO()
    image.save(stream, file_format)
    return stream.getvalue()


def _image(data: bytes, kind_of_image: str, height: int, *, is_pixelated: bool = False) -> str:
    style = ' style="image-rendering:pixelated"' if is_pixelated else ""
    address = f"data:image/{kind_of_image};base64,{base64.b64encode(data).decode('ascii')}"
    return (
        f'<image href="{address}" width="{WIDTH}" height="{height}" preserveAspectRatio="none"'
        f"{style}/>"
    )


def _boxes(answer: NetworkAnswer, network: str, height: int) -> str:
    """The boxes, the best scored on top; words on all of them if they are few, else on changes."""
    has_words = len(answer.boxes) <= _MOST_NAMED
    # One class without a name says nothing.
    has_names = bool(answer.names) or len({box.label for box in answer.boxes}) > 1
    lines, labels = [], []
    for box in reversed(answer.boxes):
        x, y, across, down = _on_picture(box, height)
        dash = STAYS if box.stays else LOST if network == "float" else NEW
        rim = f'<rect x="{x}" y="{y}" width="{across}" height="{down}" fill="none"'
        pattern = f' stroke-dasharray="{dash}"' if dash else ""
        lines.append(f'{rim} stroke="#000" stroke-opacity=".55" stroke-width="4"/>')
        lines.append(f'{rim} stroke="#fff" stroke-width="2"{pattern}/>')
        label = [] if box.stays else ["lost" if network == "float" else "new"]
        if has_words:
            label += [printable(answer.name_of(box.label))[:_LONGEST_NAME]] if has_names else []
            label.append(f"{box.score:.2f}")
        if label:
            labels.append(_label(" ".join(label), x, y))
    return "".join([*lines, *labels])


def _on_picture(box: DetectedBox, height: int) -> tuple[float, float, float, float]:
    """Corner and size of a box in the drawing, as far as it lies on it."""
    x_min, x_max = (WIDTH * min(1.0, max(0.0, share)) for share in (box.x_min, box.x_max))
    y_min, y_max = (height * min(1.0, max(0.0, share)) for share in (box.y_min, box.y_max))
    return (
        round(x_min, 1),
        round(y_min, 1),
        round(max(0.0, x_max - x_min), 1),
        round(max(0.0, y_max - y_min), 1),
    )


def _label(text: str, x: float, y: float) -> str:
    width = round(len(text) * _LETTER_WIDTH + 6, 1)
    x = round(min(max(0.0, x), WIDTH - width), 1)
    y = max(0.0, y - 15)
    return (
        f'<rect x="{x}" y="{y:.1f}" width="{width}" height="15" fill="#000" fill-opacity=".7"/>'
        f'<text x="{x + 3:.1f}" y="{y + 11:.1f}" fill="#fff" font-size="11"'
        f' font-family="sans-serif">{html.escape(text)}</text>'
    )
