"""What the tests of a file claim: whether each of them can fail."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping

# Calls that give items if they are given some.
_PASSED_ON = {
    "enumerate",
    "sorted",
    "reversed",
    "list",
    "tuple",
    "set",
    "dict",
    "zip",
    "map",
    "product",
    "chain",
}
_PASSED_ON |= {"items", "keys", "values", "permutations"}
_EXPECTATIONS = ("raises", "warns", "fail")
# Names that stand for one another before it is given up.
_DEEPEST = 8

Known = Mapping[str, ast.expr]


def unfailing_tests(source: str) -> list[str]:
    """Tests that assert nothing, expect no error, or do so only in loops that may be over before they begin."""
    tree = ast.parse(source)
    functions = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    constants = _assigned(tree.body)
    return [
        name
        for name in functions
        if name.startswith("test_") and not _claims(name, functions, constants, frozenset())
    ]


def _claims(
    name: str, functions: Mapping[str, ast.FunctionDef], constants: Known, seen: frozenset[str]
) -> bool:
    """Whether a function, or a helper that it calls, makes a claim that is certain to be reached."""
    function = functions[name]
    known = {**constants, **_assigned(ast.walk(function))}
    for node in _reached(function, known):
        if isinstance(node, ast.Assert) and not _is_of_no_items(node.test, known):
            return True
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func).split(".")[-1]
            if called in _EXPECTATIONS or called.startswith("assert_"):
                return True
            if (
                called in functions
                and called not in seen
                and _claims(called, functions, constants, seen | {name})
            ):
                return True
    return False


def _reached(node: ast.AST, known: Known) -> Iterator[ast.AST]:
    """Every node below, but for the bodies of loops over what may be empty."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.For) and not _has_items(child.iter, known):
            continue
        yield child
        yield from _reached(child, known)


def _assigned(nodes: Iterable[ast.AST]) -> dict[str, ast.expr]:
    """Names and what they are assigned."""
    found: dict[str, ast.expr] = {}
    for node in nodes:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            found[node.target.id] = node.value
        if not isinstance(node, ast.Assign):
            continue
        for target in node.targets:
            if isinstance(target, ast.Name):
                found[target.id] = node.value
            elif isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                pairs = zip(target.elts, node.value.elts, strict=False)
                found |= {each.id: value for each, value in pairs if isinstance(each, ast.Name)}
    return found


def _has_items(node: ast.expr, known: Known, depth: int = 0) -> bool:
    """Whether what is iterated over is certain to have an item."""
    if depth > _DEEPEST:
        return False

    def has_items(each: ast.expr) -> bool:
        return _has_items(each, known, depth + 1)

    match node:
        case ast.Tuple(elts=items) | ast.List(elts=items) | ast.Set(elts=items):
            return any(not isinstance(item, ast.Starred) or has_items(item.value) for item in items)
        case ast.Dict(keys=keys):
            return any(key is not None for key in keys)
        case ast.Constant(value=str() | bytes() as text):
            return len(text) > 0
        case ast.Name(id=name):
            return name in known and has_items(known[name])
        case ast.BinOp(left=left, op=ast.Add() | ast.BitOr(), right=right):
            return has_items(left) or has_items(right)
        case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
            return all(not loop.ifs and has_items(loop.iter) for loop in node.generators)
        case ast.Call(func=function, args=arguments):
            called = ast.unparse(function).split(".")[-1]
            owner = [function.value] if isinstance(function, ast.Attribute) else []
            return called == "range" or (called in _PASSED_ON and any(map(has_items, [*arguments, *owner])))
    return False


def _is_of_no_items(test: ast.expr, known: Known) -> bool:
    """Whether it is `all(...)` of what may be nothing."""
    match test:
        case ast.Call(func=ast.Name(id="all"), args=[ast.GeneratorExp(generators=loops)]):
            return not all(_has_items(loop.iter, known) for loop in loops)
    return False
