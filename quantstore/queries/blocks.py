"""The points of a network in, its blocks out: a tree that people can open part by part.

Exporters write the modules of a program into the names of nodes. Where they do not, a block is what
lies between two places that everything flows through, such as a residual block.
"""

import heapq
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from quantstore.queries.network import NetworkGraph, Point

# More boxes beside and below one another than these are no picture: consecutive ones go together.
MOST_CHILDREN = 40
# A chain of layers without a path is cut into blocks of so many.
_LONGEST_RUN = 8
# A path deeper than this is no nest of modules.
_DEEPEST = 12

Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Block:
    """A part of a network. ``number`` tells it apart; ``title`` is without what is around it.

    ``children`` are blocks and points, what feeds the others first.
    """

    number: int
    title: str
    children: "tuple[Block | Point, ...]"

    def points(self) -> Iterator[Point]:
        """All that is in it, however deep."""
        for child in self.children:
            if isinstance(child, Point):
                yield child
            else:
                yield from child.points()

    def labels(self) -> dict[int, str]:
        """The points in it by their numbers, without what the blocks around them say."""
        labels = {point.number: point.name for point in self.children if isinstance(point, Point)}
        for child in self.children:
            if isinstance(child, Block):
                labels |= child._labels_below()
        return labels

    def _labels_below(self) -> dict[int, str]:
        names = {point.number: point.name for point in self.points()}
        shared = len(_shared_modules(list(names.values())))
        labels = {number: name[shared:] or name for number, name in names.items()}
        for child in self.children:
            if isinstance(child, Block):
                labels |= child._labels_below()
        return labels

    def blocks(self) -> "Iterator[Block]":
        """It and all blocks in it, those around others first."""
        yield self
        for child in self.children:
            if isinstance(child, Block):
                yield from child.blocks()

    @property
    def layer_count(self) -> int:
        """How many of its points are layers."""
        return sum(point.role == "layer" for point in self.points())


def _shared_modules(names: Sequence[str]) -> str:
    """What names begin with in common, up to a slash."""
    # What the first and the last in order share, all between them share.
    first, last = min(names), max(names)
    pairs = enumerate(zip(first, last, strict=False))
    length = next((at for at, (a, b) in pairs if a != b), min(len(first), len(last)))
    return first[: first.rfind("/", 0, length) + 1]


def blocks_of(network: NetworkGraph) -> Block:
    """The whole network as a block, whose title is empty."""
    paths = _paths(network)
    return _Numbering().block("", _tree(network.points, paths, 0))


def titles_in(points: Iterable[Point], title: str) -> str:
    """``first … last`` for several points that no module holds together."""
    names = [point.name for point in points if point.role == "layer"] or [title]
    return names[0] if len(names) == 1 else f"{names[0]} … {names[-1]}"


@dataclass(frozen=True, slots=True)
class _BlockDraft:
    title: str
    children: "tuple[_BlockDraft | Point, ...]"


class _Numbering:
    """Gives blocks their numbers from the outside in, and puts long rows of children together."""

    def __init__(self) -> None:
        self._next = 0

    def block(self, title: str, children: "Sequence[_BlockDraft | Point]") -> Block:
        number = self._next
        self._next += 1
        few = _few(children)
        return Block(
            number,
            title,
            tuple(
                child if isinstance(child, Point) else self.block(child.title, child.children)
                for child in few
            ),
        )


