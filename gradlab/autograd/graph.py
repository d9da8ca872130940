"""The recorded graph, and the one loop that walks it backward.

A `Node` is one call of an op whose result requires a gradient. It holds what the gradient of
that op will need, and the nodes of its inputs; a tensor that requires a gradient by itself ends
the graph with a `Leaf`. Nothing here knows the tensor type: gradients flow as tensors, so a
backward pass is made of ordinary ops and can be recorded in turn (``create_graph=True``).
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Sequence
from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple

from gradlab.autograd.modes import mode
from gradlab.errors import GradientError, message

if TYPE_CHECKING:
    from gradlab.ops.core import Op
    from gradlab.tensor import Tensor

# Nodes are numbered as they are made. An op's inputs exist before its result, so walking the
# numbers downward meets every node after all of its consumers.
next_number: Callable[[], int] = count(1).__next__
# Leaves are numbered below all nodes: their gradients are complete when they are reached.
_next_leaf_number: Callable[[], int] = count(-1, -1).__next__

FREED: Any = ("freed",)
NOTHING: Any = ()
ALL: Any = ("all inputs",)


class Version:
    """How often the memory shared by a tensor and its views was written in place, and by whom."""

    __slots__ = ("count", "writer")

    def __init__(self) -> None:
        self.count = 0
        self.writer = ""


def version_of(value: Any) -> int:
    """How often the memory of a saved value was written to; a Python scalar never is."""
    counter = getattr(value, "_version", None)
    return 0 if counter is None else counter.count


class Part(NamedTuple):
    """How the gradients of a tensor's parts, such as its rows, become the gradient of the whole.

    ``what`` says which part a gradient belongs to. Zeros of the whole for each part would cost the
    square of what the parts hold.
    """

    of: Callable[[Node, Sequence[Any]], Any]  # (node, its saved values): what
    within: Callable[[Node, Any], Any]  # (node, what): that part of the node's input, or None
    add: Callable[[Any, Any, Any, bool], Any]  # (whole, gradient, what, owned): in place if owned
    join: Callable[[Sequence[Any], Sequence[Any], Any], Any]  # (gradients, whats, shape): one op


class Plan:
    """What a node saves, and whom it calls backward, when certain inputs require a gradient."""

    __slots__ = (
        "calls", "foreign", "fused", "outputs", "overwrites", "part", "picks", "saves",
        "saves_output",
    )  # fmt: skip

    def __init__(self) -> None:
        self.saves: tuple[int, ...] = ()
        self.saves_output = False
        self.calls: Iterable[Any] = ()
        self.fused: Callable[..., Sequence[Any]] | None = None
        self.picks: int | None = None  # this node is output number `picks` of its parent
        self.outputs = 1
        self.foreign = False  # the gradients come from a user's function
        self.part: Part | None = None  # the result holds elements of the first input
        self.overwrites = False  # `fused` writes into the gradient it gets, and returns it


class Hooks:
    """Functions of a gradient, and the tensor that keeps it (`Tensor.retain_grad`)."""

    __slots__ = ("functions", "retaining")

    def __init__(self) -> None:
        self.functions: dict[int, Callable[[Tensor], Tensor | None]] = {}
        self.retaining: weakref.ref[Tensor] | None = None


class Node:
    """One recorded call: ``op``, the ``parents`` of its inputs, and what its gradient needs."""

    __slots__ = (
        "attributes",
        "aux",
        "dtype",
        "hooks",
        "number",
        "op",
        "output",
        "parents",
        "plan",
        "saved",
        "shape",
        "versions",
    )

    op: Op
    plan: Plan
    attributes: dict[str, Any]
    parents: Sequence[Node | Leaf | None]
    saved: Sequence[Any]
    versions: Sequence[int] | None  # None: nothing saved had been written to
    output: tuple[Any, Version, int] | None
    aux: Any
    shape: tuple[int, ...]
    dtype: Any
    number: int
    hooks: Hooks | None

    @property
    def name(self) -> str:
        """The op in PyTorch's manner, such as ``MulBackward0``."""
        # PyTorch has no op for squares, and prints x**2 as it prints x**3.
        parts = ["pow"] if self.op.name == "square" else self.op.name.split("_")
        return "".join(part[:1].upper() + part[1:] for part in parts) + "Backward0"

    def __repr__(self) -> str:
        return f"<{self.name}>"

    @property
    def next_functions(self) -> tuple[tuple[Node | Leaf | None, int], ...]:
        """Pairs of an input's node and its output's number, 0; last (None, 0) for those without.

        PyTorch so finds x first in ``2 * x``, whose number comes first here.
        """
        return tuple((parent, 0) for parent in sorted(self.parents, key=lambda p: p is None))

    def gradients(self, gy: Tensor, wanted: Wanted, fused: bool) -> Iterable[tuple[int, Any]]:
        """``(input position, gradient)`` for each parent in ``wanted``, and perhaps for others."""
        values = self._unpack(gy)
        if not fused or self.plan.fused is None:
            return self._plain(gy, values, wanted)
        attributes = self.attributes
        if self.aux is not None:
            attributes = {**attributes, "aux": self.aux}
        return enumerate(self.plan.fused(gy, values, attributes))

    def _plain(self, gy: Tensor, values: list[Any], wanted: Wanted) -> Iterable[tuple[int, Any]]:
        attributes = self.attributes
        for position, gradient, places, names, shape_name in self.plan.calls:
            parent = self.parents[position]
            if parent is None or (wanted is not None and parent.number not in wanted):
                continue
            keywords = {name: attributes[name] for name in names}
            if shape_name:
                shape = keywords[shape_name] = parent.shape
                if shape is None:  # a leaf that is gone: nobody can ask for its gradient
                    continue
            yield position, gradient(gy, *[values[place] for place in places], **keywords)

    def _unpack(self, gy: Tensor) -> list[Any]:
        if self.saved is FREED:
            raise GradientError(
                f"backward of {self.op.name}: expected the values saved by the forward pass, got a "
                "graph whose values an earlier backward() freed; give that earlier call "
                "retain_graph=True, or compute the result again"
            )
        values = list(self.saved)
        for i, value in enumerate(values):
            version = 0 if self.versions is None else self.versions[i]
            if version_of(value) != version:
                self._refuse_changed(value, value._version)
        if self.output is not None:
            array, counter, version = self.output
            result = gy._like(array, self)
            result._version = counter
            if counter.count != version:
                self._refuse_changed(result, counter)
            values.append(result)
        return values

    def _refuse_changed(self, value: Tensor, counter: Version) -> None:
        raise GradientError(
            f"backward of {self.op.name}: expected the {value.dtype.name} value of shape "
            f"{value.shape} that the forward pass saved, got one that {counter.writer} changed in "
            "place since; use the out-of-place form, or clone() the value before changing it"
        )

    def free(self) -> None:
        """Drop the saved values; a later backward through a node that had any is refused."""
        if self.saved or self.output is not None or self.aux is not None:
            self.saved = FREED
            self.output = self.aux = None


