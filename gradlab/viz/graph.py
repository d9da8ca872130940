"""The recorded graph of a tensor: what it holds, in numbers and as a picture."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from os import PathLike
from typing import Any, NamedTuple

import numpy as np

from gradlab.autograd.function import FunctionNode
from gradlab.autograd.graph import ALL, FREED, Leaf, Node
from gradlab.errors import DTypeError, GradientError, OptionError, message
from gradlab.paths import as_path, replacing
from gradlab.tensor import Tensor, require_integer, require_option
from gradlab.viz.drawing import Picture, format_bytes, to_dot, to_svg
from gradlab.viz.memory import Memory, distinct_bytes, memory_of

Shape = tuple[int, ...]

_DIRECTIONS = ("down", "right")


class SavedValue(NamedTuple):
    """A tensor or array that an op keeps for its gradient.

    ``slot`` is its place in the op: the name of an input, ``"result"``, or ``"aux"`` for what the
    op computed beside its result. ``name`` is that of the tensor, or of the op that made it.
    ``shared`` says that a value counted earlier lies in the same memory.
    """

    slot: str
    name: str
    shape: Shape
    dtype: Any
    nbytes: int
    shared: bool


class GraphNode(NamedTuple):
    """A tensor that ends the graph, or an op together with its result.

    ``kind`` is ``"parameter"`` for a leaf that requires a gradient, ``"input"`` for a tensor
    without one that an op saved, and ``"op"``. ``outputs`` holds the shapes of the results, of
    which only a custom `Function` has several; it is empty for a leaf that exists no more.
    ``constants`` holds the operands of elementwise ops that are neither edges nor saved tensors,
    by slot: Python numbers, and None for what the op did not keep. ``call`` shows the op with them,
    as ``mul(0.5, ·)``. ``freed`` says that an earlier backward() dropped what the op had saved.
    """

    id: int
    kind: str
    name: str
    outputs: tuple[Shape, ...] = ()
    dtype: Any = None
    op: str = ""
    call: str = ""
    constants: Mapping[str, Any] = {}
    attributes: Mapping[str, str] = {}  # the op's options, in words
    saved: tuple[SavedValue, ...] = ()
    freed: bool = False

    @property
    def shape(self) -> Shape | None:
        return self.outputs[0] if self.outputs else None

    @property
    def saved_bytes(self) -> int:
        """The bytes of what this op saves, those that others save too included."""
        return sum(value.nbytes for value in self.saved)


class GraphEdge(NamedTuple):
    """The tensor of node ``source`` is the operand ``slot`` of node ``target``."""

    source: int
    target: int
    slot: str


class Graph:
    """What `graph` found: numbers to compute with, and the picture that a notebook shows.

    It holds shapes, names and byte counts, not the tensors: it keeps no memory of theirs alive.

    Attributes
    ----------
    nodes: list of `GraphNode`, each after all it depends on; ``nodes[i].id == i``, and the tensor
        that was asked for comes last.
    edges: list of `GraphEdge`, from operands to ops. One used twice by an op has two.
    saved_bytes: bytes of memory that the saved values occupy; what several ops save, or what
        views share, counts once.
    activation_bytes: the part of them that only the graph keeps: results computed on the way. The
        rest are the memory of parameters and inputs, which are there without it.
    missing: the names in ``params`` and ``names`` of tensors that the graph does not hold.
    """

    def __init__(self, reader: _Reader, names: _Names, direction: str, max_nodes: int) -> None:
        self.nodes: list[GraphNode] = reader.nodes
        self.edges: list[GraphEdge] = reader.edges
        self.saved_bytes: int = distinct_bytes(reader.saved)
        ends = distinct_bytes(reader.ends)
        self.activation_bytes: int = distinct_bytes([*reader.saved, *reader.ends]) - ends
        self.missing: tuple[str, ...] = names.unused()
        self._direction, self._max_nodes = direction, max_nodes

    @cached_property
    def _picture(self) -> Picture:
        return Picture(self, self._max_nodes)

    @cached_property
    def svg(self) -> str:
        """The picture: SVG without style sheets, scripts or references, so it can be inlined."""
        return to_svg(self._picture, rightward=self._direction == "right")

    @cached_property
    def dot(self) -> str:
        """The graph in Graphviz's language, for other layouts and formats."""
        return to_dot(self._picture, rightward=self._direction == "right")

    def save(self, path: str | PathLike[str]) -> None:
        """Write the picture to a file that ends in ``.svg``, or the DOT text to ``.dot``/``.gv``.

        >>> import gradlab as gl
        >>> from gradlab import viz
        >>> w = gl.ones(3, requires_grad=True)
        >>> viz.graph((w * w).sum(), {"w": w}).save("graph.svg")
        """
        target = as_path("graph.save", path)
        texts = {".svg": "svg", ".dot": "dot", ".gv": "dot"}
        kind = texts.get(target.suffix.lower())
        if kind is None:
            raise OptionError(
                message(
                    "graph.save",
                    expected="a file name that ends in .svg, .dot or .gv",
                    got=repr(str(target)),
                    hint="Graphviz makes other formats of a .dot file",
                )
            )
        with replacing(target, "graph.save") as temporary:
            temporary.write_text(getattr(self, kind), encoding="utf-8")

    def _repr_svg_(self) -> str:
        return self.svg

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        del include, exclude  # IPython picks from what it is given
        return {"image/svg+xml": self.svg, "text/plain": repr(self)}

    def __repr__(self) -> str:
        return f"<graph: {', '.join(self.summary())}>"

    def summary(self) -> list[str]:
        """What the graph is made of, and the memory it takes, in words."""
        counts = [
            (sum(node.kind == kind for node in self.nodes), kind)
            for kind in ("op", "parameter", "input")
        ]
        return [
            *(f"{count} {kind}{'s' * (count != 1)}" for count, kind in counts if count),
            self._memory_in_words(),
        ]

    def _memory_in_words(self) -> str:
        kept = f"{format_bytes(self.saved_bytes)} saved for backward"
        if not any(node.freed for node in self.nodes):
            return kept
        return f"{kept} beside what backward() freed" if self.saved_bytes else "saved values freed"


