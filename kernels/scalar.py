"""Scalar Python functions as kernels' arithmetic: their source, literals of the inputs' dtype.

A function such as ``def swish(x, beta): return x / (1 + math.exp(-beta * x))`` is compiled by Numba
for the CPU (`gradlab.kernels.cpu.elementwise`) and for a GPU
(`gradlab.kernels.numba_cuda.elementwise`).
"""

from __future__ import annotations
import __future__

import ast
import contextlib
import dis
import linecache
import re
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import cached_property, partial, reduce
from operator import or_
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np

FUNCTION = "_function_"  # what the syntax of a function is called
LITERAL = "_literal_"  # the name under which functions see the dtype of their literals


class ScalarError(ValueError):
    """A scalar function that cannot be compiled, in one line."""


class ScalarFunction:
    """A Python function of numbers, and its source where there is one.

    ``count`` is how many values it returns; None: one, not in a tuple.
    """

    def __init__(self, function: FunctionType, count: int | None = None) -> None:
        code = function.__code__
        self.function = function
        self.name = function.__name__ if function.__name__.isidentifier() else "elementwise"
        self.parameters = code.co_varnames[: code.co_argcount]
        self.count = count
        # Taken now and parsed when needed: by then the file may say something else.
        linecache.checkcache(code.co_filename)
        self._lines = linecache.getlines(code.co_filename, function.__globals__)

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(self.parameters)})"

    @cached_property
    def tree(self) -> ast.FunctionDef | None:
        """The function's syntax, without decorators, annotations and defaults.

        None where there is no source, or none that compiles to this very function: its file has
        changed since it was imported, or it is not the function found there.
        """
        try:
            module = ast.parse("".join(self._lines))
        except SyntaxError:  # a cell with more than Python in it; a file in the midst of a change
            return None
        imports = list(_global_imports(module))
        for node in ast.walk(module):
            if isinstance(node, ast.FunctionDef | ast.Lambda):
                bare = _bare(node)
                if _is_source(bare, node, self.function.__code__, imports):
                    bare.name = FUNCTION
                    return bare
        return None

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
        found = {**self.function.__globals__, LITERAL: np.dtype(dtype).type}
        for name, cell in self._cells.items():
            with contextlib.suppress(ValueError):  # not yet given a value
                found[name] = cell.cell_contents
        return found

    def watch(self) -> list[tuple[Callable[[], Any], Any]]:
        """What the function reads from around it, each as a function that reads it and its value.

        Compiled code has these values as constants. What is built in does not change.
        """
        readers = [partial(self._read, name, attributes) for name, *attributes in self._around]
        found = [(read, read()) for read in readers]
        return [each for each in found if not isinstance(each[1], BuiltinFunctionType)]

    def _read(self, name: str, attributes: list[str]) -> Any:
        try:
            cell = self._cells.get(name)
            value = cell.cell_contents if cell else self.function.__globals__.get(name)
        except ValueError:  # not yet given a value
            return None
        for attribute in attributes:
            if isinstance(value, ModuleType | type):
                value = getattr(value, attribute, None)
        return value

    @cached_property
    def _around(self) -> list[tuple[str, ...]]:
        return list(dict.fromkeys(_names_around(self.function.__code__)))

    @cached_property
    def _cells(self) -> dict[str, CellType]:
        function = self.function
        return dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))

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


def _names_around(code: CodeType) -> Iterator[tuple[str, ...]]:
    """The global and enclosing names that code reads, each with the attributes read of it."""
    path: tuple[str, ...] = ()
    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_ATTR", "LOAD_METHOD") and path:
            path += (step.argval,)
            continue
        if path:
            yield path
        around = step.opname == "LOAD_GLOBAL" or (
            step.opname == "LOAD_DEREF" and step.argval in code.co_freevars
        )
        path = (step.argval,) if around else ()
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from (each for each in _names_around(inner) if each[0] not in code.co_cellvars)