def _few(children: "Sequence[_BlockDraft | Point]") -> "Sequence[_BlockDraft | Point]":
    if len(children) <= MOST_CHILDREN:
        return children
    size = max(_LONGEST_RUN, -(-len(children) // MOST_CHILDREN))
    return [_together(children[at : at + size]) for at in range(0, len(children), size)]


def _together(children: "Sequence[_BlockDraft | Point]") -> "_BlockDraft | Point":
    if len(children) == 1:
        return children[0]
    points = [child if isinstance(child, Point) else _first(child) for child in children]
    last = children[-1]
    first_name = children[0].name if isinstance(children[0], Point) else children[0].title
    last_name = last.name if isinstance(last, Point) else last.title
    title = f"{first_name} … {last_name}" if first_name and last_name else points[0].name
    return _BlockDraft(title, tuple(children))


def _first(draft: _BlockDraft) -> Point:
    child = draft.children[0]
    return child if isinstance(child, Point) else _first(child)


def _tree(
    points: Sequence[Point], paths: Mapping[int, Path], depth: int
) -> "list[_BlockDraft | Point]":
    """What is in one block: blocks one level further in, and what lies directly in it."""
    by_segment: dict[str, list[Point]] = {}
    children: list[_BlockDraft | Point | str] = []
    for point in points:
        path = paths[point.number]
        if len(path) <= depth:
            children.append(point)
            continue
        if path[depth] not in by_segment:
            children.append(path[depth])
        by_segment.setdefault(path[depth], []).append(point)
    return [
        _opened(child, by_segment[child], paths, depth + 1) if isinstance(child, str) else child
        for child in children
    ]


def _opened(
    title: str, points: Sequence[Point], paths: Mapping[int, Path], depth: int
) -> "_BlockDraft | Point":
    """A block; a single thing in it takes its place."""
    if len(points) == 1:
        return points[0]
    children = _tree(points, paths, depth)
    if len(children) == 1 and isinstance(child := children[0], _BlockDraft):
        # ``blocks`` around ``blocks.2`` says nothing that ``blocks.2`` does not.
        is_repeated = child.title.startswith((f"{title}.", f"{title}/"))
        return _BlockDraft(child.title if is_repeated else f"{title}/{child.title}", child.children)
    return _BlockDraft(title, tuple(children))


# Paths


def _paths(network: NetworkGraph) -> dict[int, Path]:
    """The modules around each point, from the outside in."""
    paths: dict[int, Path] = {}
    for point in network.points:
        if point.role in ("input", "output"):
            paths[point.number] = ()
        elif point.module_path:
            paths[point.number] = tuple(point.module_path.split(".")[:_DEEPEST])
        elif path := _path_in(point.name):
            paths[point.number] = path
    pathless = [point for point in network.points if point.number not in paths]
    if any(paths.values()):
        sources = network.sources()
        for point in pathless:
            # A join belongs to where the last of what it joins comes from.
            before = [paths[source] for source in sources.get(point.number, ()) if source in paths]
            paths[point.number] = max(before, key=len)[:-1] if before else ()
        return paths
    for title, points in _stages(network, pathless):
        for point in points:
            paths[point.number] = (title,) if len(points) > 1 else ()
    return paths


def _path_in(name: str) -> Path:
    """The modules that a name tells: all but the last part, which is the node itself."""
    separator = "/" if "/" in name else "."
    segments = [part for part in name.split(separator) if part][:-1]
    # Numbers behind a dot are part of a name such as ``Conv.1``.
    if separator == "." and not all(re.fullmatch(r"\w+", part) for part in segments):
        return ()
    return tuple(segments[:_DEEPEST])


def _stages(network: NetworkGraph, points: Sequence[Point]) -> Iterator[tuple[str, list[Point]]]:
    """Points without a path, between places that everything flows through.

    A row of single layers is cut after some; a stage of many is cut into its chains.
    """
    readers = network.readers()
    narrow = _narrow_places(network)
    stage: list[Point] = []
    row: list[Point] = []
    for point in points:
        stage.append(point)
        if point.number not in narrow:
            continue
        if len(stage) > 1:
            yield from _titled(row)
            row = []
            yield from _chains(stage, readers)
        else:
            row += stage
            if len(row) == _LONGEST_RUN:
                yield from _titled(row)
                row = []
        stage = []
    yield from _titled(row)
    yield from _chains(stage, readers)


def _titled(points: Sequence[Point]) -> Iterator[tuple[str, list[Point]]]:
    if points:
        yield titles_in(points, points[0].name), list(points)


def _chains(
    stage: Sequence[Point], readers: Mapping[int, Sequence[int]]
) -> Iterator[tuple[str, list[Point]]]:
    """A stage itself, or its chains: points of which each is read by the next alone."""
    if len(stage) <= 2 * _LONGEST_RUN:
        yield from _titled(stage)
        return
    chain: list[Point] = []
    for point in stage:
        if chain and readers.get(chain[-1].number, ()) != [point.number]:
            yield from _titled(chain)
            chain = []
        chain.append(point)
    yield from _titled(chain)


def _narrow_places(network: NetworkGraph) -> set[int]:
    """Points behind which nothing is read that comes from before them."""
    last_reader: dict[int, int] = {}
    for edge in network.edges:
        last_reader[edge.source] = max(edge.target, last_reader.get(edge.source, 0))
    narrow: set[int] = set()
    reach = 0
    for point in network.points:
        # Whatever came before is read up to here at the latest.
        if reach <= point.number:
            narrow.add(point.number)
        reach = max(reach, last_reader.get(point.number, 0))
    return narrow


def opened_blocks(root: Block, most: int) -> set[int]:
    """The blocks to open so that so many boxes are seen at most: those with most layers first."""
    seen = len(root.children)
    is_open: set[int] = set()
    waiting: list[tuple[int, int, Block]] = []

    def look_into(block: Block) -> None:
        for child in block.children:
            if isinstance(child, Block):
                heapq.heappush(waiting, (-child.layer_count, child.number, child))

    look_into(root)
    while waiting:
        *_, block = heapq.heappop(waiting)
        # Its frame stays a box.
        if seen + len(block.children) <= most:
            seen += len(block.children)
            is_open.add(block.number)
            look_into(block)
    return is_open
