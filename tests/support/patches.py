"""Code that tests run in the processes that they start, as text: what it replaces and reads is looked up by day.

Most of these tests run by night only; a name that has moved would there be found late, or never: a safeguard that is
taken away under a former name is not taken away.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import operator
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

_MODULE = re.compile(r"(macil|tune|ray)(\.\w+)+")
_PLACE = re.compile(r"((?:macil|tune)(?:\.\w+)+):([A-Za-z_][\w.]*)")
# What may stand where a text puts something in: a value, or statements of a function.
_HOLES = ("None", "    pass\n")
_IMPORT = re.compile(r"^(from|import) (macil|tune|tests)\b", re.MULTILINE)


class Patch(NamedTuple):
    """Code that `tests/injected` runs at the end of a module's import."""

    line: int
    module: str
    code: str


class Texts:
    """The texts in a file of tests."""

    def __init__(self, source: str) -> None:
        self.tree = ast.parse(source)
        self._assigned = {
            ast.unparse(target): node.value
            for node in ast.walk(self.tree)
            if isinstance(node, ast.Assign)
            for target in node.targets
        }

    def patches(self) -> Iterator[Patch]:
        """Every entry of a table of a module's name and code, and what is added to one."""
        for node in ast.walk(self.tree):
            pairs: list[tuple[ast.expr | None, ast.expr]] = []
            if isinstance(node, ast.Dict):
                pairs = list(zip(node.keys, node.values, strict=True))
            elif isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Subscript):
                pairs = [(node.target.slice, node.value)]
            for key, value in pairs:
                module = self.text(key)
                if module and _MODULE.fullmatch(module) and self.text(value):
                    codes = [self.text(value, hole) or "" for hole in _HOLES]
                    yield Patch(value.lineno, module, next(filter(_is_code, codes), codes[0]))

    def places(self) -> Iterator[tuple[int, str, str]]:
        """Line, module and name of every text of the form "module:name"."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                for module, name in _PLACE.findall(node.value):
                    yield node.lineno, module, name

    def programs(self) -> Iterator[tuple[int, ast.Module]]:
        """Line and code of every text that is a program which imports something of ours."""
        for node in ast.walk(self.tree):
            text = self.text(node) if isinstance(node, ast.Constant | ast.JoinedStr) else None
            if text and _IMPORT.search(text):
                try:
                    yield node.lineno, ast.parse(text)  # type: ignore[attr-defined]
                except SyntaxError:
                    continue  # a half of one, or prose

    def text(self, node: ast.AST | None, hole: str = _HOLES[0]) -> str | None:
        """The text that an expression is, with `hole` for what is put into it; None where it is no text."""
        if isinstance(node, ast.Constant):
            return node.value if isinstance(node.value, str) else None
        if isinstance(node, ast.JoinedStr):
            return "".join(self.text(part) or hole for part in node.values)
        if isinstance(node, ast.Name):
            return self.text(self._assigned.get(node.id), hole)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            both = self.text(node.left, hole), self.text(node.right, hole)
            return None if None in both else f"{both[0]}{both[1]}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "format":
            template = self.text(node.func.value)
            return template and re.sub(r"\{\w+(![rs])?\}", hole, template)
        return None


def missing_of_patch(module: str, code: str) -> list[str]:
    """Names that the code replaces or reads, and that the module has not."""
    there = vars(importlib.import_module(module))
    tree = ast.parse(code)
    return _unknown(tree, there) + [
        name for name in _replaced(tree) if not _has(there, name.split(".")[0], name)
    ]


def missing_of_program(tree: ast.Module) -> list[str]:
    """What a program imports of ours or reads, and that is not there."""
    missing = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in (
            "macil",
            "tune",
            "tests",
        ):
            found = importlib.import_module(node.module or "")
            missing += [
                f"{node.module}.{alias.name}" for alias in node.names if not hasattr(found, alias.name)
            ]
        elif isinstance(node, ast.Import):
            for alias in node.names:
                importlib.import_module(alias.name)
    return missing + _unknown(tree, {})


def has_name(module: str, name: str) -> bool:
    """Whether a module has a name, or a class of it an attribute."""
    return _has(vars(importlib.import_module(module)), name.split(".")[0], name)


def _has(names: dict[str, Any], root: str, dotted: str) -> bool:
    if root not in names:
        return False
    rest = dotted.partition(".")[2]
    try:
        return not rest or operator.attrgetter(rest)(names[root]) is not None
    except AttributeError:
        return False


def _replaced(tree: ast.Module) -> set[str]:
    """The names that are bound; without those that only the code itself reads, which are its own."""
    read = {
        node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    }
    bound = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    bound |= {
        ast.unparse(target) for node in tree.body if isinstance(node, ast.Assign) for target in node.targets
    }
    return {name for name in bound if name not in read}


def _unknown(tree: ast.Module, there: dict[str, Any]) -> list[str]:
    """The names and attributes of these that are read, and that are neither there nor bound before."""
    bound: set[str] = set()
    later: list[tuple[ast.AST, set[str]]] = []
    unknown: list[str] = []
    for statement in tree.body:
        if isinstance(statement, ast.FunctionDef):
            bound.add(statement.name)
            arguments = statement.args
            names = [*arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
            later.append((statement, _bound_in(statement) | {each.arg for each in names if each}))
        else:
            unknown += _unknown_in(statement, there, bound | _bound_in(statement))
            bound |= _bound_in(statement)
    for function, own in later:
        unknown += _unknown_in(function, there, bound | own)
    return unknown


def _bound_in(node: ast.AST) -> set[str]:
    names = {
        each.id for each in ast.walk(node) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)
    }
    for each in ast.walk(node):
        if isinstance(each, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in each.names}
        elif isinstance(each, ast.FunctionDef | ast.ClassDef):
            names.add(each.name)
        elif isinstance(each, ast.arg):
            names.add(each.arg)
    return names


def _unknown_in(node: ast.AST, there: dict[str, Any], bound: set[str]) -> list[str]:
    known = bound | there.keys() | set(dir(builtins))
    unknown = []
    for each in ast.walk(node):
        if isinstance(each, ast.Attribute) and isinstance(each.value, ast.Name) and _is_read(each):
            root, dotted = each.value.id, f"{each.value.id}.{each.attr}"
            if root in there and root not in bound and not _has(there, root, dotted):
                unknown.append(dotted)
        elif isinstance(each, ast.Name) and _is_read(each) and each.id not in known:
            unknown.append(each.id)
    return unknown


def _is_read(node: ast.Attribute | ast.Name) -> bool:
    return isinstance(node.ctx, ast.Load)


def _is_code(text: str) -> bool:
    try:
        ast.parse(text)
    except SyntaxError:
        return False
    return True


def files_of_tests(folder: Path) -> dict[str, Texts]:
    """The texts of every file below the folder of the tests, by its name in it."""
    return {
        path.relative_to(folder).as_posix(): Texts(path.read_text(encoding="utf-8"))
        for path in sorted(folder.rglob("*.py"))
    }
