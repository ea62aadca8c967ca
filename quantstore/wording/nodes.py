"""What a node of the graph is called, and how it is set."""

import json

from quantstore.wording.units import with_minus


def operator(op_type: str, is_depthwise: bool) -> str:
    """``depthwise Conv``."""
    return f"depthwise {op_type}" if is_depthwise else op_type


# What a setting is called where one number says it; of several axes, where they agree.
_SETTINGS = {"strides": "stride", "pads": "padding", "dilations": "dilation", "axis": "axis"}
_PER_AXIS = ("strides", "pads", "dilations")
_FLAGS = {"transA": "A transposed", "transB": "B transposed"}
# The shape of the weights and the line beside it say these already.
_SAID_ELSEWHERE = ("kernel_shape", "N", "K")


def node_settings(attributes: str | None, group_count: int) -> list[str]:
    """``stride 2``, ``padding 1``, ``32 groups``: a node's attributes in words, the usual first.

    Args:
        attributes: as the column ``layers.attributes`` holds them, None where it holds nothing.
        group_count: of the layer; attributes of convolutions repeat it.
    """
    values: dict[str, object] = json.loads(attributes) if attributes else {}
    ordered = [name for name in _SETTINGS if name in values]
    ordered += [name for name in values if name not in ordered]
    settings = [_setting(name, values[name]) for name in ordered if name != "group"]
    if group_count > 1:
        settings.insert(
            len([name for name in ordered if name in _SETTINGS]), f"{group_count} groups"
        )
    return [setting for setting in settings if setting]


def _setting(name: str, value: object) -> str:
    if name in _SAID_ELSEWHERE or (name, value) == ("auto_pad", "NOTSET"):
        return ""
    if name in _FLAGS and value in (0, 1):
        return _FLAGS[name] if value else ""
    if name in _PER_AXIS and isinstance(value, list) and value and len({*map(str, value)}) == 1:
        value = value[0]
    values = value if isinstance(value, list) else [value]
    texts = [entry if isinstance(entry, str) else with_minus(str(entry)) for entry in values]
    return f"{_SETTINGS.get(name, name.replace('_', ' '))} {', '.join(texts)}"
