"""Layered layout: boxes stand apart, edges flow one way and pass between boxes."""

from __future__ import annotations

import random
from itertools import combinations, pairwise

import pytest

from gradlab.viz.layout import _Layers, increasing, layered


def random_graph(seed, count=30, uses=2):
    """Boxes of many sizes, most of them joined to some that stand close before them."""
    rng = random.Random(seed)
    sizes = [(rng.uniform(20, 200), rng.uniform(15, 80)) for _ in range(count)]
    edges = [
        (rng.randrange(max(0, target - 8), target), target)
        for target in range(1, count)
        for _ in range(rng.randint(1, uses))
    ]
    return sizes, edges


def corners(centre, size):
    (x, y), (width, height) = centre, size
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def overlap(a, b, slack=0.02):
    """True where two boxes have more in common than rounding explains."""
    return (
        a[0] + slack < b[2] and b[0] + slack < a[2] and a[1] + slack < b[3] and b[1] + slack < a[3]
    )


@pytest.mark.parametrize("rightward", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_boxes_do_not_overlap(seed, rightward):
    sizes, edges = random_graph(seed)
    layout = layered(sizes, edges, rightward=rightward)
    boxes = [corners(c, s) for c, s in zip(layout.centres, sizes, strict=True)]
    assert not [pair for pair in combinations(boxes, 2) if overlap(*pair)]
    for left, top, right, bottom in boxes:
        assert left >= -0.02
        assert top >= -0.02
        assert right <= layout.width + 0.02
        assert bottom <= layout.height + 0.02


@pytest.mark.parametrize("rightward", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_edges_flow_one_way_and_pass_between_boxes(seed, rightward):
    sizes, edges = random_graph(seed)
    layout = layered(sizes, edges, rightward=rightward)
    along, across = (0, 1) if rightward else (1, 0)
    boxes = [corners(c, s) for c, s in zip(layout.centres, sizes, strict=True)]
    begun = {}
    for (source, target), route in zip(edges, layout.routes, strict=True):
        flow = [point[along] for point in route]
        assert flow == sorted(flow)
        if source not in begun:
            assert flow[0] == pytest.approx(boxes[source][along + 2], abs=0.02)
        else:  # it branches off
            assert route[0] == route[1]
            assert route[0] in begun[source]
        begun[source] = [*begun.get(source, ()), *route]
        assert flow[-1] == pytest.approx(boxes[target][along], abs=0.02)
        assert boxes[target][across] < route[-1][across] < boxes[target][across + 2]
        # Lines run straight through a layer, and between the boxes in it; curves outside.
        for start, end in list(pairwise(route))[::2]:
            assert start[across] == end[across]
            low, high = sorted((start, end))
            line = (*low, *high)
            assert not [box for box in boxes if overlap(line, box)]
        for start, end in list(pairwise(route))[1::2]:
            for box in boxes:
                assert end[along] <= box[along] + 0.02 or start[along] >= box[along + 2] - 0.02


def test_the_same_graph_gives_the_same_layout():
    sizes, edges = random_graph(3)
    assert layered(sizes, edges) == layered(sizes, edges)


def test_the_end_comes_last_and_inputs_before_their_first_use():
    #   0 → 1 → 2 → 3, and 4 → 3
    layout = layered([(20, 10)] * 5, [(0, 1), (1, 2), (2, 3), (4, 3)])
    heights = [y for _, y in layout.centres]
    assert heights[0] < heights[1] < heights[2] < heights[3]
    assert heights[4] == heights[2]


def test_a_chain_is_straight():
    layout = layered([(20 + 10 * (i % 3), 10) for i in range(50)], [(i, i + 1) for i in range(49)])
    assert len({x for x, _ in layout.centres}) == 1


def test_operands_stand_in_the_order_given():
    layout = layered([(20, 10)] * 4, [(0, 3), (1, 3), (2, 3)])
    assert [x for x, _ in layout.centres[:3]] == [10, 52, 94]
    assert layout.centres[3][0] == pytest.approx(52)
    assert [route[-1][0] for route in layout.routes] == sorted(r[-1][0] for r in layout.routes)


def test_two_edges_between_the_same_boxes_end_apart():
    layout = layered([(60, 10), (60, 10)], [(0, 1), (0, 1)])
    ends = [route[-1][0] for route in layout.routes]
    assert ends[1] - ends[0] > 10


def test_edges_of_one_box_share_their_bends():
    count = 200  # a weight that each of 200 steps uses
    edges = [(i, i + 1) for i in range(1, count)] + [(0, i) for i in range(2, count + 1)]
    layers = _Layers([(30, 10)] * (count + 1), edges)
    assert len(layers.x) < 2 * count + 2
    layout = layered([(30, 10)] * (count + 1), edges)
    assert sum(map(len, layout.routes)) < 12 * count


def test_crossings_that_can_be_avoided_are():
    # Pairs in reverse order: as given, all of them cross.
    edges = [(i, 19 - i) for i in range(10)] + [(i, 20) for i in range(10, 20)]
    layers = _Layers([(20, 10)] * 21, edges)
    layers.reduce_crossings()
    assert layers.crossings() == 0


def test_crossings_are_counted():
    layers = _Layers([(1, 1)] * 6, [(a, b) for a in range(3) for b in range(3, 6)])
    assert layers.crossings() == 9  # of K(3, 3) in two rows


def test_sweeps_never_add_crossings():
    for seed in range(10):
        layers = _Layers(*random_graph(seed, count=40, uses=3))
        before = layers.crossings()
        layers.reduce_crossings()
        assert layers.crossings() <= before


def test_parts_that_are_not_joined_and_no_parts():
    layout = layered([(20, 10), (20, 10), (30, 30)], [(0, 1)])
    boxes = [
        corners(c, s) for c, s in zip(layout.centres, [(20, 10)] * 2 + [(30, 30)], strict=True)
    ]
    assert not [pair for pair in combinations(boxes, 2) if overlap(*pair)]
    assert layered([], []) == ([], [], 0, 0)
    assert layered([(20, 10)], []).centres == [(10, 5)]


def test_a_cycle_is_refused():
    with pytest.raises(ValueError, match="cycle"):
        layered([(1, 1)] * 2, [(0, 1), (1, 0)])


def test_the_fit_is_the_best_one():
    rng = random.Random(0)
    for _ in range(50):
        values = [rng.uniform(-5, 5) for _ in range(6)]
        weights = [rng.uniform(0.1, 8) for _ in range(6)]
        fitted = increasing(values, weights)
        assert all(a <= b + 1e-12 for a, b in pairwise(fitted))

        def cost(xs, values=values, weights=weights):
            return sum(w * (x - v) ** 2 for x, v, w in zip(xs, values, weights, strict=True))

        for _ in range(100):
            near = sorted(x + rng.gauss(0, 0.3) for x in fitted)
            assert cost(near) >= cost(fitted) - 1e-9
