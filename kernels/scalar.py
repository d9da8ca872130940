"""Scalar Python functions as kernels' arithmetic: their source, literals of the inputs' dtype.

A function such as ``def swish(x, beta): return x / (1 + math.exp(-beta * x))`` is compiled by Numba
for the CPU (`gradlab.kernels.cpu.elementwise`) and for a GPU
(`gradlab.kernels.numba_cuda.elementwise`).
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import cached_property
from types import FunctionType
from typing import Any

import numpy as np

LITERAL = "_literal_"  # the name under which functions see the dtype of their literals


class ScalarError(ValueError):
    """A scalar function that cannot be compiled, in one line."""


class ScalarFunction:
    """A Python function of numbers, and its source where there is one.

    ``count`` is how many values it returns; None: one, not in a tuple.
    """

    def __init__(self, function: FunctionType, count: int | None = None) -> None:
        self.function = function
        self.name = function.__name__ if function.__name__.isidentifier() else "elementwise"
        self.parameters = tuple(inspect.signature(function).parameters)
        self.count = count

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(self.parameters)})"

    @cached_property
    def tree(self) -> ast.FunctionDef | None:
        """The function's syntax, without decorators, annotations and defaults; None: no source."""
        try:
            text = textwrap.dedent(inspect.getsource(self.function))
            module = ast.parse(text)
        except (OSError, SyntaxError):  # typed at a prompt; a lambda amid a longer expression
            return None
        ast.increment_lineno(module, self.function.__code__.co_firstlineno - 1)
        found = list(_definitions(module, self.function))
        return found[0] if len(found) == 1 else None

    def typed(self, dtype: Any) -> ast.FunctionDef | None:
        """The syntax with literals turned into ``LITERAL(…)`` where they meet the inputs."""
        if self.tree is None or dtype != np.float32:
            return self.tree
        typed: ast.FunctionDef = _Literals(self.scope(dtype), self.function).visit(
            deepcopy(self.tree)
        )
        return ast.fix_missing_locations(typed)

    def scope(self, dtype: Any) -> dict[str, Any]:
        """The names that the function sees, for compiling its syntax elsewhere."""
        closure = inspect.getclosurevars(self.function).nonlocals
        return {**self.function.__globals__, **closure, LITERAL: np.dtype(dtype).type}

    def compiled(self, dtype: Any) -> FunctionType:
        """The function with its literals in ``dtype``; as it is, where there is no source."""
        tree = self.typed(dtype)
        if tree is None:
            return self.function
        scope = self.scope(dtype)
        file = self.function.__code__.co_filename
        exec(compile(ast.Module([tree], []), file, "exec"), scope)
        made: FunctionType = scope[tree.name]
        return made


def _definitions(module: ast.Module, function: FunctionType) -> Iterator[ast.FunctionDef]:
    is_lambda = function.__name__ == "<lambda>"
    names = list(inspect.signature(function).parameters) if is_lambda else None
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef) and node.name == function.__name__:
            yield _bare(node.args, node.body, node)
        elif isinstance(node, ast.Lambda) and [each.arg for each in node.args.args] == names:
            yield _bare(node.args, [ast.copy_location(ast.Return(node.body), node)], node)


def _bare(args: ast.arguments, body: list[ast.stmt], at: ast.AST) -> ast.FunctionDef:
    names = [ast.arg(each.arg) for each in (*args.posonlyargs, *args.args)]
    made = ast.parse("def _function_(): pass").body[0]
    assert isinstance(made, ast.FunctionDef)
    made.args.args, made.body = names, body
    return ast.fix_missing_locations(ast.copy_location(made, at))


