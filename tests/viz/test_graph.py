"""The recorded graph: what it holds, and that its pictures are valid and readable."""

from __future__ import annotations

import gc
import re
import subprocess
import sys
import time
import weakref
from itertools import combinations
from xml.etree import ElementTree

import numpy as np
import pytest

import gradlab as gl
from gradlab import nn, viz
from gradlab.errors import DTypeError, GradientError, OptionError
from gradlab.ops.core import REGISTRY
from gradlab.viz.drawing import STYLES, format_bytes
from gradlab.viz.memory import distinct_bytes, memory_of

FLOAT = 4  # bytes


@pytest.fixture
def mlp():
    """The one-hidden-layer MLP with weight decay, by the names of its textbook figure."""
    gl.manual_seed(0)
    t = {"X": gl.randn(20, 4), "y": gl.randn(20, 3)}
    t["W1"] = gl.randn(4, 8, requires_grad=True)
    t["W2"] = gl.randn(8, 3, requires_grad=True)
    t["z"] = t["X"] @ t["W1"]
    t["h"] = gl.relu(t["z"])
    t["o"] = t["h"] @ t["W2"]
    t["L"] = ((t["o"] - t["y"]) ** 2).mean()
    t["s"] = 0.05 * ((t["W1"] ** 2).sum() + (t["W2"] ** 2).sum())
    t["J"] = t["L"] + t["s"]
    return t


def by_name(graph):
    return {node.name: node for node in graph.nodes if node.name}


def saved(node):
    return [(value.name, value.shape, value.nbytes) for value in node.saved]


def parse(svg):
    return ElementTree.fromstring(svg)


def texts(svg):
    return [element.text for element in parse(svg).iter() if element.tag.endswith("}text")]


# ------------------------------------------------------------------------------------ the data


def test_ops_shapes_names_and_saved_values(mlp):
    graph = viz.graph(mlp["J"], {"W1": mlp["W1"], "W2": mlp["W2"]}, names=mlp)
    nodes = by_name(graph)
    assert {name: node.op for name, node in nodes.items() if node.op} == {
        "z": "matmul", "h": "relu", "o": "matmul", "L": "mean", "s": "mul", "J": "add",
    }  # fmt: skip
    assert nodes["W1"].kind == nodes["W2"].kind == "parameter"
    assert nodes["X"].kind == "input"
    assert nodes["X"].shape == (20, 4)
    assert nodes["W1"].shape == (4, 8)
    assert nodes["z"].shape == (20, 8)
    assert nodes["J"].shape == ()
    assert {node.dtype.name for node in graph.nodes} == {"float32"}
    assert saved(nodes["z"]) == [("X", (20, 4), 80 * FLOAT), ("W1", (4, 8), 32 * FLOAT)]
    assert saved(nodes["h"]) == [("h", (20, 8), 160 * FLOAT)]
    assert saved(nodes["o"]) == [("h", (20, 8), 160 * FLOAT), ("W2", (8, 3), 24 * FLOAT)]
    assert nodes["s"].constants == {"x1": 0.05}
    assert graph.missing == ("y",)  # o - y keeps neither


def test_edges_lead_from_operands_to_ops(mlp):
    graph = viz.graph(mlp["J"], names=mlp)
    nodes = graph.nodes
    assert [node.id for node in nodes] == list(range(len(nodes)))
    assert all(edge.source < edge.target for edge in graph.edges)
    assert nodes[-1].name == "J"
    named = {(nodes[e.source].name, nodes[e.target].name, e.slot) for e in graph.edges}
    assert {("X", "z", "x1"), ("W1", "z", "x2"), ("z", "h", "x"), ("h", "o", "x1")} <= named
    assert {("L", "J", "x1"), ("s", "J", "x2")} <= named


def test_memory_that_several_ops_save_counts_once(mlp):
    graph = viz.graph(mlp["J"], names=mlp)
    difference = 60  # o - y, saved by the square of the loss
    assert graph.saved_bytes == FLOAT * (80 + 32 + 24 + 160 + difference)
    assert graph.activation_bytes == FLOAT * (160 + difference)
    assert sum(node.saved_bytes for node in graph.nodes) > graph.saved_bytes
    shared = [(n.name or n.op, v.name) for n in graph.nodes for v in n.saved if v.shared]
    assert shared == [("o", "h"), ("square", "W1"), ("square", "W2")]


