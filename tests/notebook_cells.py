"""A cell of a notebook, run as a notebook runs it."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any


def run_cell(
    source: str,
    namespace: dict[str, Any],
    show: Callable[[Any], str] = repr,
    path: str = "<cell>",
    line: int = 0,
) -> None:
    """Run a cell, and print its last line's value, if that is an expression without semicolon.

    ``path`` and ``line``, the number of lines before it, are where tracebacks say that it stands.
    """
    tree = ast.parse(source)
    ast.increment_lineno(tree, line)
    shown = None
    if tree.body and isinstance(tree.body[-1], ast.Expr) and not source.rstrip().endswith(";"):
        shown = ast.Expression(tree.body.pop().value)  # type: ignore[attr-defined]
    exec(compile(tree, path, "exec"), namespace)
    if shown is not None:
        value = eval(compile(shown, path, "eval"), namespace)
        if value is not None:
            print(show(value))
