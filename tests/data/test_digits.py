"""The handwritten digits."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import gradlab as gl
from gradlab._environment import pip_install
from gradlab.data import Digits, load_digits
from gradlab.errors import MissingDependencyError, OptionError


def test_all_digits_in_their_order():
    from sklearn.datasets import load_digits as read

    images, labels = load_digits()
    raw, numbers = read(return_X_y=True)
    assert (images.shape, images.dtype.name) == ((1797, 64), "float32")
    assert (labels.shape, labels.dtype.name) == ((1797,), "int64")
    np.testing.assert_array_equal(images.numpy() * 16, raw)
    np.testing.assert_array_equal(labels.numpy(), numbers)
    assert (float(images.min()), float(images.max())) == (0, 1)
    assert float(load_digits(normalize=False)[0].max()) == 16


def test_parts_do_not_overlap():
    train, test = load_digits("train"), load_digits("test")
    assert (len(train[1]), len(test[1])) == (1438, 359)
    both = np.concatenate([train[0].numpy(), test[0].numpy()])
    everything = load_digits()[0].numpy()
    order = [np.lexsort(each.T) for each in (both, everything)]
    np.testing.assert_array_equal(both[order[0]], everything[order[1]])
    assert set(test[1].tolist()) == set(range(10))


def test_parts_depend_on_the_seed_alone():
    gl.manual_seed(1)
    one = load_digits("test", seed=3)[1].tolist()
    gl.manual_seed(2)
    assert load_digits("test", seed=3)[1].tolist() == one
    assert load_digits("test", seed=4)[1].tolist() != one
    # The split of today is the split of every later version.
    assert load_digits("test")[1].tolist()[:8] == [2, 4, 5, 4, 8, 2, 0, 6]
    assert len(load_digits("test", test_fraction=0.5)[1]) == 898


def test_digits_is_a_data_set():
    data = Digits("train")
    assert repr(data) == "Digits('train', 1438 images of 8×8)"
    assert (len(data), data.images.shape, data.split) == (1438, (1438, 8, 8), "train")
    image, label = data[3]
    assert image.tolist() == data.images[3].reshape(-1).tolist()
    assert label.item() == data.labels[3].item()
    assert data.classes[7] == "7"
    assert repr(Digits()) == "Digits(1797 images of 8×8)"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"split": "val"}, "expected split None, 'train' or 'test', got 'val'"),
        ({"test_fraction": 1}, "expected test_fraction between 0 and 1, got 1"),
    ],
)
def test_load_digits_refuses(options, text):
    with pytest.raises(OptionError) as raised:
        load_digits(**options)
    assert str(raised.value) == f"load_digits: {text}"


def test_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingDependencyError) as raised:
        Digits()
    assert str(raised.value) == (
        "load_digits needs the package scikit-learn, which is not installed; "
        f"run: {pip_install('data', 'scikit-learn')}"
    )
