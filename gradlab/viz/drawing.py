"""The graph as SVG and as DOT.

Kinds differ in shape as well as in colour, the colours are those of Okabe and Ito ("Color universal
design", 2008), which colour-blind readers tell apart, and all text stands on a light ground of its
own, so that the picture can lie on a white page or on a dark one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple
from unicodedata import east_asian_width
from xml.sax.saxutils import escape

from gradlab.viz.layout import Layout, Point, layered

if TYPE_CHECKING:
    from gradlab.viz.graph import Graph, GraphNode, SavedValue

FONT = "Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif"
TITLE, TEXT = 13.0, 11.0  # font sizes
LINE, PAD = 15.0, 7.0
MARGIN = 12.0
LONGEST = 44  # characters of a line
ARROW = 7.0
EDGE = "#7d8590"  # as far from white as from black
INK = "#1f2328"


class Style(NamedTuple):
    """How a kind of node is drawn."""

    label: str  # in the legend
    fill: str
    stroke: str
    dot: str


STYLES = {
    "parameter": Style("parameter", "#d3e7f5", "#0072b2", 'shape=box style="filled"'),
    "input": Style("input", "#faebc8", "#b87400", 'shape=parallelogram style="filled"'),
    "op": Style("operation", "#f2f3f5", "#6b7280", 'shape=box style="filled,rounded"'),
    "result": Style(
        "result", "#cdeee1", "#007a5a", 'shape=box style="filled,rounded" peripheries=2'
    ),
    "rest": Style("not drawn", "#ffffff", "#6b7280", 'shape=box style="filled,dashed"'),
}


class Box(NamedTuple):
    """What stands in one box: a bold line, lines below it, and those of the saved values."""

    kind: str
    title: str
    lines: list[str]
    saved: list[str]
    tip: str  # the whole of it, for the mouse

    @property
    def size(self) -> Point:
        widths = [text_width(self.title, TITLE, bold=True)]
        widths += [text_width(line, TEXT) for line in (*self.lines, *self.saved)]
        sides = 2 * PAD + (18.0 if self.kind == "input" else 8.0)
        height = 2 * PAD + LINE * (1 + len(self.lines) + len(self.saved))
        return max(56.0, max(widths) + sides), height + (6.0 if self.saved else 0.0)


class Picture:
    """The boxes and edges to draw of a graph: those nearest to its end, if there are too many."""

    def __init__(self, graph: Graph, max_nodes: int) -> None:
        drawn = _nearest(graph, max_nodes)
        self.title = f"computational graph: {', '.join(graph.summary())}"
        self.boxes: dict[str, Box] = {}
        self.edges: list[tuple[str, str, str]] = []  # from, to, what it is for
        hidden = len(graph.nodes) - len(drawn)
        if hidden:
            self.boxes["rest"] = _rest(hidden)
        last = len(graph.nodes) - 1
        for number in sorted(drawn):
            self.boxes[f"n{number}"] = _box(graph.nodes[number], is_result=number == last)
        for edge in graph.edges:
            if edge.target in drawn:
                source = f"n{edge.source}" if edge.source in drawn else "rest"
                self.edges.append((source, f"n{edge.target}", edge.slot))
        if hidden:
            self.edges = list(dict.fromkeys(self.edges))
        self.caption = _caption(graph, hidden)


def _nearest(graph: Graph, max_nodes: int) -> set[int]:
    """The nodes to draw: the last ops, with the parameters and inputs that they use."""
    if len(graph.nodes) <= max_nodes:
        return set(range(len(graph.nodes)))
    ends: dict[int, list[int]] = {}
    for edge in graph.edges:
        if graph.nodes[edge.source].kind != "op":
            ends.setdefault(edge.target, []).append(edge.source)
    drawn = {len(graph.nodes) - 1}
    for node in reversed(graph.nodes):
        if node.kind == "op":
            more = drawn | {node.id, *ends.get(node.id, ())}
            if len(more) > max_nodes:
                break
            drawn = more
    return drawn


def _rest(count: int) -> Box:
    title = f"{count:,} more node{'s' * (count != 1)}"
    return Box("rest", title, ["farther from the result"], [], f"{title}, not drawn")


def _box(node: GraphNode, is_result: bool) -> Box:
    kind = "result" if is_result and node.kind == "op" else node.kind
    title = f"{node.name} = {node.call}" if node.name and node.op else node.name or node.call
    lines = [_shapes(node)]
    if not title:
        title, lines = lines[0], [node.kind]
    saved = list(_saved_lines(node.saved))
    if node.freed:
        saved = ["saved values were freed"]
    attributes = [f"{name} = {value}" for name, value in node.attributes.items()]
    tip = "\n".join([title, *lines, *attributes, *saved])
    return Box(kind, _short(title), list(map(_short, lines)), list(map(_short, saved)), tip)


def _shapes(node: GraphNode) -> str:
    if not node.outputs:
        return "no longer there"
    shapes = " and ".join(map(str, node.outputs))
    return shapes if node.dtype is None else f"{shapes} {node.dtype.name}"


def _saved_lines(values: Iterable[SavedValue]) -> Iterator[str]:
    aux = [value for value in values if value.slot == "aux"]
    for value in values:
        if len(aux) < 2 or value.slot != "aux":
            size = format_bytes(value.nbytes) + (" (shared)" if value.shared else "")
            yield f"saves {value.name} {value.shape}: {size}"
    if len(aux) > 1:
        size = format_bytes(sum(value.nbytes for value in aux))
        yield f"saves {len(aux)} auxiliary values: {size}"


def _short(text: str) -> str:
    if len(text) <= LONGEST:
        return text
    half = LONGEST // 2
    return f"{text[: half - 1]}…{text[-half:]}"


def format_bytes(count: int) -> str:
    """A number of bytes for people.

    >>> format_bytes(640), format_bytes(80_000)
    ('640 B', '78.1 KiB')
    """
    if count < 1024:
        return f"{count} B"
    size, units = float(count), iter(("KiB", "MiB", "GiB", "TiB"))
    unit = ""
    while size >= 1024 and (following := next(units, "")):
        size, unit = size / 1024, following
    return f"{size:.1f} {unit}"


def _caption(graph: Graph, hidden: int) -> list[str]:
    *counts, memory = graph.summary()
    rest = graph.saved_bytes - graph.activation_bytes
    parts = [
        f"{format_bytes(size)} of {what}"
        for size, what in (
            (graph.activation_bytes, "results"),
            (rest, "parameters and inputs"),
        )
        if size
    ]
    lines = [", ".join(counts), memory + (f": {' and '.join(parts)}" if parts else "")]
    if hidden:
        lines.append(f"{hidden:,} of {len(graph.nodes):,} nodes not drawn; see max_nodes")
    if graph.missing:
        lines.append(_short(f"not in the graph: {', '.join(graph.missing)}"))
    return lines


# ---------------------------------------------------------------------------------------- SVG


def to_svg(picture: Picture, *, rightward: bool = False) -> str:
    """The picture as an SVG document that needs nothing from outside."""
    numbers = {name: number for number, name in enumerate(picture.boxes)}
    edges = [(numbers[source], numbers[target]) for source, target, _ in picture.edges]
    layout = layered([box.size for box in picture.boxes.values()], edges, rightward=rightward)
    legend = list(dict.fromkeys(box.kind for box in picture.boxes.values()))
    foot_width, foot_height = _foot_size(picture.caption, legend)
    width = max(layout.width, foot_width) + 2 * MARGIN
    height = layout.height + 2 * MARGIN + 10 + foot_height
    left = (width - layout.width) / 2
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" style="max-width:100%;height:auto" role="img" '
        f'aria-label="{_xml(picture.title)}" font-family="{FONT}" font-size="{TEXT:g}" '
        f'fill="{INK}">',
        f'<g transform="translate({left:.1f} {MARGIN:g})">',
        *_svg_edges(layout, rightward),
        *(
            line
            for box, centre in zip(picture.boxes.values(), layout.centres, strict=True)
            for line in _svg_box(box, centre)
        ),
        "</g>",
        f'<g transform="translate({(width - foot_width) / 2:.1f} '
        f'{layout.height + MARGIN + 10:.1f})">',
        *_svg_foot(picture.caption, legend, foot_width, foot_height),
        "</g>",
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _svg_edges(layout: Layout, rightward: bool) -> Iterator[str]:
    yield f'<g fill="none" stroke="{EDGE}" stroke-width="1.4">'
    for route in layout.routes:
        pieces = (
            _piece(start, end, number % 2 == 1, rightward)
            for number, (start, end) in enumerate(pairwise(_before_arrow(route, rightward)))
            if start != end
        )
        yield f'<path d="{"".join(pieces)}"/>'
    yield "</g>"
    heads = (_arrow_head(*route[-1], rightward) for route in layout.routes)
    yield f'<path fill="{EDGE}" d="{" ".join(heads)}"/>'


def _before_arrow(route: list[Point], rightward: bool) -> list[Point]:
    """The route up to the middle of its arrow head, which the line's end would blunt."""
    (x, y), back = route[-1], ARROW / 2
    middle = (x - back, y) if rightward else (x, y - back)
    before = route[-2]
    # In a layer of equal boxes the curve itself ends at the box.
    return [*route[:-2], middle, middle] if before == route[-1] else [*route[:-1], middle]


