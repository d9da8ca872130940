"""The losses as modules: their options, reductions and buffers."""

from __future__ import annotations

import numpy as np
import pytest

import gradlab as gl
from gradlab import nn
from gradlab.errors import DataError, OptionError, ShapeError
from refusals import refuses

X = np.array([[0.5, -1.0, 2.0], [0.1, 0.2, -3.0]], dtype="float32")
T = np.array([[0.0, 1.0, 4.0], [0.1, 0.7, 0.0]], dtype="float32")
D = X - T
LOG_P = X - np.log(np.exp(X).sum(1, keepdims=True))

ELEMENTWISE = {
    nn.MSELoss: D**2,
    nn.L1Loss: abs(D),
    nn.HuberLoss: np.where(abs(D) < 1, 0.5 * D**2, abs(D) - 0.5),
    nn.SmoothL1Loss: np.where(abs(D) < 1, 0.5 * D**2, abs(D) - 0.5),
}


@pytest.mark.parametrize("kind", ELEMENTWISE, ids=lambda kind: kind.__name__)
def test_elementwise_losses_and_their_reductions(kind):
    expected = ELEMENTWISE[kind]
    x, t = gl.tensor(X, requires_grad=True), gl.tensor(T)
    np.testing.assert_allclose(kind(reduction="none")(x, t).detach().numpy(), expected, rtol=1e-5)
    assert kind()(x, t).item() == pytest.approx(expected.mean(), rel=1e-5)
    loss = kind(reduction="sum")(x, t)
    assert loss.item() == pytest.approx(expected.sum(), rel=1e-5)
    loss.backward()
    assert x.grad.shape == X.shape


def test_huber_and_smooth_l1_take_their_width():
    x, t = gl.tensor(X), gl.tensor(T)
    huber = np.where(abs(D) < 0.5, 0.5 * D**2, 0.5 * (abs(D) - 0.25)).mean()
    assert nn.HuberLoss(delta=0.5)(x, t).item() == pytest.approx(huber, rel=1e-5)
    smooth = np.where(abs(D) < 0.5, D**2, abs(D) - 0.25).mean()
    assert nn.SmoothL1Loss(beta=0.5)(x, t).item() == pytest.approx(smooth, rel=1e-5)
    assert nn.SmoothL1Loss(beta=0)(x, t).item() == pytest.approx(abs(D).mean(), rel=1e-5)


def test_cross_entropy_options():
    x, labels = gl.tensor(X), gl.tensor([2, 0])
    rows = -LOG_P[[0, 1], [2, 0]]
    assert nn.CrossEntropyLoss()(x, labels).item() == pytest.approx(rows.mean(), rel=1e-5)
    weight = gl.tensor([1.0, 1.0, 3.0])
    weighted = nn.CrossEntropyLoss(weight=weight)
    expected = (3 * rows[0] + rows[1]) / 4
    assert weighted(x, labels).item() == pytest.approx(expected, rel=1e-5)
    assert list(weighted.state_dict()) == ["weight"]
    assert weighted.double().weight.dtype == gl.float64
    ignoring = nn.CrossEntropyLoss(ignore_index=0)
    assert ignoring(x, labels).item() == pytest.approx(rows[0], rel=1e-5)
    smooth = nn.CrossEntropyLoss(label_smoothing=0.3, reduction="sum")
    expected = (0.7 * rows - 0.3 * LOG_P.mean(1)).sum()
    assert smooth(x, labels).item() == pytest.approx(expected, rel=1e-5)
    p = np.array([[0.2, 0.3, 0.5], [1.0, 0.0, 0.0]], dtype="float32")
    probabilities = nn.CrossEntropyLoss()(x, gl.tensor(p))
    assert probabilities.item() == pytest.approx(-(p * LOG_P).sum(1).mean(), rel=1e-5)
    assert nn.CrossEntropyLoss().state_dict() == {}


def test_cross_entropy_names_labels_out_of_range():
    with refuses(DataError, "3"):
        nn.CrossEntropyLoss()(gl.tensor(X), gl.tensor([0, 3]))