def _bare(node: ast.FunctionDef | ast.Lambda) -> ast.FunctionDef:
    """A definition without decorators, annotations and defaults."""
    made = ast.parse("def _(): pass").body[0]
    assert isinstance(made, ast.FunctionDef)
    made.args.posonlyargs = [ast.arg(each.arg) for each in node.args.posonlyargs]
    made.args.args = [ast.arg(each.arg) for each in node.args.args]
    if isinstance(node, ast.Lambda):
        made.body = [ast.copy_location(ast.Return(node.body), node)]
    else:
        made.name, made.body = node.name, node.body
    return ast.fix_missing_locations(ast.copy_location(made, node))


def _global_imports(node: ast.AST) -> Iterator[ast.stmt]:
    """The imports outside of functions and classes: calls of what they bind compile differently."""
    for each in ast.iter_child_nodes(node):
        if isinstance(each, ast.Import | ast.ImportFrom):
            if getattr(each, "module", "") != "__future__":  # which the compiler's flags say
                yield each
        elif not isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.expr):
            yield from _global_imports(each)


def _is_source(
    bare: ast.FunctionDef, node: ast.AST, code: CodeType, imports: list[ast.stmt]
) -> bool:
    """Whether a definition, found at ``node``, compiles to ``code``."""
    statement: ast.stmt = bare
    if isinstance(node, ast.Lambda):
        statement = ast.copy_location(ast.Expr(ast.Lambda(bare.args, node.body)), node)
    if code.co_name != ("<lambda>" if isinstance(node, ast.Lambda) else bare.name):
        return False
    # Within a function that has the names around it, which decide how a name is compiled.
    outer = ast.parse(f"def _({', '.join(code.co_freevars)}): pass").body[0]
    assert isinstance(outer, ast.FunctionDef)
    own = [] if bare.name in code.co_freevars else [ast.Global([bare.name])]
    outer.body = [*own, statement]
    module = ast.fix_missing_locations(ast.Module([*imports, outer], []))
    flags = code.co_flags & _FUTURE_FLAGS
    try:
        made = compile(module, code.co_filename, "exec", flags, dont_inherit=True)
    except (SyntaxError, ValueError):
        return False
    (around,) = (each for each in made.co_consts if isinstance(each, CodeType))
    return any(isinstance(each, CodeType) and _same_code(each, code) for each in around.co_consts)


_FUTURE_FLAGS = reduce(
    or_, (getattr(__future__, name).compiler_flag for name in __future__.all_feature_names)
)
_FIELDS = (
    "co_code", "co_names", "co_varnames", "co_freevars", "co_cellvars", "co_exceptiontable",
    "co_argcount", "co_posonlyargcount", "co_kwonlyargcount",
)  # fmt: skip


def _same_code(one: CodeType, other: CodeType) -> bool:
    """Whether two code objects do the same, wherever they are in a file."""
    if any(getattr(one, field) != getattr(other, field) for field in _FIELDS):
        return False
    return len(one.co_consts) == len(other.co_consts) and all(
        _same_code(a, b)
        if isinstance(a, CodeType) and isinstance(b, CodeType)
        else repr(a) == repr(b)  # 1, 1.0 and True are equal
        for a, b in zip(one.co_consts, other.co_consts, strict=True)
    )


class _Literals(ast.NodeTransformer):
    """Gives the numbers in arithmetic the inputs' dtype.

    In Numba ``1 + x`` is a float64 for an x of float32, since its 1 is an int64. In NumPy, and so
    in every other op of gradlab, a Python number takes the dtype of the array beside it. Numbers
    that count (exponents, indices, the ends of a range) stay as they are. What counts as a literal
    too is a float from around the function: ``math.pi``, ``ALPHA``.
    """

    def __init__(self, scope: dict[str, Any], function: FunctionType) -> None:
        code = function.__code__
        local = {*code.co_varnames, *code.co_cellvars}
        self.scope = {name: scope[name] for name in scope if name not in local}

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