def _piece(start: Point, end: Point, curved: bool, rightward: bool) -> str:
    (x1, y1), (x2, y2) = start, end
    ends = f"M{x1:.1f} {y1:.1f}", f"{x2:.1f} {y2:.1f}"
    if not curved or (x1 == x2 or y1 == y2):
        return f"{ends[0]}L{ends[1]}"
    if rightward:
        middle = (x1 + x2) / 2
        return f"{ends[0]}C{middle:.1f} {y1:.1f} {middle:.1f} {y2:.1f} {ends[1]}"
    middle = (y1 + y2) / 2
    return f"{ends[0]}C{x1:.1f} {middle:.1f} {x2:.1f} {middle:.1f} {ends[1]}"


def _arrow_head(x: float, y: float, rightward: bool) -> str:
    half = ARROW * 0.45
    if rightward:
        return f"M{x:.1f} {y:.1f}l{-ARROW:g} {-half:g}v{2 * half:g}z"
    return f"M{x:.1f} {y:.1f}l{-half:g} {-ARROW:g}h{2 * half:g}z"


def _svg_box(box: Box, centre: Point) -> Iterator[str]:
    (width, height), style = box.size, STYLES[box.kind]
    x, y = centre[0] - width / 2, centre[1] - height / 2
    yield f"<g><title>{_xml(box.tip)}</title>"
    yield _outline(box.kind, x, y, width, height)
    baseline = y + PAD + TITLE - 1.5
    yield (
        f'<text x="{centre[0]:.1f}" y="{baseline:.1f}" text-anchor="middle" '
        f'font-size="{TITLE:g}" font-weight="bold">{_xml(box.title)}</text>'
    )
    for line in box.lines:
        baseline += LINE
        yield _centred(line, centre[0], baseline)
    if box.saved:
        rule = baseline + 6.5
        yield (
            f'<path d="M{x + 6:.1f} {rule:.1f}H{x + width - 6:.1f}" stroke="{style.stroke}" '
            'stroke-width="0.7"/>'
        )
        baseline += 6
        for line in box.saved:
            baseline += LINE
            yield _centred(line, centre[0], baseline)
    yield "</g>"


