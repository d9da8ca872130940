"""Layered layout of directed acyclic graphs: where the boxes stand and how the edges run.

The method is that of Sugiyama, Tagawa and Toda ("Methods for visual understanding of hierarchical
system structures", IEEE Trans. SMC 11, 1981) as Gansner, Koutsofios, North and Vo refined it for
Graphviz ("A technique for drawing directed graphs", IEEE Trans. Software Eng. 19, 1993):

1. each box gets a layer, below those of all it depends on (longest path, so that an input stands
   just above its first use);
2. an edge over several layers runs through a point of each layer between, its *bend*. The edges
   of one box share their bends: a tensor with a hundred uses gives one line with a hundred
   branches;
3. the boxes of a layer are ordered by the mean place of their neighbours, up and down the layers
   in turn, and the order with the fewest crossings is kept;
4. the boxes are shifted under or above their neighbours. With the order and the least distances
   fixed, the best places within one layer are a least-squares fit under order constraints, which
   the pool-adjacent-violators algorithm solves exactly (Barlow et al., "Statistical inference
   under order restrictions", 1972).

The same graph gives the same picture, always. No step recurses.

There are libraries for this. Those that need no system package are under the GPL (igraph,
grandalf), which gradlab's own licence does not go with, or young and compiled for some platforms
only (fast-sugiyama); a drawing that each installation can make seemed worth these lines.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

Point = tuple[float, float]

SWEEPS = 12  # over the order, at most
FITS = 60  # rounds in which places are fitted, at most
FITTED = 100_000  # boxes and bends that all rounds together fit, at most
GAP = 22.0  # between the boxes of a layer
BEND_GAP = 14.0  # beside a bend
LAYER_GAP = 34.0  # between layers, at least
STRAIGHT = 5.0  # off the middle, a single edge still ends, if that makes it straight
PORT_GAP = 22.0  # between the ends of edges at one box, at most
# Slopes are worst where an edge is long: between two bends they cost most (Gansner et al., 4.1).
STIFFNESS = (1.0, 2.0, 8.0)


class Layout(NamedTuple):
    """Boxes and routes in one coordinate system, with x to the right and y downward.

    ``centres`` holds the middle of each box. ``routes`` holds the points that each edge passes, in
    pairs: a straight line inside a layer leads from the first point of a pair to the second, a
    curve across the gap between two layers to the next pair. The edges of one box have the start
    of their way in common; it belongs to the first of them, and the others begin where they
    branch off.
    """

    centres: list[Point]
    routes: list[list[Point]]
    width: float
    height: float


def layered(
    sizes: Sequence[Point], edges: Sequence[tuple[int, int]], *, rightward: bool = False
) -> Layout:
    """Lay out boxes of the given ``(width, height)``, sources first, sinks last.

    Parameters
    ----------
    sizes: width and height of each box.
    edges: pairs of numbers of boxes, from and to; several between the same boxes are allowed,
        cycles are not.
    rightward: let the edges run from left to right instead of downward.

    >>> layout = layered([(40, 20), (40, 20), (60, 20)], [(0, 2), (1, 2)])
    >>> [y for _, y in layout.centres]
    [10.0, 10.0, 64.0]
    """
    if not sizes:
        return Layout([], [], 0.0, 0.0)
    if rightward:
        sizes = [(height, width) for width, height in sizes]
    graph = _Layers(sizes, edges)
    graph.reduce_crossings()
    graph.place()
    found = graph.layout(edges)
    if not rightward:
        return found
    return Layout(
        [(y, x) for x, y in found.centres],
        [[(y, x) for x, y in route] for route in found.routes],
        found.height,
        found.width,
    )


class _Row(NamedTuple):
    """What a fit of one layer needs: its items from left to right, and for each the least distance
    from the first, the neighbours that pull it and how strongly, one by one and together.
    """

    items: list[int]
    offsets: list[float]
    pulls: list[list[tuple[int, float]]]
    weights: list[float]


class _Layers:
    """Boxes and bends in layers. Numbers below ``len(sizes)`` are boxes, those above are bends."""

    def __init__(self, sizes: Sequence[Point], edges: Sequence[tuple[int, int]]) -> None:
        self.sizes = sizes
        self.above: list[list[int]] = [[] for _ in sizes]  # neighbours in the layer before
        self.below: list[list[int]] = [[] for _ in sizes]
        self.bends: dict[tuple[int, int], int] = {}  # (box, layer) -> the bend of its edges there
        self.layer_of = _longest_paths(len(sizes), edges)
        for source, target in dict.fromkeys(edges):
            self._connect(source, target)
        count = 1 + max(self.layer_of)
        self.layers: list[list[int]] = [[] for _ in range(count)]
        for each in self._first_order():
            self.layers[self.layer_of[each]].append(each)
        self.x = [0.0] * len(self.layer_of)

    def is_bend(self, item: int) -> bool:
        return item >= len(self.sizes)

    def _connect(self, source: int, target: int) -> None:
        before = source
        for layer in range(self.layer_of[source] + 1, self.layer_of[target]):
            bend = self.bends.get((source, layer))
            if bend is None:
                bend = self.bends[source, layer] = len(self.layer_of)
                self.layer_of.append(layer)
                self.above.append([before])
                self.below.append([])
                self.below[before].append(bend)
            before = bend
        self.below[before].append(target)
        self.above[target].append(before)

    def _first_order(self) -> list[int]:
        """From the sinks upward, depth first: operands stand in the order they were given."""
        found: dict[int, None] = {}
        sinks = [i for i, below in enumerate(self.below) if not below]
        stack = sinks[::-1]
        while stack:
            item = stack.pop()
            if item not in found:
                found[item] = None
                stack.extend(reversed(self.above[item]))
        return list(found)

    # -------------------------------------------------------------------------------- order

    def reduce_crossings(self) -> None:
        best, fewest = [layer[:] for layer in self.layers], self.crossings()
        for sweep in range(SWEEPS):
            if not fewest:
                break
            down = sweep % 2 == 0
            self._sort_layers(down)
            crossings = self.crossings()
            if crossings < fewest:
                best, fewest = [layer[:] for layer in self.layers], crossings
        self.layers = best

    def _sort_layers(self, down: bool) -> None:
        neighbours = self.above if down else self.below
        place = [0.0] * len(self.layer_of)
        for layer in self.layers if down else reversed(self.layers):
            means = {}
            for at, item in enumerate(layer):
                near = neighbours[item]
                means[item] = sum(place[each] for each in near) / len(near) if near else None
                place[item] = float(at)
            _sort_by(layer, means)
            for at, item in enumerate(layer):
                place[item] = float(at)

    def crossings(self) -> int:
        """How many pairs of edges cross (Barth, Jünger and Mutzel, 2002)."""
        total = 0
        for layer, following in pairwise(self.layers):
            place = {item: at for at, item in enumerate(following)}
            ends: list[int] = []
            for item in layer:
                own = sorted(place[each] for each in self.below[item])
                total += sum(len(ends) - bisect_right(ends, end) for end in own)
                for end in own:
                    insort(ends, end)
        return total

    # ------------------------------------------------------------------------------- places

    def place(self) -> None:
        """Give each box and bend its place along its layer, all of them at 0 or beyond."""
        for layer in self.layers:
            at = 0.0
            for left, right in pairwise(layer):
                at += self._distance(left, right)
                self.x[right] = at
            for item in layer:
                self.x[item] -= at / 2
        # From centred layers, and with both neighbours at once: sweeps that look one way only lean
        # a long graph over, a little more with each layer.
        rows = [self._row(layer) for layer in self.layers]
        for _ in range(max(4, min(FITS, FITTED // len(self.x)))):
            before = self.x[:]
            for row in (*rows, *reversed(rows)):
                self._fit(row)
            if max(abs(a - b) for a, b in zip(before, self.x, strict=True)) < 0.1:
                break
        first = min(self.x[item] - self._half(item) for item in range(len(self.x)))
        self.x = [x - first for x in self.x]

    def _half(self, item: int) -> float:
        return 0.0 if self.is_bend(item) else self.sizes[item][0] / 2

    def _distance(self, left: int, right: int) -> float:
        gap = BEND_GAP if self.is_bend(left) or self.is_bend(right) else GAP
        return self._half(left) + gap + self._half(right)

    def _row(self, layer: list[int]) -> _Row:
        row = _Row([], [], [], [])
        offset = 0.0
        for left, item in zip([None, *layer], layer, strict=False):
            offset += 0.0 if left is None else self._distance(left, item)
            row.items.append(item)
            row.offsets.append(offset)
            row.pulls.append(
                [
                    (each, STIFFNESS[self.is_bend(item) + self.is_bend(each)])
                    for each in (*self.above[item], *self.below[item])
                ]
            )
            row.weights.append(sum(stiffness for _, stiffness in row.pulls[-1]))
        return row

    def _fit(self, row: _Row) -> None:
        """Shift a layer to where its edges are shortest, its order and distances kept."""
        x = self.x
        wanted = [
            sum(stiffness * x[each] for each, stiffness in pulls) / weight - offset
            if weight
            else x[item] - offset
            for item, offset, pulls, weight in zip(*row, strict=True)
        ]
        # A box that is a graph of its own stays, unless others need its place.
        fitted = increasing(wanted, [weight or 0.01 for weight in row.weights])
        for item, offset, at in zip(row.items, row.offsets, fitted, strict=True):
            x[item] = at + offset

    # ------------------------------------------------------------------------------- result

    def layout(self, edges: Sequence[tuple[int, int]]) -> Layout:
        tops, bottoms = self._heights()
        boxes = range(len(self.sizes))
        centres = [
            (self.x[i], (tops[self.layer_of[i]] + bottoms[self.layer_of[i]]) / 2) for i in boxes
        ]
        ports = self._ports(edges)
        reached: dict[int, int] = {}  # source -> the last layer with a bend that has a line to it
        routes = []
        for number, (source, target) in enumerate(edges):
            last = self.layer_of[target]
            start = min(reached.get(source, self.layer_of[source]), last - 1)
            x = self.x[self.bends.get((source, start), source)]
            y = centres[source][1] + self.sizes[source][1] / 2
            route = [(x, bottoms[start] if source in reached else y), (x, bottoms[start])]
            for layer in range(start + 1, last):
                x = self.x[self.bends[source, layer]]
                route += [(x, tops[layer]), (x, bottoms[layer])]
            reached[source] = max(reached.get(source, start), last - 1)
            x, y = ports[number], centres[target][1]
            route += [(x, tops[last]), (x, y - self.sizes[target][1] / 2)]
            routes.append(route)
        width = max(self.x[i] + self._half(i) for i in range(len(self.x)))
        # Without the noise of the last digits, points that coincide are equal.
        return Layout(_rounded(centres), list(map(_rounded, routes)), width, bottoms[-1])

    def _heights(self) -> tuple[list[float], list[float]]:
        """Where each layer begins and ends; steep curves make room for themselves."""
        tops: list[float] = []
        bottoms: list[float] = []
        y = 0.0
        for number, layer in enumerate(self.layers):
            tops.append(y)
            y += max((self.sizes[i][1] for i in layer if not self.is_bend(i)), default=0.0)
            bottoms.append(y)
            widest = max(
                (abs(self.x[i] - self.x[j]) for i in layer for j in self.below[i]), default=0.0
            )
            if number < len(self.layers) - 1:
                y += min(max(LAYER_GAP, 0.16 * widest), 2.5 * LAYER_GAP)
        return tops, bottoms

    def _ports(self, edges: Sequence[tuple[int, int]]) -> list[float]:
        """Where each edge meets its target: side by side, in the order they come from."""
        arriving: dict[int, list[tuple[float, int]]] = {}
        for number, (source, target) in enumerate(edges):
            before = self.bends.get((source, self.layer_of[target] - 1), source)
            arriving.setdefault(target, []).append((self.x[before], number))
        ports = [0.0] * len(edges)
        for target, ends in arriving.items():
            if len(ends) == 1 and abs(ends[0][0] - self.x[target]) < STRAIGHT:
                ports[ends[0][1]] = ends[0][0]
                continue
            gap = min(PORT_GAP, 0.7 * self.sizes[target][0] / len(ends))
            for at, (_, number) in enumerate(sorted(ends)):
                ports[number] = self.x[target] + (at - (len(ends) - 1) / 2) * gap
        return ports


def _rounded(points: list[Point]) -> list[Point]:
    return [(round(x, 2), round(y, 2)) for x, y in points]


def _longest_paths(count: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    """The layer of each box: as far from the last one as the longest path to a sink."""
    before: list[list[int]] = [[] for _ in range(count)]
    uses = [0] * count
    for source, target in edges:
        before[target].append(source)
        uses[source] += 1
    height = [0] * count
    ready = [i for i in range(count) if not uses[i]]
    for target in ready:  # grows while it is read
        for source in before[target]:
            height[source] = max(height[source], height[target] + 1)
            uses[source] -= 1
            if not uses[source]:
                ready.append(source)
    if len(ready) < count:
        raise ValueError("a graph with a cycle has no layers")
    return [max(height) - each for each in height]


def _sort_by(layer: list[int], means: dict[int, float | None]) -> None:
    """Sort a layer by its means; items without one keep their place."""
    movable = iter(sorted((i for i in layer if means[i] is not None), key=means.__getitem__))  # type: ignore[arg-type]
    layer[:] = [item if means[item] is None else next(movable) for item in layer]


def increasing(values: Sequence[float], weights: Sequence[float]) -> list[float]:
    """The weighted least-squares fit to ``values`` among sequences that never decrease.

    >>> increasing([1.0, 3.0, 2.0, 4.0], [1.0, 1.0, 1.0, 1.0])
    [1.0, 2.5, 2.5, 4.0]
    """
    blocks: list[tuple[float, float, int]] = []  # mean, weight, count
    for value, own in zip(values, weights, strict=True):
        mean, weight, count = value, own, 1
        while blocks and blocks[-1][0] > mean:
            before, others, more = blocks.pop()
            mean = (before * others + mean * weight) / (others + weight)
            weight, count = weight + others, count + more
        blocks.append((mean, weight, count))
    return [mean for mean, _, count in blocks for _ in range(count)]
