"""Dimensions that inputs name, and sums of them: decided together.

A decoder with a cache says that its mask is as long as ``past_sequence_length + 1``. Lengths that
are chosen one by one contradict it; onnxruntime then refuses every one of them.
"""

import ast
import operator
from collections.abc import Callable, Iterable, Mapping

# A file may come from anybody: a sum without end would exhaust the stack.
_LONGEST_TEXT = 200
_OPERATIONS: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
}


def sizes(
    texts: Iterable[str], lengths: Mapping[str, int], otherwise: int
) -> dict[str, int] | None:
    """The size of every dimension, by its text: a name, or what is computed from names.

    Args:
        texts: of dimensions that are open, as the file has them.
        lengths: of names that are decided.
        otherwise: the size of every other name.

    Returns:
        None where nothing is computed: names alone bind nobody, for exporters give one to
        dimensions that have nothing in common.
    """
    parsed = {text: _parsed(text) for text in texts}
    if not any(isinstance(tree, ast.BinOp) for tree in parsed.values()):
        return None
    sizes = {}
    for text, tree in parsed.items():
        size = None if tree is None else _value(tree, lengths, otherwise)
        if size is not None and size > 0:
            sizes[text] = size
    return sizes


def _parsed(text: str) -> ast.expr | None:
    if len(text) > _LONGEST_TEXT:
        return None
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError):
        # A name that is none in Python: nothing can be computed from it.
        return None


def _value(tree: ast.expr, lengths: Mapping[str, int], otherwise: int) -> int | None:
    match tree:
        case ast.Name(id=name):
            return lengths.get(name, otherwise)
        case ast.Constant(value=int(number)):
            return number
        case ast.BinOp(left=first, op=operation, right=second) if type(operation) in _OPERATIONS:
            sides = (_value(first, lengths, otherwise), _value(second, lengths, otherwise))
            if sides[0] is None or sides[1] is None or (sides[1] == 0):
                return None
            return _OPERATIONS[type(operation)](sides[0], sides[1])
    return None