def graph(
    loss: Any,
    params: Any = None,
    *,
    names: Mapping[str, Any] | None = None,
    direction: str = "down",
    max_nodes: int = 150,
    path: str | PathLike[str] | None = None,
) -> Graph:
    """Draw the graph that was recorded for a tensor, from its inputs to the tensor itself.

    Each op is shown with the shape and dtype of its result and, below a line, the values it saves
    for its gradient and their bytes. Tensors that require no gradient are part of the graph only
    where an op saved them. In a notebook the result shows itself; ``.svg`` and ``.dot`` are its
    texts, ``.save(path)`` writes them, ``.nodes``, ``.edges`` and ``.saved_bytes`` are the data.
    Nothing is computed, copied or waited for, on any device.

    Bytes are those of a value's elements (of an expanded tensor, those that exist). In the total,
    memory that several values share counts once: a result that two ops save, a matrix and its
    transpose. A view keeps alive all of the memory that it looks into, which may be more.

    Parameters
    ----------
    loss: a tensor of any shape that requires a gradient. After ``backward()`` its ops are still
        shown, without the values they had saved. A gradient from ``create_graph=True`` has a
        graph too.
    params: the model, whose parameters and buffers get the names they have in its state dict, or
        a dict of names and tensors.
    names: names of further tensors: inputs, and results on the way (``{"X": X, "h": h}``). An input
        keeps its name where it was only reshaped or transposed.
    direction: ``"down"``, or ``"right"`` for a graph that flows from left to right.
    max_nodes: how many nodes to draw. Of a larger graph the ops nearest to the loss are drawn, and
        the picture says how many are not; the data are always those of the whole graph.
    path: a file to write the picture to as well (SVG; DOT where it ends in ``.dot`` or ``.gv``).

    Raises
    ------
    DTypeError: ``loss``, or what bears a name, is no tensor.
    GradientError: ``loss`` depends on nothing that requires a gradient.
    OptionError: ``direction`` or ``max_nodes`` is none of the above.

    >>> import gradlab as gl
    >>> from gradlab import viz
    >>> X, w = gl.ones(20, 4), gl.zeros(4, requires_grad=True)
    >>> loss = (X @ w).square().mean()
    >>> drawn = viz.graph(loss, {"w": w}, names={"X": X})
    >>> drawn
    <graph: 3 ops, 1 parameter, 1 input, 416 B saved for backward>
    >>> [(node.op, [value.name for value in node.saved]) for node in drawn.nodes if node.saved]
    [('matmul', ['X', 'w']), ('square', ['matmul'])]
    >>> drawn.activation_bytes
    80
    """
    if not isinstance(loss, Tensor):
        raise DTypeError(message("graph", expected="a tensor", got=type(loss).__name__))
    require_option("graph", "direction", direction, _DIRECTIONS)
    require_integer("graph", "max_nodes", max_nodes)
    root = loss._history()
    if root is None:
        raise GradientError(
            f"graph: expected a tensor that depends on one with requires_grad=True, got one of "
            f"shape {loss.shape} that does not; call requires_grad_() on the inputs, and compute "
            "outside no_grad()"
        )
    found = _Names([*_named(params), *_named(names)])
    made = Graph(_Reader(_without_picks(root), found), found, direction, max_nodes)
    if path is not None:
        made.save(path)
    return made


