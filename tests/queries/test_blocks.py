"""How the points of a network become blocks: by the paths in their names, else by its shape."""

from itertools import pairwise

import pytest

from quantstore.queries.blocks import MOST_CHILDREN, Block, blocks_of, opened_blocks
from quantstore.queries.network import Edge, NetworkGraph, Point


def network(names, edges, module_paths=None, joins=()):
    """Points numbered as they come; a name in ``joins`` is no layer."""
    paths = module_paths or {}
    points = [
        Point(
            number,
            "join" if name in joins else "layer",
            name,
            "Add" if name in joins else "Conv",
            number,
            paths.get(name),
        )
        for number, name in enumerate(names)
    ]
    numbers = {name: number for number, name in enumerate(names)}
    return NetworkGraph(points, [Edge(numbers[a], numbers[b], {}) for a, b in edges])


def chain(names):
    return network(names, list(pairwise(names)))


def outline(block):
    return [
        (child.title, outline(child)) if isinstance(child, Block) else child.name
        for child in block.children
    ]


def test_modules_in_names_are_blocks_and_what_says_nothing_is_left_out():
    names = ["/stem/conv/Conv", *(f"/blocks/blocks.{n}/{p}/Conv" for n in (0, 1) for p in "ab")]
    assert outline(blocks_of(chain(names))) == [
        "/stem/conv/Conv",
        (
            "blocks",
            [
                ("blocks.0", ["/blocks/blocks.0/a/Conv", "/blocks/blocks.0/b/Conv"]),
                ("blocks.1", ["/blocks/blocks.1/a/Conv", "/blocks/blocks.1/b/Conv"]),
            ],
        ),
    ]


def test_a_block_around_a_single_block_takes_its_place():
    names = ["/head/a/Conv", "/body/body.0/x/Conv", "/body/body.0/y/Conv"]
    assert outline(blocks_of(chain(names)))[1][0] == "body.0"


def test_dotted_module_paths_count_more_than_names():
    names = ["node_conv_1", "node_conv_2", "node_add", "node_conv_3"]
    paths = {"node_conv_1": "layer1.0.conv1", "node_conv_2": "layer1.0.conv2", "node_conv_3": "fc"}
    edges = [(0, 1), (0, 2), (1, 2), (2, 3)]
    joined = network(names, [(names[a], names[b]) for a, b in edges], paths, joins=("node_add",))
    assert outline(blocks_of(joined)) == [
        ("layer1/0", ["node_conv_1", "node_conv_2", "node_add"]),
        "node_conv_3",
    ]


def test_numbered_layers_are_held_together_by_where_branches_meet():
    names = ["Conv_0", "Conv_1", "Conv_2", "Add_3", "Conv_4", "Conv_5", "Add_6", "Conv_7"]
    edges = [
        *[("Conv_0", "Conv_1"), ("Conv_1", "Conv_2"), ("Conv_0", "Add_3"), ("Conv_2", "Add_3")],
        *[("Add_3", "Conv_4"), ("Conv_4", "Conv_5"), ("Add_3", "Add_6"), ("Conv_5", "Add_6")],
        ("Add_6", "Conv_7"),
    ]
    blocks = blocks_of(network(names, edges, joins=("Add_3", "Add_6")))
    assert outline(blocks) == [
        "Conv_0",
        ("Conv_1 … Conv_2", ["Conv_1", "Conv_2", "Add_3"]),
        ("Conv_4 … Conv_5", ["Conv_4", "Conv_5", "Add_6"]),
        "Conv_7",
    ]


@pytest.mark.parametrize("count", [10, 500, 5000])
def test_no_block_has_more_children_than_a_picture_can_show(count):
    root = blocks_of(chain([f"Conv_{number}" for number in range(count)]))
    assert [point.number for point in root.points()] == list(range(count))
    assert all(len(block.children) <= MOST_CHILDREN for block in root.blocks())


@pytest.mark.parametrize(
    "name", ["", "/", "//", "a" * 9000, "/" + "x/" * 9000, ".", "..a..b", "é/ü"]
)
def test_names_that_are_no_paths_are_layers_all_the_same(name):
    root = blocks_of(chain([name, f"{name}2", f"{name}3"]))
    assert sum(1 for _ in root.points()) == 3
    assert set(root.labels()) == {0, 1, 2}


def test_a_label_leaves_out_what_its_blocks_say():
    names = ["/stem/Conv", "/body/body.0/a/Conv", "/body/body.0/b/Conv"]
    assert blocks_of(chain(names)).labels() == {0: "/stem/Conv", 1: "a/Conv", 2: "b/Conv"}


def test_blocks_are_opened_until_a_window_is_full():
    root = blocks_of(chain([f"/m.{n}/{p}/Conv" for n in range(6) for p in "abc"]))
    assert len(root.children) == 6
    assert opened_blocks(root, 0) == set()
    assert len(opened_blocks(root, 12)) == 2
    assert len(opened_blocks(root, 1000)) == 6