def _centred(text: str, x: float, y: float) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="middle">{_xml(text)}</text>'


def _outline(kind: str, x: float, y: float, width: float, height: float) -> str:
    style = STYLES[kind]
    paint = f'fill="{style.fill}" stroke="{style.stroke}"'
    if kind == "input":
        slant = min(9.0, height / 2)
        corners = ((x + slant, y), (x + width, y), (x + width - slant, y + height), (x, y + height))
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in corners)
        return f'<polygon points="{points}" {paint} stroke-width="1.6"/>'
    rounding = {"parameter": 0.0, "rest": 3.0}.get(kind, min(12.0, height / 2))
    dashes = ' stroke-dasharray="5 3"' if kind == "rest" else ""
    box = _rectangle(x, y, width, height, rounding, f'{paint} stroke-width="1.6"{dashes}')
    if kind != "result":
        return box
    inner = f'fill="none" stroke="{style.stroke}" stroke-width="0.8"'
    return box + _rectangle(x + 3, y + 3, width - 6, height - 6, rounding - 3, inner)


def _rectangle(x: float, y: float, width: float, height: float, rounding: float, paint: str) -> str:
    corners = f' rx="{rounding:g}"' if rounding else ""
    size = f'width="{width:.1f}" height="{height:.1f}"'
    return f'<rect x="{x:.1f}" y="{y:.1f}" {size}{corners} {paint}/>'