def _named(given: Any) -> Iterator[tuple[str, Tensor]]:
    """The pairs of name and tensor in a model, a dict, or an iterable of such pairs."""
    if hasattr(given, "named_parameters"):
        yield from given.named_parameters()
        yield from given.named_buffers()
        return
    try:
        pairs = dict(given or {}).items()
    except (TypeError, ValueError):
        expected, got = "a model, or a dict of names and tensors", type(given).__name__
        raise DTypeError(message("graph", expected=expected, got=got)) from None
    for name, tensor in pairs:
        if not isinstance(tensor, Tensor):
            got = f"{type(tensor).__name__} as {name!r}"
            raise DTypeError(message("graph", expected="a dict of names and tensors", got=got))
        yield str(name), tensor


class _Names:
    """The user's names, by what a tensor is known by in the graph."""

    def __init__(self, named: Iterable[tuple[str, Tensor]]) -> None:
        self._names: dict[Any, list[str]] = {}
        self._used: set[Any] = set()
        self._kept = []  # the nodes, so that their ids stay theirs
        for name, tensor in named:
            node = _without_picks(tensor._history())
            self._kept.append(node)
            key = _place(tensor) if node is None else id(node)
            names = self._names.setdefault(key, [])
            if name not in names:
                names.append(name)

    def find(self, key: Any) -> str:
        self._used.add(key)
        return ", ".join(self._names.get(key, ()))

    def unused(self) -> tuple[str, ...]:
        return tuple(
            n for key, names in self._names.items() if key not in self._used for n in names
        )


def _place(tensor: Tensor) -> Any:
    """What a tensor without history is known by, and its views of other shapes with it."""
    memory = memory_of(tensor)
    return id(tensor) if memory is None else memory.place


def _without_picks(node: Any) -> Any:
    """The node itself, or the function whose output it picks."""
    while isinstance(node, Node) and node.plan.picks is not None:
        node = node.parents[0]
    return node


class _Reader:
    """Reads the graph that ends in ``root`` into nodes and edges."""

    def __init__(self, root: Node | Leaf, names: _Names) -> None:
        self.nodes: list[GraphNode] = []
        self.edges: list[GraphEdge] = []
        self.saved: list[Memory] = []
        self.ends: list[Memory] = []  # of parameters and inputs
        self._names = names
        self._ids: dict[Any, int] = {}  # by id of node, or key of data
        self._seen: set[Any] = set()  # places of what was saved
        if isinstance(root, Leaf):
            self._leaf(root)
        for node in _ops(root):
            self._op(node)

    def _add(self, key: Any, kind: str, name_of: Any = None, **fields: Any) -> int:
        number = self._ids[key] = len(self.nodes)
        name = self._names.find(key if name_of is None else name_of)
        self.nodes.append(GraphNode(number, kind, name, **fields))
        return number

    def _leaf(self, leaf: Leaf) -> int:
        if id(leaf) in self._ids:
            return self._ids[id(leaf)]
        tensor = leaf.tensor()
        if tensor is None:
            return self._add(id(leaf), "parameter")
        self._note(self.ends, memory_of(tensor))
        return self._add(id(leaf), "parameter", outputs=(tensor.shape,), dtype=tensor.dtype)

    def _input(self, tensor: Tensor) -> int:
        memory, shape, dtype = memory_of(tensor), tensor.shape, tensor.dtype
        key = id(tensor) if memory is None else (memory, shape, dtype)
        if key in self._ids:
            return self._ids[key]
        self._note(self.ends, memory)
        return self._add(key, "input", _place(tensor), outputs=(shape,), dtype=dtype)

    def _op(self, node: Node) -> None:
        values = _inputs_saved(node)
        operands = self._operands(node, values)
        constants = _constants(node, values)
        freed = _is_freed(node)
        saved = [
            self._saved_value(slot, value, operands, node)
            for slot, value in (() if freed else _saved(node, values))
        ]
        number = self._add(
            id(node),
            "op",
            op=node.op.name,
            outputs=_outputs(node),
            dtype=node.dtype,
            attributes={name: _in_words(value) for name, value in (node.attributes or {}).items()},
            call=_call(node.op.name, getattr(node.op, "inputs", ()), constants),
            constants=constants,
            saved=tuple(saved),
            freed=freed,
        )
        self.edges += [GraphEdge(source, number, slot) for slot, source in operands]

    def _operands(self, node: Node, values: dict[int, Any]) -> list[tuple[str, int]]:
        """Slot and node of each operand that the graph knows of."""
        found = []
        for position, each in enumerate(node.parents):
            parent = _without_picks(each)
            if isinstance(parent, Leaf):
                source = self._leaf(parent)
            elif parent is not None:
                source = self._ids[id(parent)]
            elif isinstance(values.get(position), Tensor):
                source = self._input(values[position])
            else:
                continue
            found.append((_slot(node, position), source))
        return found

    def _saved_value(
        self, slot: str, value: Any, operands: Sequence[tuple[str, int]], node: Node
    ) -> SavedValue:
        memory = memory_of(value)
        self._note(self.saved, memory)
        place, nbytes = (None, 0) if memory is None else (memory.place, memory.nbytes)
        shared = place in self._seen
        if place is not None:
            self._seen.add(place)
        name = self._names.find(id(node)) if slot == "result" else ""
        for each, source in operands:
            if each == slot:
                name = self.nodes[source].name or self.nodes[source].op
        name = name or {"aux": "auxiliary"}.get(slot, slot)
        return SavedValue(slot, name, tuple(value.shape), value.dtype, nbytes, shared)

    @staticmethod
    def _note(to: list[Memory], memory: Memory | None) -> None:
        if memory is not None:
            to.append(memory)