class Leaf:
    """The end of the graph: a tensor made with ``requires_grad``, whose ``grad`` accumulates."""

    __slots__ = ("__weakref__", "hooks", "number", "tensor")

    name = "AccumulateGrad"
    parents: tuple[Any, ...] = ()
    next_functions: tuple[Any, ...] = ()

    def __init__(self, tensor: Tensor) -> None:
        # The tensor owns its leaf; a strong reference back would leave both to the collector.
        self.tensor = weakref.ref(tensor)
        self.number = _next_leaf_number()
        self.hooks: Hooks | None = None

    def __repr__(self) -> str:
        return f"<{self.name}>"

    @property
    def shape(self) -> tuple[int, ...] | None:
        """The shape of the tensor, None when it is gone."""
        tensor = self.tensor()
        return None if tensor is None else tensor.shape

    @property
    def dtype(self) -> Any:
        tensor = self.tensor()
        return None if tensor is None else tensor.dtype


Wanted = set[int] | None


def run_backward(
    roots: Sequence[tuple[Node | Leaf, Tensor]],
    *,
    retain_graph: bool,
    create_graph: bool,
    capture: Sequence[Node | Leaf] | None = None,
) -> dict[int, Tensor]:
    """Send the gradients of ``roots`` back through the graph.

    Without ``capture`` the gradients of the leaves accumulate in ``tensor.grad``; with it, the
    gradients that reach those nodes are returned by their number, and no ``grad`` is touched.
    """
    wanted = None if capture is None else _leading_to(capture, roots)
    captured: dict[int, Tensor] = {}
    targets = set() if capture is None else {node.number for node in capture}
    before = mode.grad
    mode.grad = create_graph
    try:
        pending = _Pending()
        for node, gradient in roots:
            pending.add(node, gradient)
        while pending.queue:
            node = pending.nodes[-heappop(pending.queue)]  # whose gradient is complete
            if pending.parts and pending.pass_part_on(node, targets, wanted, create_graph):
                continue
            gy, fresh, owned = pending.take(node, create_graph)
            if node.hooks is not None:
                gy, fresh, owned = _run_hooks(node.hooks, gy), False, False
            if node.number in targets:
                captured[node.number], owned = _own(gy, fresh), False
                if not _leads_on(node, wanted):  # nothing asked for lies behind it
                    continue
            if isinstance(node, Leaf):
                if capture is None:
                    _accumulate(node, gy, create_graph, fresh)
                continue
            _step(node, gy, owned, pending, wanted, create_graph, capture is not None)
            if not retain_graph:
                node.free()
    finally:
        mode.grad = before
    return captured


