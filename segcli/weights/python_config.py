"""mmdetection's configs, which are Python files: read as data, never executed.

A config is assignments of literals, lists, `dict(…)` calls and names assigned before. What is more than that becomes
`UNKNOWN`.
"""

from __future__ import annotations

import ast
import re
from typing import Any


class Unknown:
    """A value that only running the config would give."""

    def __repr__(self) -> str:
        return "unknown"


UNKNOWN = Unknown()
_FILE_NAME_LINE = re.compile(r"^[^\s=#()'\"]*\.py\s*$", re.MULTILINE)
_DEPTH = 100


def read_config(text: str) -> dict[str, Any]:
    """The variables that a config assigns.

    mmdetection 1.x stores the text of its files one after another, each under a line with the file's name; of a dict
    that several of them assign, later ones change the keys that they name.

    Raises:
        ValueError: not Python.
    """
    text, files = _FILE_NAME_LINE.subn("", text)
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"config is no Python text ({error})") from error
    variables: dict[str, Any] = {}
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            name, value = statement.targets[0].id, _value(statement.value, variables, _DEPTH)
            before = variables.get(name)
            merge = files > 1 and isinstance(before, dict) and isinstance(value, dict)
            variables[name] = _merged(before, value) if merge else value
    return variables


def _merged(base: Any, changes: dict[str, Any]) -> dict[str, Any]:
    """A dict with changes, by the rule of mmcv for configs with bases; `_delete_` replaces instead."""
    if changes.get("_delete_") is True or not isinstance(base, dict):
        return {k: v for k, v in changes.items() if k != "_delete_"}
    merged = dict(base)
    for key, value in changes.items():
        merged[key] = _merged(base.get(key), value) if isinstance(value, dict) else value
    return merged


def _value(node: ast.expr, known: dict[str, Any], depth: int) -> Any:
    if depth == 0:
        return UNKNOWN
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name):
        return known.get(node.id, UNKNOWN)
    if isinstance(node, ast.List | ast.Tuple):
        return [_value(part, known, depth - 1) for part in node.elts]
    if isinstance(node, ast.Dict):
        return _dict(zip(node.keys, node.values, strict=True), known, depth)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
        names = [ast.Constant(k.arg) if k.arg is not None else None for k in node.keywords]
        return _dict(zip(names, (k.value for k in node.keywords), strict=True), known, depth)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        number = _value(node.operand, known, depth - 1)
        return -number if isinstance(number, int | float) else UNKNOWN
    return UNKNOWN


def _dict(pairs: Any, known: dict[str, Any], depth: int) -> dict[str, Any]:
    """A dict; a key of None is `**other`."""
    table: dict[str, Any] = {}
    for key, node in pairs:
        value = _value(node, known, depth - 1)
        if key is None:
            table.update(value if isinstance(value, dict) else {})
        else:
            table[str(_value(key, known, depth - 1))] = value
    return table
