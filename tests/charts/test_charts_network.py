"""Where the boxes of a network stand: below what feeds them, and never on one another."""

import random

import pytest

from quantstore.charts.network import drawn
from quantstore.queries.blocks import blocks_of, opened_blocks
from quantstore.queries.network import Edge, NetworkGraph, Point


def network(count, edges, name="/b.{block}/c{number}/Conv"):
    points = [
        Point(n, "layer", name.format(block=n // 5, number=n), "Conv", n, None)
        for n in range(count)
    ]
    return NetworkGraph(points, [Edge(a, b, {"Relu": 1}) for a, b in sorted(set(edges))])


def random_network(seed, count=60):
    chance = random.Random(seed)
    edges = [(n - 1, n) for n in range(1, count)]
    edges += [tuple(sorted(chance.sample(range(count), 2))) for _ in range(count // 2)]
    return network(count, edges)


def placed(net, most):
    root = blocks_of(net)
    return drawn(net, root, opened_blocks(root, most), lambda item: "a label")


def overlaps(one, other):
    return (
        one.x < other.x + other.width - 0.01
        and other.x < one.x + one.width - 0.01
        and one.y < other.y + other.height - 0.01
        and other.y < one.y + one.height - 0.01
    )


def holds(frame, box):
    return (
        frame.x <= box.x
        and frame.y <= box.y
        and box.x + box.width <= frame.x + frame.width + 0.01
        and box.y + box.height <= frame.y + frame.height + 0.01
    )


@pytest.mark.parametrize("most", [0, 30, 1000])
@pytest.mark.parametrize("seed", range(4))
def test_no_box_stands_on_another_but_in_its_frame(seed, most):
    drawing = placed(random_network(seed), most)
    for number, box in enumerate(drawing.boxes):
        assert 0 <= box.x <= box.x + box.width <= drawing.width + 0.01
        assert 0 <= box.y <= box.y + box.height <= drawing.height + 0.01
        for other in drawing.boxes[number + 1 :]:
            is_inside = box.is_open and holds(box, other)
            assert is_inside or not overlaps(box, other)


@pytest.mark.parametrize("seed", range(4))
def test_a_layer_stands_below_what_feeds_it(seed):
    net = random_network(seed)
    boxes = {box.item.number: box for box in placed(net, 1000).boxes if isinstance(box.item, Point)}
    assert len(boxes) == 60
    for edge in net.edges:
        assert boxes[edge.source].y + boxes[edge.source].height <= boxes[edge.target].y


def test_a_line_begins_at_its_source_and_ends_at_its_target():
    drawing = placed(network(3, [(0, 1), (0, 2), (1, 2)], name="/m.{number}/Conv"), 1000)
    by_number = {box.item.number: box for box in drawing.boxes if isinstance(box.item, Point)}
    ends = {(line.through[0], line.through[-1]) for line in drawing.lines}
    first, last = by_number[0], by_number[2]
    start = (first.x + first.width / 2, first.y + first.height)
    assert (start, (last.x + last.width / 2, last.y)) in ends
    assert all(line.operators == ("Relu",) for line in drawing.lines if line.operators)


def test_what_is_inside_a_closed_block_is_not_drawn():
    drawing = placed(random_network(0), 0)
    assert len(drawing.boxes) == 12
    assert not any(box.is_open for box in drawing.boxes)


def test_a_network_without_anything_is_empty():
    drawing = placed(NetworkGraph([], []), 10)
    assert (drawing.boxes, drawing.lines) == ((), ())
