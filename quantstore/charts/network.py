"""A network of blocks in, places on a page out: a layered drawing, blocks that are open as frames.

Each open block is drawn by itself, from top to bottom, and is a single large box to what is around
it. What feeds a box stands above it (longest paths); boxes of a row are ordered by the middle of
their neighbours and moved above them as far as their widths allow (Sugiyama et al., "Methods for
Visual Understanding of Hierarchical System Structures", 1981). All lengths are in pixels.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from quantstore.queries.blocks import Block
from quantstore.queries.network import Edge, NetworkGraph, Point

BOX_HEIGHT, JOIN_SIZE = 40.0, 18.0
NARROWEST, NARROWEST_BLOCK, WIDEST = 92.0, 146.0, 200.0
CHARACTER_WIDTH = 6.6
ROW_GAP, BOX_GAP = 24.0, 16.0
# Of a frame, besides the gap above and below its content.
HEAD, FOOT, PADDING = 8.0, 2.0, 14.0
# An edge that skips a row keeps this much room there.
LANE = 10.0
# Beyond so many lanes in one block edges go straight.
MOST_LANES = 3_000
# Before the first of the children, whose numbers begin with 0.
_TOP = -1
SWEEPS = 4


@dataclass(frozen=True, slots=True)
class Placed:
    """A box on the page: a block or a point, its upper left corner and size, ``is_open`` frames."""

    item: Block | Point
    x: float
    y: float
    width: float
    height: float
    is_open: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """An edge on the page: the points it goes through, and what it stands for."""

    through: tuple[tuple[float, float], ...]
    operators: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NetworkDrawing:
    """Everything on the page; frames come before what is in them."""

    width: float
    height: float
    boxes: tuple[Placed, ...]
    lines: tuple[Line, ...]


def drawn(
    network: NetworkGraph,
    root: Block,
    is_open: Collection[int],
    label: Callable[[Block | Point], str],
) -> NetworkDrawing:
    """Place all that is visible.

    Args:
        root: the blocks of the network; always open, and without a frame.
        is_open: numbers of the blocks that are.
        label: what a box says, which decides how wide it is.
    """
    part = _OpenBlock(network.edges, root, is_open, label)
    return NetworkDrawing(part.width, part.height, tuple(part.boxes), tuple(part.lines))


@dataclass(slots=True)
class _GridCell:
    """Something in a row: a child of the block, or the lane of an edge that passes by."""

    width: float
    height: float
    row: int
    rank: float
    above: "list[_GridCell]" = field(default_factory=list)
    below: "list[_GridCell]" = field(default_factory=list)
    x: float = 0.0
    y: float = 0.0
    part: "_OpenBlock | None" = None
    item: Block | Point | None = None

    @property
    def is_lane(self) -> bool:
        return self.item is None and self.width > 0

    @property
    def middle(self) -> float:
        return self.x + self.width / 2

    @property
    def inset(self) -> float:
        """How far right of its own edge the content of an open block begins."""
        return 0.0 if self.part is None else (self.width - self.part.width) / 2

    def port(self, *, is_top: bool) -> float:
        """Where edges reach it."""
        if self.part is None:
            return self.middle
        inner = self.part.top if is_top else self.part.bottom
        return self.x + self.inset + inner.middle if inner.above or inner.below else self.middle


class _OpenBlock:
    """One open block: its children in rows, with all that is in them."""

    def __init__(
        self,
        edges: Sequence[Edge],
        block: Block,
        is_open: Collection[int],
        label: Callable[[Block | Point], str],
    ) -> None:
        self._owner: dict[int, int] = {}
        for rank, child in enumerate(block.children):
            inside = (child,) if isinstance(child, Point) else tuple(child.points())
            self._owner.update((point.number, rank) for point in inside)
        # Between two children; those of a child itself, for when it is open.
        self._edges: dict[tuple[int, int], list[str]] = {}
        self._enters, self._leaves = set[int](), set[int]()
        of_child: dict[int, list[Edge]] = {}
        for edge in edges:
            self._sort_in(edge, of_child)
        self._cells: list[_GridCell] = []
        for rank, child in enumerate(block.children):
            part = None
            if isinstance(child, Block) and child.number in is_open:
                part = _OpenBlock(of_child.get(rank, ()), child, is_open, label)
            self._cells.append(_cell(child, part, label(child), rank))
        # Where what comes from outside enters the frame, and where it leaves.
        self.top, self.bottom = _GridCell(0.0, 0.0, 0, 0.0), _GridCell(0.0, 0.0, 0, 0.0)
        self._connected = {
            _TOP: self.top,
            len(self._cells): self.bottom,
            **dict(enumerate(self._cells)),
        }
        self._edges |= {(_TOP, child): [] for child in sorted(self._enters)}
        self._edges |= {(child, len(self._cells)): [] for child in sorted(self._leaves)}
        self._to_rows()
        self._rows = self._with_lanes()
        _order(self._rows)
        self._set_down()
        self.boxes: list[Placed] = []
        self.lines: list[Line] = []
        self._collect()

    def _sort_in(self, edge: Edge, of_child: dict[int, list[Edge]]) -> None:
        source, target = self._owner.get(edge.source), self._owner.get(edge.target)
        for rank in {source, target} - {None}:
            of_child.setdefault(rank, []).append(edge)  # type: ignore[arg-type]
        if source is None and target is not None:
            self._enters.add(target)
        elif target is None and source is not None:
            self._leaves.add(source)
        elif source is not None and target is not None and source != target:
            # Blocks that feed one another both ways: the later one stands below.
            key = (min(source, target), max(source, target))
            passed = self._edges.setdefault(key, [])
            passed += (operator for operator in edge.operators if operator not in passed)

    def _to_rows(self) -> None:
        """A child stands one row below the lowest that feeds it; blocks go in the order given."""
        for source, target in sorted(self._edges):
            cell = self._connected[target]
            cell.row = max(cell.row, self._connected[source].row + 1)
        self.bottom.row = max((cell.row for cell in self._cells), default=0) + 1

    def _with_lanes(self) -> list[list[_GridCell]]:
        drawn_cells = list(self._cells)
        drawn_cells += [self.top] if self._enters else []
        drawn_cells += [self.bottom] if self._leaves else []
        last_row = max((cell.row for cell in drawn_cells), default=0)
        rows: list[list[_GridCell]] = [[] for _ in range(last_row + 1)]
        for cell in drawn_cells:
            rows[cell.row].append(cell)
        lengths = (
            self._connected[target].row - self._connected[source].row - 1
            for source, target in self._edges
        )
        has_lanes = sum(lengths) <= MOST_LANES
        self._chains: dict[tuple[int, int], list[_GridCell]] = {}
        for source, target in self._edges:
            first, last = self._connected[source], self._connected[target]
            chain = [first]
            if has_lanes:
                for row in range(first.row + 1, last.row):
                    lane = _GridCell(LANE, 0.0, row, (first.rank + last.rank) / 2)
                    rows[row].append(lane)
                    chain.append(lane)
            chain.append(last)
            for upper, lower in pairwise(chain):
                upper.below.append(lower)
                lower.above.append(upper)
            self._chains[source, target] = chain
        return rows

    def _set_down(self) -> None:
        y = 0.0
        for row in self._rows:
            height = max((cell.height for cell in row), default=0.0)
            for cell in row:
                # A lane is as long as what it passes by.
                cell.height = height if cell.is_lane else cell.height
                cell.y = y + (height - cell.height) / 2
            y += height + ROW_GAP
        for sweep in range(2 * SWEEPS):
            rows = self._rows if sweep % 2 == 0 else self._rows[::-1]
            for row in rows:
                _move(row, towards_above=sweep % 2 == 0)
        leftmost = min((cell.x for row in self._rows for cell in row), default=0.0)
        for row in self._rows:
            for cell in row:
                cell.x -= leftmost
        self.width = max((cell.x + cell.width for row in self._rows for cell in row), default=0.0)
        self.height = max(0.0, y - ROW_GAP)
        # On the frame itself.
        self.top.y, self.bottom.y = -HEAD, self.height + FOOT

    def _collect(self) -> None:
        for cell in self._cells:
            if cell.item is None:
                continue
            is_frame = cell.part is not None
            self.boxes.append(
                Placed(cell.item, cell.x, cell.y, cell.width, cell.height, is_open=is_frame)
            )
            if cell.part is not None:
                self._add_inside(cell, cell.part)
        for key, chain in self._chains.items():
            self.lines.append(Line(_through(chain), tuple(self._edges[key])))

    def _add_inside(self, cell: _GridCell, part: "_OpenBlock") -> None:
        dx, dy = cell.x + cell.inset, cell.y + HEAD
        for box in part.boxes:
            self.boxes.append(
                Placed(box.item, box.x + dx, box.y + dy, box.width, box.height, box.is_open)
            )
        for line in part.lines:
            moved = tuple((x + dx, y + dy) for x, y in line.through)
            self.lines.append(Line(moved, line.operators))


def _cell(child: Block | Point, part: _OpenBlock | None, label: str, rank: int) -> _GridCell:
    if part is not None:
        width = max(part.width + 2 * PADDING, _text_width(label) + 40)
        return _GridCell(width, part.height + HEAD + FOOT, 0, rank, part=part, item=child)
    if isinstance(child, Point) and child.role == "join":
        return _GridCell(JOIN_SIZE, JOIN_SIZE, 0, rank, item=child)
    narrowest = NARROWEST if isinstance(child, Point) else NARROWEST_BLOCK
    return _GridCell(max(narrowest, _text_width(label)), BOX_HEIGHT, 0, rank, item=child)


def _text_width(label: str) -> float:
    return min(WIDEST, max(NARROWEST, 24 + CHARACTER_WIDTH * len(label)))


def _order(rows: Sequence[list[_GridCell]]) -> None:
    """Order each row by the middle of its neighbours' positions, down and up again."""
    for row in rows:
        row.sort(key=lambda cell: cell.rank)
    positions = {id(cell): float(at) for row in rows for at, cell in enumerate(row)}
    for sweep in range(2 * SWEEPS):
        is_down = sweep % 2 == 0
        for row in rows if is_down else rows[::-1]:
            middles = {
                id(cell): _median(
                    [positions[id(other)] for other in (cell.above if is_down else cell.below)],
                    positions[id(cell)],
                )
                for cell in row
            }
            row.sort(key=lambda cell: (middles[id(cell)], cell.rank))
            positions.update((id(cell), float(at)) for at, cell in enumerate(row))