class _Literals(ast.NodeTransformer):
    """Gives the numbers in arithmetic the inputs' dtype.

    In Numba ``1 + x`` is a float64 for an x of float32, since its 1 is an int64. In NumPy, and so
    in every other op of gradlab, a Python number takes the dtype of the array beside it. Numbers
    that count (exponents, indices, the ends of a range) stay as they are. What counts as a literal
    too is a float from around the function: ``math.pi``, ``ALPHA``.
    """

    def __init__(self, scope: dict[str, Any], function: FunctionType) -> None:
        code = function.__code__
        self.scope = {name: scope[name] for name in scope if name not in code.co_varnames}

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        node.left = self.literal(node.left)
        whole = isinstance(node.op, ast.Pow) and _is_whole(node.right)
        if not whole:
            node.right = self.literal(node.right)
        return node

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        node.left = self.literal(node.left)
        node.comparators = [self.literal(each) for each in node.comparators]
        return node

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        self.generic_visit(node)
        node.body, node.orelse = self.literal(node.body), self.literal(node.orelse)
        return node

    def visit_Return(self, node: ast.Return) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.value, ast.Tuple):
            node.value.elts = [self.literal(each) for each in node.value.elts]
        elif node.value is not None:
            node.value = self.literal(node.value)
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if ast.unparse(node.func) not in ("range", "int", LITERAL):
            node.args = [self.literal(each) for each in node.args]
        return node

    def visit_Assign(self, node: ast.Assign) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.value, ast.Constant) and isinstance(node.value.value, float):
            node.value = self.literal(node.value)  # an int may be a counter
        return node

    def literal(self, node: ast.expr) -> ast.expr:
        inner = node.operand if isinstance(node, ast.UnaryOp) else node
        if isinstance(inner, ast.Constant):
            number = type(inner.value) in (int, float)
        else:
            number = type(self.value(inner)) is float
        if not number:
            return node
        made = ast.Call(ast.Name(LITERAL, ast.Load()), [node], [])
        return ast.copy_location(made, node)

    def value(self, node: ast.expr) -> Any:
        """What a name, or an attribute of a name, from around the function stands for."""
        if isinstance(node, ast.Name):
            return self.scope.get(node.id)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            return getattr(self.scope.get(node.value.id), node.attr, None)
        return None


def _is_whole(node: ast.expr) -> bool:
    if isinstance(node, ast.UnaryOp):
        node = node.operand
    return isinstance(node, ast.Constant) and isinstance(node.value, int)


# --------------------------------------------------------------------------------------- errors

_OPCODES = {
    "IMPORT_NAME": "an import inside the function",
    "LOAD_BUILD_CLASS": "a class inside the function",
}


def explain(scalar: ScalarFunction, dtype: Any, error: Exception) -> ScalarError:
    """One line for what Numba said: the function, what it cannot compile, and where."""
    line = getattr(getattr(error, "loc", None), "line", None)
    found = re.search(r"Raised from .*\((\d+)\)", str(error))
    line = int(found[1]) if found else line
    where = f" (line {line})" if line and line > 0 else ""
    return ScalarError(
        f"{scalar.name}: expected a function of numbers that Numba can compile, got one with "
        f"{_reason(error)} for {np.dtype(dtype).name}{where}; use arithmetic, comparisons, "
        "conditions, loops and the module math"
    )


def _reason(error: Exception) -> str:
    text = re.sub(r"\x1b\[[\d;]*m", "", str(error))  # Numba colours its messages with colorama
    opcode = re.search(r"unsupported opcode \((\w+)\)", text)
    if opcode:
        return _OPCODES.get(opcode[1], f"an unsupported construct ({opcode[1]})")
    call = re.search(r"^\s*>>> (.*)$", text, re.MULTILINE)
    if call:
        return f"no implementation of {call[1]}"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    lines = [each for each in lines if not each.startswith(("Failed in", "During:"))]
    first = re.split(r"\.? ?Raised from", lines[0] if lines else type(error).__name__)[0]
    return f"an error: {first.rstrip('.')}"


def compiling(scalar: ScalarFunction, dtype: Any, compile_it: Callable[[FunctionType], Any]) -> Any:
    """``compile_it`` of the function with typed literals; of the function as it is if that fails.

    A number that was taken for arithmetic may have been a count after all.
    """
    typed = scalar.compiled(dtype)
    try:
        return compile_it(typed)
    except Exception as error:
        if typed is scalar.function:
            raise explain(scalar, dtype, error) from None
    try:
        return compile_it(scalar.function)
    except Exception as error:
        raise explain(scalar, dtype, error) from None