def _legend_width(kind: str) -> float:
    return 22.0 + text_width(STYLES[kind].label, TEXT) + 14.0


def _foot_size(caption: list[str], legend: list[str]) -> Point:
    widths = [text_width(line, TEXT) for line in caption]
    widths.append(sum(map(_legend_width, legend)) - 14.0)
    return max(widths) + 20.0, LINE * (len(caption) + 1) + 12.0


def _svg_foot(caption: list[str], legend: list[str], width: float, height: float) -> Iterator[str]:
    """The legend and, below it, the numbers, on a light ground that stays light on dark pages."""
    yield _rectangle(0, 0, width, height, 5.0, 'fill="#f7f8fa" stroke="#c5cad1"')
    x = (width - sum(map(_legend_width, legend)) + 14.0) / 2
    for kind in legend:
        yield _outline(kind, x, 7.0, 17.0, 11.0)
        yield f'<text x="{x + 22:.1f}" y="16.5">{STYLES[kind].label}</text>'
        x += _legend_width(kind)
    for number, line in enumerate(caption, start=1):
        yield _centred(line, width / 2, 17.0 + LINE * number)


_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _xml(text: str) -> str:
    """The text as XML takes it, without the characters that XML has no way to write."""
    return escape(_FORBIDDEN.sub("\ufffd", text), {'"': "&quot;"})


# Widths in Helvetica, in 1/1000 of the font size, of what differs much from the usual 556.
_WIDTHS = {
    **dict.fromkeys("iIjl!.,:;'|() []/\\ft", 290),
    **dict.fromkeys("r-", 340),
    **dict.fromkeys("mwMW@%—…", 900),
    **dict.fromkeys("ABCDEFGHKNOPQRSTUVXYZ=+<>&", 690),
}


def text_width(text: str, size: float, *, bold: bool = False) -> float:
    """About how wide a text is; no font is at hand to measure with, so a little is added."""
    units = sum(1000 if east_asian_width(each) in "WF" else _WIDTHS.get(each, 556) for each in text)
    return units / 1000 * size * (1.12 if bold else 1.06)


# ---------------------------------------------------------------------------------------- DOT


def to_dot(picture: Picture, *, rightward: bool = False) -> str:
    """The picture in Graphviz's language."""
    lines = [
        "digraph {",
        f"  rankdir={'LR' if rightward else 'TB'}",
        f"  label={_quoted(picture.caption)}",
        '  node [fontname="Helvetica" fontsize=11 height=0.3]',
        f'  edge [color="{EDGE}" arrowsize=0.7]',
    ]
    for name, box in picture.boxes.items():
        style = STYLES[box.kind]
        label = _quoted([box.title, *box.lines, *box.saved])
        colours = f'fillcolor="{style.fill}" color="{style.stroke}"'
        lines.append(f"  {name} [label={label} {style.dot} {colours}]")
    for source, target, slot in picture.edges:
        lines.append(f"  {source} -> {target} [tooltip={_quoted([slot])}]")
    return "\n".join([*lines, "}"]) + "\n"


def _quoted(lines: Iterable[str]) -> str:
    escaped = (_plain(line).replace("\\", "\\\\").replace('"', '\\"') for line in lines)
    return '"' + "\\n".join(escaped) + '"'


def _plain(line: str) -> str:
    return "".join(each if each.isprintable() else " " for each in line)