def test_nll():
    x, labels = gl.tensor(LOG_P), gl.tensor([2, 0])
    rows = -LOG_P[[0, 1], [2, 0]]
    assert nn.NLLLoss()(x, labels).item() == pytest.approx(rows.mean(), rel=1e-5)
    weight = gl.tensor([1.0, 1.0, 3.0])
    loss = nn.NLLLoss(weight, ignore_index=0, reduction="sum")
    assert loss(x, labels).item() == pytest.approx(3 * rows[0], rel=1e-5)


def test_binary_cross_entropies():
    p, t = 1 / (1 + np.exp(-X)), np.array([[1, 0, 1], [0, 1, 0]], dtype="float32")
    plain = -(t * np.log(p) + (1 - t) * np.log(1 - p))
    assert nn.BCELoss()(gl.tensor(p), gl.tensor(t)).item() == pytest.approx(plain.mean(), rel=1e-5)
    loss = nn.BCEWithLogitsLoss()(gl.tensor(X), gl.tensor(t))
    assert loss.item() == pytest.approx(plain.mean(), rel=1e-5)
    w, pos = gl.tensor([1.0, 2.0, 3.0]), gl.tensor([5.0, 6.0, 7.0])
    both = nn.BCEWithLogitsLoss(weight=w, pos_weight=pos, reduction="none")
    assert list(both.state_dict()) == ["weight", "pos_weight"]
    expected = -w.numpy() * (pos.numpy() * t * np.log(p) + (1 - t) * np.log(1 - p))
    np.testing.assert_allclose(both(gl.tensor(X), gl.tensor(t)).numpy(), expected, rtol=1e-4)
    loss = nn.BCELoss(weight=w)(gl.tensor(p), gl.tensor(t))
    assert loss.item() == pytest.approx((w.numpy() * plain).mean(), rel=1e-5)


def test_kl_divergence():
    q = np.array([[0.2, 0.3, 0.5], [0.6, 0.2, 0.2]], dtype="float32")
    expected = (q * (np.log(q) - LOG_P)).sum() / 2
    loss = nn.KLDivLoss(reduction="batchmean")(gl.tensor(LOG_P), gl.tensor(q))
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss = nn.KLDivLoss("batchmean", log_target=True)(gl.tensor(LOG_P), gl.tensor(np.log(q)))
    assert loss.item() == pytest.approx(expected, rel=1e-5)


LOSSES = [
    nn.MSELoss, nn.L1Loss, nn.HuberLoss, nn.SmoothL1Loss, nn.CrossEntropyLoss, nn.NLLLoss,
    nn.BCELoss, nn.BCEWithLogitsLoss, nn.KLDivLoss,
]  # fmt: skip


@pytest.mark.parametrize("kind", LOSSES, ids=lambda kind: kind.__name__)
def test_reduction_is_checked_at_once(kind):
    with refuses(OptionError, f"{kind.__name__}: expected reduction one of 'none', 'mean', 'sum'"):
        kind(reduction="average")
    assert repr(kind()) == f"{kind.__name__}()"


def test_other_options_are_checked_at_once():
    with refuses(OptionError, "HuberLoss: expected delta above 0, got 0"):
        nn.HuberLoss(delta=0)
    with refuses(OptionError, "SmoothL1Loss: expected beta of 0 or more, got -1"):
        nn.SmoothL1Loss(beta=-1)
    with refuses(OptionError, "CrossEntropyLoss: expected label_smoothing from 0 to 1, got 2"):
        nn.CrossEntropyLoss(label_smoothing=2)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (
            lambda x: nn.MultiMarginLoss()(x, gl.tensor([0, 1, 2])), ShapeError,
            r"multi_margin_loss: expected scores \(N, C\) and labels \(N,\), got shapes",
        ),
        (
            lambda x: nn.MultiMarginLoss(p=3)(x, gl.tensor([0, 1])), OptionError,
            "multi_margin_loss: expected p of 1 or 2, got 3",
        ),
        (
            lambda x: nn.functional.soft_margin_loss(x, x, reduction="avg"), OptionError,
            "soft_margin_loss: expected reduction one of 'mean', 'sum', 'none', got 'avg'",
        ),
        (
            lambda x: nn.TripletMarginLoss(reduction="avg"), OptionError,
            "TripletMarginLoss: expected reduction",
        ),
    ],
)  # fmt: skip
def test_comparing_losses_refuse(call, error, text):
    with pytest.raises(error, match=text):
        call(gl.ones(2, 3))