def _step(
    node: Node, gy: Any, owned: bool, pending: _Pending, wanted: Wanted, create_graph: bool,
    capturing: bool,
) -> None:  # fmt: skip
    parents, plan = node.parents, node.plan
    if plan.part is not None:
        what = plan.part.of(node, node._unpack(gy))
        pending.add_part(plan.part, what, gy, parents[0], wanted, create_graph)
        return
    if plan.overwrites and not (owned and gy._array.flags.c_contiguous) and not create_graph:
        gy = gy.clone()
    for position, gx in node.gradients(gy, wanted, not create_graph):
        parent = parents[position]
        if gx is None or parent is None or (wanted is not None and parent.number not in wanted):
            continue
        if plan.picks is not None:
            pending.add_output(parent, plan.picks, gx)
            continue
        shape, dtype = parent.shape, parent.dtype  # of a leaf, each is looked up
        if shape is None:  # a leaf that is gone
            continue
        # Broadcasting in the forward pass is summation in the backward pass, for every op alike.
        if gx._array.shape != shape:
            gx = _fit(node, gx, shape)
        if gx._array.dtype != dtype:
            gx = gx.astype(dtype)
        # A gradient that an op passes on as it is, or that a user's function returned, may be in
        # use elsewhere; a leaf copies it rather than keep it as its own `grad`.
        fresh = gx is not gy and not plan.foreign
        if parent.__class__ is Leaf and parent.hooks is None and not capturing:
            # Past the queue, which would only bring it back here: 5 % of a small training step.
            _accumulate(parent, gx, create_graph, fresh)
        else:
            pending.add(parent, gx, fresh, plan.overwrites)


def _leads_on(node: Node | Leaf, wanted: Wanted) -> bool:
    assert wanted is not None
    return any(parent is not None and parent.number in wanted for parent in node.parents)


def _fit(node: Node, gx: Tensor, shape: Any) -> Tensor:
    if node.op.broadcasts:
        return gx.sum_to(shape)
    raise GradientError(
        f"backward of {node.op.name}: expected a gradient of shape {shape}, as its input, got "
        f"{gx.shape}; correct the backward of {node.op.name}"
    )