def _ops(root: Node | Leaf) -> list[Node]:
    """The ops that lead to ``root``, each after those that it depends on."""
    found: dict[int, Node] = {}
    stack = [root]
    while stack:
        node = stack.pop()
        if isinstance(node, Node) and id(node) not in found:
            found[id(node)] = node
            stack.extend(map(_without_picks, node.parents))
    return sorted(found.values(), key=lambda node: node.number)


def _is_freed(node: Node) -> bool:
    if isinstance(node, FunctionNode):
        return node.context._saved is FREED
    return node.saved is FREED


def _inputs_saved(node: Node) -> dict[int, Any]:
    """The inputs that the op saved, by their position."""
    if node.saved is FREED:
        return {}
    positions = range(len(node.saved)) if node.plan.saves is ALL else node.plan.saves
    return dict(zip(positions, node.saved, strict=True))


def _slot(node: Node, position: int) -> str:
    names = getattr(node.op, "inputs", ())
    if position < len(names) and not names[position].startswith("*"):
        return str(names[position])
    return f"x{position + 1}"


def _saved(node: Node, values: dict[int, Any]) -> Iterator[tuple[str, Any]]:
    """Slot and array of everything that the op keeps in memory."""
    for position, value in values.items():
        if _is_array(value):
            yield _slot(node, position), value
    if node.output is not None:
        yield "result", node.output[0]
    kept = {"aux": node.aux}
    if isinstance(node, FunctionNode):
        kept = {"saved_tensors": node.context._saved, **_own_attributes(node.context)}
    for name, value in {**(node.attributes or {}), **kept}.items():
        yield from ((name, each) for each in _arrays_in(value))


def _own_attributes(context: Any) -> dict[str, Any]:
    """What the user's forward left on ``ctx``."""
    return {name: value for name, value in vars(context).items() if not name.startswith("_")}


def _is_array(value: Any) -> bool:
    return hasattr(value, "nbytes") and not isinstance(value, np.generic)


def _arrays_in(value: Any) -> Iterator[Any]:
    if isinstance(value, tuple | list | dict):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _arrays_in(each)
    elif _is_array(value):
        yield value


def _in_words(value: Any) -> str:
    # The elements of an array are not read: they may lie on a device that is still at work.
    if _is_array(value):
        return f"array of shape {tuple(value.shape)}"
    if isinstance(value, tuple | list):
        return f"({', '.join(map(_in_words, value))})"
    if isinstance(value, dict):
        return f"({', '.join(f'{name} = {_in_words(each)}' for name, each in value.items())})"
    return repr(value)


def _constants(node: Node, values: dict[int, Any]) -> dict[str, Any]:
    # Losses and layers have numbers too, which stand for options that were not given.
    if not getattr(node.op, "broadcasts", False):
        return {}
    return {
        slot: values.get(position)
        for position, (slot, parent) in enumerate(zip(node.op.inputs, node.parents, strict=False))
        if parent is None and not _is_array(values.get(position))
    }


def _call(op: str, slots: Sequence[str], constants: dict[str, Any]) -> str:
    if not constants:
        return op
    operands = [_operand(constants[slot]) if slot in constants else "·" for slot in slots]
    return f"{op}({', '.join(operands)})"


def _operand(value: Any) -> str:
    if value is None:
        return "constant"
    return format(value, ".4g") if isinstance(value, float) else str(value)


def _outputs(node: Node) -> tuple[Shape, ...]:
    if isinstance(node, FunctionNode):
        return tuple(shape for shape, _ in node.outputs_like)
    return (tuple(node.shape),)
