"""A name says what a thing is, and a type's name means one thing."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise

from tests.support.sources import MODULES, PACKAGE, nodes_of, tree_of

# They name the act of finding a thing, or nothing at all.
VAGUE = {
    *("found", "said", "told", "one", "own", "known", "wanted", "given", "made", "left"),
    *("here", "how", "what", "kind", "place", "words", "parts", "more"),
}
MOST_VAGUE_PER_THOUSAND = 1.0

SCOPES = (
    *(ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda),
    *(ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp),
)


def parameters(node: ast.AST) -> Iterator[ast.arg]:
    arguments = getattr(node, "args", None)
    if isinstance(arguments, ast.arguments):
        yield from (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
        yield from filter(None, (arguments.vararg, arguments.kwarg))


def bindings(scope: ast.AST) -> Iterator[tuple[str, int]]:
    """Every name that is bound, once for each scope, with its line."""
    bound = {argument.arg: argument.lineno for argument in parameters(scope)}
    inner: list[ast.AST] = []
    waiting = list(ast.iter_child_nodes(scope))
    while waiting:
        node = waiting.pop()
        if isinstance(node, SCOPES):
            inner.append(node)
            if name := getattr(node, "name", None):
                bound.setdefault(name, node.lineno)
            continue
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            bound.setdefault(node.id, node.lineno)
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
            bound.setdefault(node.name, node.lineno)
        waiting.extend(ast.iter_child_nodes(node))
    yield from ((name, line) for name, line in bound.items() if name not in ("self", "cls", "_"))
    for node in inner:
        yield from bindings(node)


def test_few_bindings_are_vague() -> None:
    count = 0
    vague = []
    for path in MODULES:
        for name, line in bindings(tree_of(path)):
            count += 1
            if name.strip("_") in VAGUE:
                vague.append(f"{path.relative_to(PACKAGE)}:{line} {name}")
    assert count > 5_000
    assert 1000 * len(vague) / count <= MOST_VAGUE_PER_THOUSAND, "\n".join(vague)


def test_bindings_are_counted_wherever_they_are() -> None:
    source = """
def found(told, *own, kind=1, **more):
    one = [here for here in own if (left := here)]
    with open("x") as place:
        for what, how in one: words: int = what
    try: pass
    except ValueError as said: pass
    match one:
        case [wanted, *parts]: pass
    return lambda given: given
class made: known = 1
"""
    assert {name for name, _ in bindings(ast.parse(source))} == VAGUE


def test_a_type_name_means_one_thing() -> None:
    homes = defaultdict(list)
    for path in MODULES:
        for node in tree_of(path).body:
            if isinstance(node, ast.ClassDef):
                name = node.name
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                name = node.targets[0].id
            else:
                continue
            # CamelCase: constants are shouted, and a class of its own has a capital.
            if name.strip("_")[:1].isupper() and not name.isupper():
                homes[name.strip("_")].append(str(path.relative_to(PACKAGE)))
    assert {name: paths for name, paths in homes.items() if len(paths) > 1} == {}


def test_no_string_stands_alone() -> None:
    # The second line of a text in two lines without parentheses: nobody would ever read it.
    alone = [
        f"{path.relative_to(PACKAGE)}:{statement.lineno}"
        for path in MODULES
        for scope in nodes_of(path)
        if isinstance(body := getattr(scope, "body", None), list)
        for before, statement in pairwise(body)
        if isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant | ast.JoinedStr)
        and not isinstance(before, ast.AnnAssign)
    ]
    assert alone == []