def test_views_share_the_memory_they_look_into():
    w = gl.ones(4, 4, requires_grad=True)
    graph = viz.graph((w @ w.T).sum())
    assert graph.saved_bytes == 16 * FLOAT
    assert graph.activation_bytes == 0
    h = w * 2
    graph = viz.graph((h[:, :2].square() + h[:, 2:].square()).sum())  # between one another
    assert graph.saved_bytes == 16 * FLOAT == graph.activation_bytes


def test_expanded_values_count_what_exists():
    x = gl.ones(1, requires_grad=True)
    graph = viz.graph((x * 2).expand(1000).square().sum())
    (square,) = (node for node in graph.nodes if node.op == "square")
    assert saved(square) == [("expand", (1000,), FLOAT)]


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        (lambda a: [], 0),
        (lambda a: [a], 48),
        (lambda a: [a, a], 48),
        (lambda a: [a, a.T, a.ravel()], 48),
        (lambda a: [a[::-1]], 48),
        (lambda a: [a[:1], a[2:]], 32),
        (lambda a: [a[:2], a[1:]], 48),
        (lambda a: [a[:, 0]], 12),
        (lambda a: [a[:, 0], a[:, 1]], 24),
        (lambda a: [a[:, 0], a[:, 0]], 12),
        (lambda a: [a, a.copy()], 96),
        (lambda a: [a[:0], np.broadcast_to(a[0, 0], (5, 5))], 4),
    ],
)
def test_bytes_of_arrays_that_overlap(arrays, expected):
    memories = [memory_of(each) for each in arrays(np.ones((3, 4), np.float32))]
    assert distinct_bytes([memory for memory in memories if memory is not None]) == expected


def test_a_model_gives_its_parameters_names():
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    X, y = gl.ones(5, 4), gl.arange(5) % 3
    graph = viz.graph(nn.functional.cross_entropy(net(X), y), net, names={"X": X, "y": y})
    nodes = by_name(graph)
    assert set(nodes) == {"X", "y", "0.weight", "0.bias", "2.weight", "2.bias"}
    assert nodes["y"].dtype.name == "int64"
    assert graph.missing == ()
    assert graph.nodes[-1].constants == {}  # weights that were not given are no operands


def test_pairs_of_names_and_parameters_do_as_well():
    net = nn.Linear(2, 1)
    loss = net(gl.ones(3, 2)).sum()
    assert set(by_name(viz.graph(loss, net.named_parameters()))) == {"weight", "bias"}


def test_parameters_that_the_loss_does_not_depend_on_are_missing():
    net = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 3))
    graph = viz.graph(net[0](gl.ones(5, 4)).sum(), net)
    assert graph.missing == ("1.weight", "1.bias")
    assert "not in the graph: 1.weight, 1.bias" in texts(graph.svg)


def test_a_tied_parameter_is_one_node():
    w = gl.ones(3, 3, requires_grad=True)
    graph = viz.graph((w @ w).sum(), {"a": w, "b": w})
    assert [node.name for node in graph.nodes if node.kind == "parameter"] == ["a, b"]
    assert [edge.source for edge in graph.edges if edge.target == 1] == [0, 0]


def test_an_input_used_by_several_ops_is_one_node():
    X, w = gl.ones(3, 3), gl.ones(3, 3, requires_grad=True)
    graph = viz.graph((X @ w + X @ w.exp()).sum(), names={"X": X})
    assert [node.name for node in graph.nodes if node.kind == "input"] == ["X"]


def test_an_input_keeps_its_name_when_it_is_reshaped():
    X = gl.ones(5, 2, 2)
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 1))
    graph = viz.graph(net(X).sum(), net, names={"X": X})
    assert by_name(graph)["X"].shape == (5, 4)
    assert graph.missing == ()


def test_a_leaf_is_one_node():
    x = gl.ones(2, 3, requires_grad=True)
    graph = viz.graph(x)
    (node,) = graph.nodes
    assert (node.kind, node.shape, node.op) == ("parameter", (2, 3), "")
    assert graph.edges == []
    assert graph.saved_bytes == 0
    assert "(2, 3) float32" in texts(graph.svg)
    assert repr(graph) == "<graph: 1 parameter, 0 B saved for backward>"


