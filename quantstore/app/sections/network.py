"""The section of the Model page that draws the network, block by block."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import streamlit as st

from quantstore import queries, settings
from quantstore.app.widgets import colours, navigation, pickers
from quantstore.app.widgets import network as widget
from quantstore.charts import network as charts
from quantstore.charts.palette import BANDS
from quantstore.errors import printable
from quantstore.queries.blocks import Block, blocks_of, opened_blocks
from quantstore.queries.network import NetworkGraph, Point
from quantstore.schemes import Target
from quantstore.store import Connection
from quantstore.wording import networks
from quantstore.wording.text import short_name

# At first as many boxes as fit into a window or two; with everything open, as a browser can draw.
FIRST_BOXES, MOST_BOXES = 24, 600
LONGEST_LABEL = 26
KEY = "network"


def section(con: Connection, model: str, target: Target, limits: dict[str, float]) -> None:
    """Draw it, or say why there is nothing to draw."""
    st.header("The network", anchor=False)
    network = queries.model_network(con, model)
    if not network.points:
        command = settings.command("ingest FILE --replace", settings.store_path())
        st.markdown(networks.ingest_again(command))
        return
    if not network.edges:
        st.write(networks.TOO_LARGE)
        return
    labels = {label: measured_by for measured_by, label in networks.COLOURED_BY.items()}
    label = pickers.choice("Colour by", list(labels), key="colour")
    measured_by = labels[label]
    values = queries.network_values(con, model, target, measured_by)
    st.caption(f"{networks.HOW_TO_READ} {networks.MEANINGS[measured_by]}")
    if not values:
        st.caption(networks.not_measured(measured_by, target.title))
        navigation.link("drift", "Drift", width="content")
    _draw(_Picture(model, network, values, limits))


@st.fragment
def _draw(picture: "_Picture") -> None:
    """Drawn anew by itself when a block is opened: the rest of the page has not changed."""
    navigation.follow_click()
    root = picture.root

    def clicked() -> None:
        click = st.session_state[KEY].clicked or {}
        if "layer" in click:
            navigation.open_layer(int(click["layer"]))
        elif "block" in click:
            picture.is_open ^= {int(click["block"])}
        elif "all" in click:
            most = MOST_BOXES if click["all"] else 0
            picture.is_open.clear()
            picture.is_open |= opened_blocks(root, most)

    colours.legend(picture.limits, picture.counts())
    placed = charts.drawn(picture.network, root, picture.is_open, picture.label)
    widget.draw(
        model=picture.model,
        size=(placed.width, placed.height),
        boxes=[picture.box(box) for box in placed.boxes],
        lines=[
            {"through": line.through, "title": networks.passed(line.operators)}
            for line in placed.lines
        ],
        tree=[picture.row(child) for child in root.children],
        summary=networks.summary(
            root.layer_count, sum(1 for _ in root.blocks()) - 1, picture.counts()
        ),
        key=KEY,
        on_click=clicked,
    )


class _Picture:
    """A network with what its boxes say and which of its blocks are open."""

    def __init__(
        self,
        model: str,
        network: NetworkGraph,
        values: Mapping[str, float],
        limits: dict[str, float],
    ) -> None:
        self.model = model
        self.network = network
        self.limits = limits
        self.root = blocks_of(network)
        self._labels = self.root.labels()
        self._values = values
        self._layer_counts = {block.number: block.layer_count for block in self.root.blocks()}
        self._worst = {block.number: self._worst_in(block) for block in self.root.blocks()}
        memory = st.session_state.setdefault("network_open", {})
        if model not in memory:
            memory.clear()
            memory[model] = opened_blocks(self.root, FIRST_BOXES)
        # What a click changes, the session keeps.
        self.is_open: set[int] = memory[model]

    def _worst_in(self, block: Block) -> float | None:
        values = [self._values[p.name] for p in block.points() if p.name in self._values]
        return min(values, default=None)

    def value(self, item: Block | Point) -> float | None:
        """Its SQNR in dB, of a block that of its worst; None where it was not measured."""
        if isinstance(item, Block):
            return self._worst[item.number]
        return self._values.get(item.name)

    def band(self, item: Block | Point) -> str | None:
        """The band of its SQNR."""
        value = self.value(item)
        if value is None:
            return None
        return next((band for band, lowest in self.limits.items() if value >= lowest), BANDS[0])

    def counts(self) -> dict[str, int]:
        """How many layers each band has."""
        layers = [point for point in self.root.points() if point.role == "layer"]
        bands = Counter(self.band(point) for point in layers)
        return {band: bands[band] for band in BANDS}

    def label(self, item: Block | Point) -> str:
        """What stands in its box."""
        if isinstance(item, Point) and item.role == "join":
            return networks.sign(item.op_type)
        return short_name(self._title(item), LONGEST_LABEL)

    def _title(self, item: Block | Point) -> str:
        """Its name without what the blocks around it say already."""
        if isinstance(item, Block) or item.role == "output":
            return self._name(item)
        return printable(self._labels[item.number])

    def _name(self, item: Block | Point) -> str:
        if isinstance(item, Block):
            return printable(item.title)
        return "output" if item.role == "output" else printable(item.name)

    def _facts(self, item: Block | Point) -> dict[str, Any]:
        value = self.value(item)
        is_block = isinstance(item, Block)
        return {
            "item": f"b{item.number}" if is_block else f"p{item.number}",
            "block": item.number if is_block else None,
            # Text, for JavaScript would round a number of 63 bits.
            "layer": None
            if isinstance(item, Block) or item.layer_id is None
            else str(item.layer_id),
            "band": self.band(item),
            "is_open": is_block and item.number in self.is_open,
            "verdict": "" if value is None else networks.in_db(value),
        }

    def box(self, placed: charts.Placed) -> dict[str, Any]:
        """A box of the picture."""
        item = placed.item
        facts = self._facts(item)
        small = facts.pop("verdict")
        name = self._name(item)
        if isinstance(item, Block):
            small = networks.in_block(self._layer_counts[item.number], self.value(item))
        title = [name, small if isinstance(item, Block) else f"{item.op_type or ''} {small}"]
        return facts | {
            "x": placed.x,
            "y": placed.y,
            "width": placed.width,
            "height": placed.height,
            "label": self.label(item),
            "small": small,
            "title": ": ".join(part.strip() for part in title if part.strip()),
            "is_join": isinstance(item, Point) and item.role == "join",
            "is_end": isinstance(item, Point) and item.role in ("input", "output"),
        }

    def row(self, item: Block | Point) -> dict[str, Any]:
        """A row of the list, with those below it where it is an open block."""
        facts = self._facts(item)
        small, children = "", []
        if isinstance(item, Block):
            small = networks.in_block(self._layer_counts[item.number], None)
            if facts["is_open"]:
                children = [self.row(child) for child in item.children]
        elif (operator := item.op_type or item.role) not in self._title(item):
            small = operator
        return facts | {
            "label": self._title(item),
            "title": self._name(item),
            "small": small,
            "children": children,
        }
