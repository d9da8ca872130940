"""Fashion-MNIST: from real files in a folder to batches, and what is wrong with other folders."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import gradlab as gl
from gradlab._environment import pip_install
from gradlab.data import DataLoader, FashionMNIST, Subset, TensorDataset, write_idx
from gradlab.errors import AxisError, DataError, MissingDependencyError, OptionError

NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (20, 28, 28)).astype(np.uint8)


@pytest.fixture(scope="module")
def labels() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 10, 20).astype(np.uint8)


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """No test of this file may ask the network."""

    def fetch(*args):
        raise AssertionError(f"asked for {args}")

    monkeypatch.setattr(sys.modules[FashionMNIST.__module__], "fetch", fetch)


@pytest.fixture
def folder(tmp_path, pixels, labels) -> Path:
    write_idx(tmp_path / f"{NAMES[0]}.gz", pixels)
    write_idx(tmp_path / f"{NAMES[1]}.gz", labels)
    return tmp_path


def refusal(*args, **kwargs) -> str:
    with pytest.raises((DataError, OptionError, MissingDependencyError)) as raised:
        FashionMNIST(*args, **kwargs)
    text = str(raised.value)
    assert "\n" not in text
    return text


# ------------------------------------------------------------------------------ samples and batches


def test_samples(folder, pixels, labels):
    data = FashionMNIST(folder)
    image, label = data[3]
    assert (image.shape, image.dtype.name, type(label)) == ((1, 28, 28), "float32", int)
    np.testing.assert_array_equal(image.numpy()[0], pixels[3] / np.float32(255))
    assert label == labels[3]
    assert data[-1][1] == labels[-1]
    assert len(data) == 20
    assert repr(data) == "FashionMNIST(train, 20 images of 28×28)"
    assert (data.data.dtype.name, data.data.shape) == ("uint8", (20, 28, 28))
    assert (data.targets.dtype.name, data.targets.tolist()) == ("int64", labels.tolist())
    with pytest.raises(AxisError) as raised:
        data[20]
    assert str(raised.value) == "FashionMNIST: expected an index from -20 to 19, got 20"
    assert isinstance(raised.value, IndexError)  # which ends a loop over the samples
    assert [label for _, label in data] == labels.tolist()


@pytest.mark.parametrize("shuffle", [False, True])
def test_batches_are_the_samples(folder, shuffle):
    class BySample(FashionMNIST):
        def __getitem__(self, index):
            return super().__getitem__(index)

    fast, slow = (
        list(DataLoader(kind(folder), 6, shuffle=shuffle, seed=1))
        for kind in (FashionMNIST, BySample)
    )
    assert [x.shape for x, _ in fast] == [(6, 1, 28, 28)] * 3 + [(2, 1, 28, 28)]
    for (x, y), (other_x, other_y) in zip(fast, slow, strict=True):
        np.testing.assert_array_equal(x.numpy(), other_x.numpy())
        np.testing.assert_array_equal(y.numpy(), other_y.numpy())
        assert (x.dtype.name, y.dtype.name) == ("float32", "int64")


def test_batches_are_copies(folder, labels):
    data = FashionMNIST(folder)
    x, y = data[:4]
    x[:] = 0
    y[:] = 0
    assert data.targets.tolist() == labels.tolist()
    assert float(data[0][0].max()) > 0
    whole = TensorDataset(*data[:])
    assert [each.shape for each in whole.tensors] == [(20, 1, 28, 28), (20,)]
    parts = next(iter(DataLoader(Subset(data, [3, 1]), 2)))[1]
    assert parts.tolist() == labels[[3, 1]].tolist()
    with pytest.raises(AxisError, match="expected an index from -20 to 19"):
        data.get_batch([0, 99])


def test_transform_of_each_image(folder, labels):
    data = FashionMNIST(folder, transform=lambda image: image.flatten() * 2)
    assert data[0][0].shape == (784,)
    x, y = next(iter(DataLoader(data, 3)))
    assert (x.shape, y.tolist()) == ((3, 784), labels[:3].tolist())
    assert float(x.max()) > 1


def test_names_of_the_labels(folder):
    data = FashionMNIST(folder)
    assert data.classes[0] == "T-shirt/top"
    assert data.text_labels(gl.tensor([0, 3, 9])) == ["t-shirt", "dress", "ankle boot"]
    assert len(data.classes) == len(data.text_labels(range(10))) == 10
    for label in (-1, 10):
        with pytest.raises(OptionError) as raised:
            data.text_labels([0, label])
        assert str(raised.value) == (
            f"FashionMNIST.text_labels: expected labels from 0 to 9, got {label}"
        )


def test_the_name_of_a_part_is_not_taken_for_true(folder):
    assert refusal(folder, "test") == "FashionMNIST: expected train one of True, False, got 'test'"


def test_reading_speed(folder):
    speed = FashionMNIST(folder).reading_speed(batch_size=8)
    assert (speed.images, speed.megabytes) == (20, 20 * (784 * 4 + 8) / 1e6)
    assert speed.seconds > 0
    assert str(speed).startswith("20 images in 0.")
    assert str(speed).endswith(" MB/s")


def test_on_a_device(folder, fake_cuda):
    data = FashionMNIST(folder, device="cuda")
    assert repr(data) == "FashionMNIST(train, 20 images of 28×28 on cuda:0)"
    x, y = next(iter(DataLoader(data, 20, shuffle=True, seed=0)))
    own, labels = next(iter(DataLoader(FashionMNIST(folder), 20, shuffle=True, seed=0)))
    assert x.device == y.device == gl.device("cuda:0")
    np.testing.assert_allclose(x.numpy(force=True), own.numpy(), rtol=1e-6)
    assert y.tolist() == labels.tolist()


# ------------------------------------------------------------------------------- where files lie


def test_folders(folder, tmp_path, pixels, labels, monkeypatch):
    monkeypatch.setenv("GRADLAB_DATA", str(folder))
    assert len(FashionMNIST()) == 20
    laid_out = tmp_path / "other"
    raw = laid_out / "FashionMNIST" / "raw"
    write_idx(raw / "t10k-images-idx3-ubyte", pixels[:5])  # unpacked
    write_idx(raw / "t10k-labels-idx1-ubyte", labels[:5])
    test = FashionMNIST(laid_out, train=False)
    assert repr(test) == "FashionMNIST(test, 5 images of 28×28)"
    monkeypatch.delenv("GRADLAB_DATA")
    monkeypatch.setenv("HOME", str(tmp_path))
    cache = tmp_path / ".cache" / "gradlab"
    assert f" in {cache / 'FashionMNIST' / 'raw'}, got no" in refusal(download=False)


def test_files_that_are_missing(folder):
    (folder / f"{NAMES[1]}.gz").unlink()
    assert refusal(folder, download=False) == (
        f"FashionMNIST: expected {NAMES[1]}.gz in {folder}/FashionMNIST/raw, got no such file; "
        "give download=True, or get it from "
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/ and put it there"
    )


# ------------------------------------------------------------------------------ what is refused


def test_mislabelled_files(folder, pixels, labels):
    images, names = (folder / f"{name}.gz" for name in NAMES)
    write_idx(images, labels)
    assert refusal(folder) == (
        f"FashionMNIST: {images}: expected images, uint8 (n, height, width), got labels, "
        "uint8 (20,); is it named as the other file?"
    )
    write_idx(images, pixels.astype(np.float32))
    assert refusal(folder).endswith("got images, float32 (20, 28, 28)")
    write_idx(images, pixels[:0])
    assert refusal(folder).endswith("got images, uint8 (0, 28, 28)")
    write_idx(images, pixels)
    write_idx(names, pixels)
    assert refusal(folder) == (
        f"FashionMNIST: {names}: expected labels, uint8 (n,), got images, uint8 (20, 28, 28); "
        "is it named as the other file?"
    )
    write_idx(names, labels[:19])
    assert refusal(folder) == (
        f"FashionMNIST: {names}: expected 20 labels, one for each image of {images.name}, got 19"
    )
    wrong = labels.copy()
    wrong[7] = 10
    write_idx(names, wrong)
    assert refusal(folder) == (
        f"FashionMNIST: {names}: expected labels from 0 to 9, got 10 for image 7"
    )


def test_damaged_files(folder):
    images = folder / f"{NAMES[0]}.gz"
    whole = images.read_bytes()
    images.write_bytes(whole[:-100])
    assert refusal(folder) == f"FashionMNIST: {images}: the gzip file is truncated; fetch it anew"
    images.unlink()
    images.with_suffix("").write_bytes(b"hello")
    assert refusal(folder) == (
        f"FashionMNIST: {images.with_suffix('')}: expected an IDX file, which begins with two zero "
        "bytes, got 68 65 6c 6c; fetch it anew, or give another root"
    )
    images.with_suffix("").unlink()
    images.write_bytes(b"<html>not found</html>")
    assert refusal(folder).startswith(f"FashionMNIST: {images}: expected a gzip file")


# ------------------------------------------------------------------------------------ resizing


@pytest.mark.parametrize("size", [(14, 14), (32, 40), 64])
def test_resized_as_pillow_does(folder, pixels, size):
    image = pytest.importorskip("PIL.Image")
    data = FashionMNIST(folder, resize=size)
    height, width = size if isinstance(size, tuple) else (size, size)
    picture = image.fromarray(pixels[5]).resize((width, height), image.Resampling.BILINEAR)
    assert data[5][0].shape == (1, height, width)
    np.testing.assert_array_equal(data.data.numpy()[5], np.asarray(picture))


def test_sizes_that_are_none(folder, monkeypatch):
    for size in (0, (28,), (28, -1), (3.5, 2), "28", True, 1.5):
        assert refusal(folder, resize=size) == (
            f"FashionMNIST: expected resize=(height, width) of 1 or more each, got {size!r}"
        )
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert FashionMNIST(folder, resize=28)[0][0].shape == (1, 28, 28)  # nothing to do
    assert refusal(folder, resize=32) == (
        "FashionMNIST(resize=...) needs the package pillow, which is not installed; "
        f"run: {pip_install('data', 'pillow')}"
    )