def test_a_leaf_that_is_gone():
    x = gl.ones(3, requires_grad=True)
    y = x.exp()
    del x
    gc.collect()
    graph = viz.graph(y)
    assert graph.nodes[0].shape is None
    assert "no longer there" in texts(graph.svg)


def test_detached_parts_end_the_graph():
    x = gl.ones(3, requires_grad=True)
    h = x.exp()
    graph = viz.graph((h.detach() * x).sum(), names={"h": h})
    assert [node.op for node in graph.nodes if node.op] == ["mul", "sum"]
    assert [node.kind for node in graph.nodes if not node.op] == ["input", "parameter"]


def test_in_place_writes():
    x = gl.ones(3, requires_grad=True)
    y = x * 1.0
    y[0] = 5.0
    y.mul_(2.0)
    ops = [node.op for node in viz.graph(y.sum()).nodes if node.op]
    assert ops[0] == "mul"
    assert ops[-2:] == ["mul", "sum"]
    assert len(ops) > 3


def test_gradients_of_gradients():
    x = gl.tensor(2.0, requires_grad=True)
    (g,) = gl.autograd.grad(x**3, x, create_graph=True)
    graph = viz.graph(g, {"x": x})
    assert by_name(graph)["x"].kind == "parameter"
    assert len(graph.nodes) > 2
    (second,) = gl.autograd.grad(g, x, create_graph=True)
    parse(viz.graph(second, {"x": x}).svg)


def test_after_backward_the_ops_are_there_and_the_values_gone(mlp):
    mlp["J"].backward()
    graph = viz.graph(mlp["J"], names=mlp)
    assert graph.saved_bytes == 0
    assert by_name(graph)["o"].freed
    assert not by_name(graph)["J"].freed
    assert "saved values were freed" in texts(graph.svg)
    assert repr(graph).endswith(", saved values freed>")
    parse(graph.svg)


def test_what_one_backward_freed_and_another_will_need():
    x = gl.ones(6, requires_grad=True)
    h = x.exp()
    h.sum().backward()
    graph = viz.graph(h.square().sum())
    assert repr(graph).endswith("24 B saved for backward beside what backward() freed>")


class Split(gl.autograd.Function):
    @staticmethod
    def forward(ctx, x, factor):
        ctx.save_for_backward(x, None)
        ctx.mask = x > 0
        ctx.factor = factor
        return x * factor, x.sum()

    @staticmethod
    def backward(ctx, gy, gs):
        return gy * ctx.factor + gs, None


def test_custom_functions():
    x = gl.ones(6, requires_grad=True)
    y, s = Split.apply(x, 3.0)
    graph = viz.graph(y.sum() + s, {"x": x}, names={"y": y})
    node = by_name(graph)["y"]
    assert node.op == "Split"
    assert node.outputs == ((6,), ())
    assert [(v.slot, v.nbytes) for v in node.saved] == [("saved_tensors", 24), ("mask", 6)]
    assert sum(edge.source == node.id for edge in graph.edges) == 2
    assert viz.graph(s).nodes[-1].op == "Split"
    s.backward()
    assert viz.graph(s).nodes[-1].freed


def test_indices_are_saved_values_too():
    x = gl.ones(6, requires_grad=True)
    index = gl.tensor([0, 2, 2])
    (node,) = (node for node in viz.graph(x[index].sum()).nodes if node.saved)
    assert sum(value.nbytes for value in node.saved) == 24


def test_the_graph_keeps_no_tensor_alive():
    x = gl.ones(1000, requires_grad=True)
    index = gl.arange(10)
    y = (x.exp() * gl.ones(1000))[index].sum()
    gone = [weakref.ref(each) for each in (x, y, index)]
    graph = viz.graph(y, {"x": x}, names={"y": y})
    assert "[0" not in graph.svg  # nor its values
    del x, y, index
    gc.collect()
    assert [ref() for ref in gone] == [None] * 3
    assert graph.nodes