class _Pending:
    """The gradients on their way, by node, and the order in which to visit the nodes.

    A gradient is ``fresh`` where no op passed it on from elsewhere, and ``owned`` where its memory
    is known to be in use nowhere else, so that it may be written to.
    """

    __slots__ = ("fresh", "gradients", "nodes", "owned", "parts", "queue")

    def __init__(self) -> None:
        self.fresh: set[int] = set()
        self.owned: set[int] = set()
        self.queue: list[int] = []
        self.nodes: dict[int, Node | Leaf] = {}
        self.gradients: dict[int, Any] = {}
        self.parts: dict[int, list[tuple[Any, ...]]] = {}

    def add(
        self, node: Node | Leaf, gradient: Tensor, fresh: bool = False, owned: bool = False
    ) -> None:
        number = node.number
        if number in self.gradients:
            self.gradients[number] = self.gradients[number] + gradient
            self.fresh.add(number)
            self.owned.add(number)
        else:
            if fresh:
                self.fresh.add(number)
            if owned:
                self.owned.add(number)
            self.gradients[number] = gradient
            if number not in self.nodes:
                self.nodes[number] = node
                heappush(self.queue, -number)

    def _expect(self, node: Node | Leaf, number: int) -> None:
        if number not in self.nodes:
            self.nodes[number] = node
            heappush(self.queue, -number)

    def add_part(
        self, part: Part, what: Any, gy: Tensor, whole: Any, wanted: Wanted, create_graph: bool
    ) -> None:
        """Add the gradient of a part of ``whole``: the first is kept as it is, further ones are
        added in one array; recorded, all are kept to be joined by one op."""
        number = whole.number
        if (wanted is not None and number not in wanted) or whole.shape is None:
            return  # nobody asks for it
        if create_graph or not (number in self.parts or number in self.gradients):
            self.parts.setdefault(number, []).append((part, what, gy))
            self._expect(whole, number)
            return
        if number in self.parts:
            self._join_parts(whole, create_graph)
        self._add_in_place(number, part, what, gy)

    def _add_in_place(self, number: int, part: Part, what: Any, gy: Tensor) -> None:
        gradient = self.gradients[number]
        self.gradients[number] = part.add(gradient, gy, what, number in self.owned)
        self.fresh.add(number)
        self.owned.add(number)

    def _join_parts(self, whole: Node | Leaf, create_graph: bool) -> None:
        found = self.parts.pop(whole.number)
        part, what, gy = found[0]
        if whole.shape is None:
            return
        if whole.number in self.gradients and not create_graph:
            self._add_in_place(whole.number, part, what, gy)
            return
        gradient = part.join([each[2] for each in found], [each[1] for each in found], whole.shape)
        self.add(whole, gradient, fresh=True, owned=True)

    def pass_part_on(
        self, node: Node | Leaf, targets: set[int], wanted: Wanted, create_graph: bool
    ) -> bool:
        """Where all that reached a view is the gradient of a part of it, make that a part of what
        the view looks into: a row of a transposed matrix is a column of the matrix."""
        number = node.number
        found = self.parts.get(number, ())
        if (
            len(found) != 1
            or number in self.gradients
            or number in targets
            or node.hooks is not None
            or not isinstance(node, Node)
        ):
            return False
        part, what, gy = found[0]
        what = part.within(node, what)
        if what is None:
            return False
        del self.parts[number], self.nodes[number]
        self.add_part(part, what, gy, node.parents[0], wanted, create_graph)
        return True

    def add_output(self, node: Any, index: int, gradient: Tensor) -> None:
        """Add the gradient of output ``index`` of a node that has several."""
        number = node.number
        if number not in self.gradients:
            self.gradients[number] = [None] * node.plan.outputs
            self._expect(node, number)
        slots = self.gradients[number]
        slots[index] = gradient if slots[index] is None else slots[index] + gradient

    def take(self, node: Node | Leaf, create_graph: bool) -> tuple[Any, bool, bool]:
        """The gradient of a node, whether it is fresh, and whether it is owned."""
        number = node.number
        if number in self.parts:
            self._join_parts(node, create_graph)
        del self.nodes[number]
        gradient, owned = self.gradients.pop(number), number in self.owned
        if owned and node.dtype is not None and gradient.dtype != node.dtype:
            gradient = gradient.astype(node.dtype)  # halves are added up in float32
        return gradient, number in self.fresh, owned


def _leading_to(targets: Sequence[Node | Leaf], roots: Sequence[tuple[Any, Any]]) -> set[int]:
    """The numbers of the nodes on a path from ``roots`` to ``targets``."""
    consumers: dict[int, list[int]] = {}
    seen: set[int] = set()
    stack = [root for root, _ in roots]
    while stack:
        node = stack.pop()
        if node.number in seen:
            continue
        seen.add(node.number)
        for parent in node.parents:
            if parent is not None:
                consumers.setdefault(parent.number, []).append(node.number)
                stack.append(parent)
    leading: set[int] = set()
    numbers = [target.number for target in targets if target.number in seen]
    while numbers:
        number = numbers.pop()
        if number not in leading:
            leading.add(number)
            numbers.extend(consumers.get(number, ()))
    return leading


def _run_hooks(hooks: Hooks, gy: Tensor) -> Tensor:
    for function in list(hooks.functions.values()):
        changed = function(gy)
        if changed is not None:
            _check_replacement(changed, gy)
            gy = changed
    if hooks.retaining is not None:
        tensor = hooks.retaining()
        if tensor is not None:
            # A copy: gy goes on to other nodes, and whoever owns a grad may write to it.
            tensor.grad = gy.clone() if tensor.grad is None else tensor.grad + gy
    return gy


def _check_replacement(changed: Any, gy: Tensor) -> None:
    if not hasattr(changed, "_array") or changed.shape != gy.shape:
        got = type(changed).__name__ if not hasattr(changed, "_array") else str(changed.shape)
        raise GradientError(
            message(
                "hook",
                expected=f"None or a tensor of the gradient's shape {gy.shape}",
                got=got,
                hint="a hook's result replaces the gradient",
            )
        )


def _own(gradient: Tensor, fresh: bool) -> Tensor:
    """A gradient to hand out: in memory of its own, since whoever gets it may write to it."""
    return gradient if fresh and gradient._array.base is None else gradient.clone()


def _accumulate(leaf: Leaf, gradient: Tensor, create_graph: bool, fresh: bool) -> None:
    tensor = leaf.tensor()
    if tensor is None:
        return
    if tensor.grad is None:
        tensor.grad = _own(gradient, fresh)
    elif create_graph:
        tensor.grad = tensor.grad + gradient
    else:
        tensor.grad.add_(gradient)