def _median(values: Sequence[float], default: float) -> float:
    if not values:
        return default
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def _move(row: Sequence[_GridCell], *, towards_above: bool) -> None:
    """Move a row as near to its neighbours as it can without touching: least squares.

    Boxes that would touch move together (pool adjacent violators).
    """
    offsets: list[float] = []
    at = 0.0
    for cell in row:
        offsets.append(at + cell.width / 2)
        at += cell.width + BOX_GAP
    # Each group: the sum of what its members want, how many they are.
    groups: list[tuple[float, int]] = []
    for cell, offset in zip(row, offsets, strict=True):
        others = cell.above if towards_above else cell.below
        aim = _mean([other.middle for other in others], cell.middle) - offset
        groups.append((aim, 1))
        while len(groups) > 1 and groups[-2][0] / groups[-2][1] >= groups[-1][0] / groups[-1][1]:
            total, count = groups.pop()
            groups[-1] = (groups[-1][0] + total, groups[-1][1] + count)
    starts = [total / count for total, count in groups for _ in range(count)]
    for cell, offset, start in zip(row, offsets, starts, strict=True):
        cell.x = start + offset - cell.width / 2


def _mean(values: Iterable[float], default: float) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers) if numbers else default


def _through(chain: Sequence[_GridCell]) -> tuple[tuple[float, float], ...]:
    first, *lanes, last = chain
    return (
        (first.port(is_top=False), first.y + first.height),
        *((lane.middle, y) for lane in lanes for y in (lane.y, lane.y + lane.height)),
        (last.port(is_top=True), last.y),
    )