def test_nothing_is_read_from_the_gpu(fake_cuda):
    from fake_cuda import counters

    net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(), nn.ReLU(), nn.Linear(8, 3)).to("cuda")
    X, y = gl.ones(5, 4, device="cuda"), gl.arange(5, device="cuda") % 3
    loss = nn.functional.cross_entropy(net(X), y)
    before = (fake_cuda.copies_to_host, fake_cuda.waits, counters.synchronizations)
    graph = viz.graph(loss, net, names={"X": X, "y": y})
    parse(graph.svg)
    assert graph.dot
    after = (fake_cuda.copies_to_host, fake_cuda.waits, counters.synchronizations)
    assert after == before
    assert by_name(graph)["X"].kind == "input"
    assert graph.activation_bytes >= 40 * FLOAT


# -------------------------------------------------------------------------------- the pictures


@pytest.mark.parametrize("direction", ["down", "right"])
def test_the_picture_is_valid_svg_that_needs_nothing_else(mlp, direction):
    svg = viz.graph(mlp["J"], names=mlp, direction=direction).svg
    root = parse(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    tags = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert tags <= {"svg", "g", "title", "text", "path", "rect", "polygon"}
    # Two pictures on one page, and anything else on it, stay apart.
    assert not re.search(r"\b(id|class|href)=|url\(|<style|<script", svg)


def test_the_picture_shows_ops_shapes_dtypes_and_saved_bytes(mlp):
    found = texts(viz.graph(mlp["J"], names=mlp).svg)
    assert {"z = matmul", "h = relu", "W1", "X", "(20, 8) float32"} <= set(found)
    assert {
        "s = mul(0.05, ·)",
        "sub(·, constant)",
        "saves W1 (4, 8): 128 B",
        "saves h (20, 8): 640 B (shared)",
    } <= set(found)
    assert (
        "1.4 KiB saved for backward: 880 B of results and 544 B of parameters and inputs" in found
    )


def test_boxes_do_not_overlap_and_lie_within_the_picture(mlp):
    for direction in ("down", "right"):
        root = parse(viz.graph(mlp["J"], names=mlp, direction=direction).svg)
        boxes = []
        for group in root.iter("{http://www.w3.org/2000/svg}g"):
            if group.find("{http://www.w3.org/2000/svg}title") is not None:
                boxes.append(extent(next(e for e in group if e.tag.endswith(("rect", "polygon")))))
        assert len(boxes) == 16
        for a, b in combinations(boxes, 2):
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
        assert max(box[2] for box in boxes) < float(root.get("width"))
        assert max(box[3] for box in boxes) < float(root.get("height"))


def extent(element):
    if element.get("points"):
        xs, ys = zip(
            *(map(float, p.split(",")) for p in element.get("points").split()), strict=True
        )
        return min(xs), min(ys), max(xs), max(ys)
    x, y, width, height = (float(element.get(name)) for name in ("x", "y", "width", "height"))
    return x, y, x + width, y + height


def luminance(colour):
    """Relative luminance, WCAG 2.1."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a, b):
    low, high = sorted(map(luminance, (a, b)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_on_light_and_dark_pages():
    from gradlab.viz.drawing import EDGE, INK

    for page in ("#ffffff", "#0d1117"):
        assert contrast(EDGE, page) >= 3  # WCAG's limit for graphics
    for style in STYLES.values():
        assert contrast(INK, style.fill) >= 7  # and for text, enhanced
        assert contrast(style.stroke, style.fill) >= 3


def test_the_same_graph_gives_the_same_texts(mlp):
    one, two = (viz.graph(mlp["J"], names=mlp) for _ in range(2))
    assert one.svg == two.svg
    assert one.dot == two.dot


AWKWARD = 'a<b>&"c"\\N\n\x00\ud800 ü'


def test_names_are_escaped():
    w = gl.ones(2, requires_grad=True)
    graph = viz.graph(w.sum(), {AWKWARD: w, "": w})
    assert any('a<b>&"c"\\N' in text for text in texts(graph.svg) if text)
    nodes, _ = read_dot(graph.dot)
    assert nodes["n0"].startswith('a<b>&"c"\\N')
    assert graph.svg.encode()
    assert graph.dot.encode()


def test_long_names_are_shortened_and_kept_for_the_mouse():
    w = gl.ones(2, requires_grad=True)
    name = ".".join(["encoder.layers"] * 10)
    svg = viz.graph(w.sum(), {name: w}).svg
    assert max(map(len, texts(svg))) <= 60
    assert name in "".join(parse(svg).itertext())


# A small reader of DOT, strict about what it takes.
TOKEN = re.compile(r'"((?:[^"\\]|\\.)*)"|([A-Za-z_]\w*|-?[\d.]+)|(->|[{}\[\]=;])|\s+')


def read_dot(dot):
    """Labels of nodes and pairs of edges."""
    at, tokens = 0, []
    while at < len(dot):
        match = TOKEN.match(dot, at)
        assert match, dot[at : at + 40]
        at = match.end()
        if match[1] is not None:
            tokens.append(re.sub(r"\\(.)", lambda m: {"n": "\n"}.get(m[1], m[1]), match[1]))
        elif match[0].strip():
            tokens.append(match[0])
    assert tokens[:2] == ["digraph", "{"]
    assert tokens[-1] == "}"
    nodes, edges, i, body = {}, [], 0, tokens[2:-1]
    while i < len(body):
        if body[i + 1] == "=":
            i += 3
            continue
        names = [body[i]]
        i += 1
        if body[i] == "->":
            names.append(body[i + 1])
            i += 2
        assert body[i] == "["
        end = body.index("]", i)
        options = body[i + 1 : end]
        assert options[1::3] == ["="] * (len(options) // 3), options
        options = dict(zip(options[::3], options[2::3], strict=True))
        i = end + 1
        if len(names) == 2:
            edges.append(tuple(names))
        elif names[0] not in ("node", "edge", "graph"):
            nodes[names[0]] = options["label"]
    return nodes, edges


def test_the_dot_text_holds_the_same_graph(mlp):
    graph = viz.graph(mlp["J"], names=mlp)
    nodes, edges = read_dot(graph.dot)
    assert len(nodes) == len(graph.nodes)
    assert edges == [(f"n{edge.source}", f"n{edge.target}") for edge in graph.edges]
    z = by_name(graph)["z"]
    assert nodes[f"n{z.id}"].split("\n") == [
        "z = matmul", "(20, 8) float32", "saves X (20, 4): 320 B", "saves W1 (4, 8): 128 B",
    ]  # fmt: skip
    assert "rankdir=LR" in viz.graph(mlp["J"], direction="right").dot


def test_a_notebook_shows_it_by_itself(mlp):
    graph = viz.graph(mlp["J"], names=mlp)
    assert graph._repr_mimebundle_() == {"image/svg+xml": graph.svg, "text/plain": repr(graph)}
    assert graph._repr_svg_() == graph.svg
    assert repr(graph) == "<graph: 13 ops, 2 parameters, 1 input, 1.4 KiB saved for backward>"


def test_ipython_takes_the_picture(mlp):
    formatters = pytest.importorskip("IPython.core.formatters")
    shown, _ = formatters.DisplayFormatter().format(viz.graph(mlp["J"]))
    assert set(shown) == {"image/svg+xml", "text/plain"}


def test_files(mlp, tmp_path):
    graph = viz.graph(mlp["J"], names=mlp, path=tmp_path / "new" / "graph.svg")
    assert (tmp_path / "new" / "graph.svg").read_text(encoding="utf-8") == graph.svg
    for name in ("graph.dot", "graph.GV"):
        graph.save(tmp_path / name)
        assert (tmp_path / name).read_text(encoding="utf-8") == graph.dot
    expected = r"graph.save: expected a file name that ends in .svg, .dot or .gv, got '.*x.png'; Gr"
    with pytest.raises(OptionError, match=expected):
        graph.save(tmp_path / "x.png")


# ---------------------------------------------------------------------------------- every op

DIFFERENTIABLE = [op for op in REGISTRY.values() if op.samples is not None and op.gradients]


def as_leaves(value):
    if isinstance(value, list):
        return [as_leaves(each) for each in value]
    if isinstance(value, np.ndarray):
        return gl.tensor(value, requires_grad=value.dtype.kind == "f")
    return value


@pytest.mark.parametrize("op", DIFFERENTIABLE, ids=lambda op: op.name)
def test_each_op_can_be_drawn(op):
    sample = next(each for each in op.samples() if not each.large)
    args = [as_leaves(each) for each in sample.args]
    y = op.function(*args, **sample.kwargs)
    if not isinstance(y, gl.Tensor) or not y.requires_grad:
        pytest.skip("the sample has no floating inputs that a gradient flows to")
    graph = viz.graph(y)
    assert graph.nodes[-1].shape == y.shape
    assert parse(graph.svg) is not None
    read_dot(graph.dot)


# ---------------------------------------------------------------------------------- large ones


def chain(count):
    y = x = gl.ones(3, requires_grad=True)
    for _ in range(count):
        y = y * x
    return x, y


def test_long_graphs_are_fast_and_say_what_is_left_out():
    x, y = chain(5000)
    started = time.perf_counter()
    graph = viz.graph(y.sum(), {"x": x}, max_nodes=100)
    found = texts(graph.svg)
    assert time.perf_counter() - started < 5
    assert len(graph.nodes) == 5002
    assert {"4,902 more nodes", "4,902 of 5,002 nodes not drawn; see max_nodes"} <= set(found)
    assert "x" in found
    nodes, edges = read_dot(graph.dot)
    assert len(nodes) == 101
    assert {name for edge in edges for name in edge} == set(nodes)


def test_the_whole_of_a_graph_of_hundreds_of_nodes():
    x, y = chain(500)
    started = time.perf_counter()
    svg = viz.graph(y.sum(), {"x": x}, max_nodes=1000).svg
    assert time.perf_counter() - started < 5
    assert "not drawn" not in svg


@pytest.mark.parametrize("max_nodes", [1, 2, 3])
def test_few_nodes(mlp, max_nodes):
    nodes, _ = read_dot(viz.graph(mlp["J"], names=mlp, max_nodes=max_nodes).dot)
    assert len(nodes) == max_nodes + 1
    assert any(label.startswith("J = add") for label in nodes.values())


# -------------------------------------------------------------------------------- the messages


@pytest.mark.parametrize("wrong", [1.5, np.ones(3), None, (1, 2)])
def test_what_is_no_tensor(wrong):
    kind = type(wrong).__name__
    with pytest.raises(DTypeError, match=f"^graph: expected a tensor, got {kind}$"):
        viz.graph(wrong)


def test_a_tensor_without_history():
    with pytest.raises(
        GradientError,
        match=r"graph: expected a tensor that depends on one with requires_grad=True, got one of "
        r"shape \(3,\) that does not; call requires_grad_\(\) on the inputs",
    ):
        viz.graph(gl.ones(3))
    x = gl.ones(3, requires_grad=True)
    with gl.no_grad(), pytest.raises(GradientError, match="graph: expected a tensor that depends"):
        viz.graph(x.exp())


def test_names_of_what_are_no_tensors():
    x = gl.ones(3, requires_grad=True)
    expected = "^graph: expected a dict of names and tensors, got float as 'a'$"
    with pytest.raises(DTypeError, match=expected):
        viz.graph(x, {"a": 1.0})
    expected = "^graph: expected a model, or a dict of names and tensors, got "
    with pytest.raises(DTypeError, match=f"{expected}int$"):
        viz.graph(x, 3)
    with pytest.raises(DTypeError, match=f"{expected}Tensor$"):
        viz.graph(x, x)


def test_options():
    x = gl.ones(3, requires_grad=True)
    with pytest.raises(OptionError, match="graph: expected direction one of 'down', 'right', got"):
        viz.graph(x, direction="up")
    for wrong in (0, "many"):
        with pytest.raises(OptionError, match="graph: expected an integer max_nodes of 1 or more"):
            viz.graph(x, max_nodes=wrong)


def test_no_other_package_is_loaded():
    code = (
        "import sys, gradlab as gl; from gradlab import viz\n"
        "viz.graph(gl.ones(3, requires_grad=True).sum()).svg\n"
        "assert not {'matplotlib', 'networkx', 'IPython'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_bytes_in_words():
    found = [format_bytes(n) for n in (0, 1023, 1024, 1536, 1 << 20, 3 << 40, 1 << 52)]
    assert found == ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1.0 MiB", "3.0 TiB", "4096.0 TiB"]
