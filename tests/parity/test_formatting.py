"""gradlab prints a tensor exactly as PyTorch does, but for the names of dtypes."""

import warnings

import ml_dtypes
import numpy as np
import pytest

from gradlab.formatting import format_tensor, set_printoptions

torch = pytest.importorskip("torch")

DTYPES = [
    *("float16", "bfloat16", "float32", "float64", "complex64", "complex128", "bool"),
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
]
SHAPES = [
    *((), (0,), (1,), (7,), (33,), (130,), (1000,), (1001,), (2500,)),
    *((0, 3), (3, 0), (1, 1), (2, 3), (30, 4), (4, 30), (40, 26), (3, 400), (400, 3)),
    *((2, 3, 4), (3, 0, 2000), (8, 7, 30), (2, 1, 3, 2), (7, 8, 3, 7), (2, 2, 1, 3, 2)),
]
RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def same_options():
    yield
    set_all_printoptions(profile="default")


def set_all_printoptions(**options):
    torch.set_printoptions(**options)
    set_printoptions(**options)


def real_values(shape):
    """Values of one of the magnitudes that the rules tell apart, some of them special."""
    values = np.asarray(RNG.standard_normal(shape))
    match RNG.integers(6):
        case 0:
            values = np.round(values * 10.0 ** RNG.integers(10))
        case 1:
            values = values * 10 ** RNG.uniform(-6, 6, shape)
        case 2:
            values = values * 10.0 ** RNG.integers(-300, 300)
        case 3:
            edges = [0, 9.9999e-5, 1e-4, 0.1, 1, 100, 1e3, 1e5, 1e8, 1.0001e8]
            values = RNG.choice(edges, shape)
    if RNG.random() < 0.3:
        special = RNG.choice([np.nan, np.inf, -np.inf, 0.0, -0.0], shape)
        values = np.where(RNG.random(shape) < RNG.choice([0.1, 0.5, 1]), special, values)
    return values


def integer_values(shape, dtype):
    info = np.iinfo(dtype)
    limit = (2, 100, info.max)[RNG.integers(3)]
    return RNG.integers(max(-limit, info.min), limit, shape, dtype, endpoint=True)


def random_array(shape, dtype):
    if dtype == "bool":
        return np.asarray(RNG.random(shape) < 0.5)
    if "int" in dtype:
        return np.asarray(integer_values(shape, dtype))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # values beyond float16 become infinite
        values = real_values(shape)
        if "complex" in dtype:
            values = values + 1j * real_values(shape)
        return np.asarray(values).astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)


def to_torch(array):
    if array.dtype == ml_dtypes.bfloat16:
        return torch.tensor(array.astype(np.float32)).to(torch.bfloat16)
    return torch.tensor(array)


def assert_same_text(array, **notes):
    tensor = to_torch(array)
    if notes.get("requires_grad"):
        tensor.requires_grad_()
    # The name as PyTorch writes it, since its length decides where the notes break.
    assert format_tensor(array, dtype_name=f"torch.{array.dtype.name}", **notes) == repr(tensor)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_default_options(shape, dtype):
    differentiable = dtype.startswith(("float", "bfloat", "complex"))
    for requires_grad in (False, differentiable):
        assert_same_text(random_array(shape, dtype), requires_grad=requires_grad)


@pytest.mark.parametrize("seed", range(100))
def test_random_options(seed):
    rng = np.random.default_rng(seed)
    choices = {
        "precision": range(10),
        "threshold": (0, 5, 50, 1000, 3000),
        "edgeitems": range(6),
        "linewidth": (1, 20, 40, 80, 132),
        "sci_mode": (True, False),
    }
    options = {
        name: rng.choice(list(values)).item()
        for name, values in choices.items()
        if rng.random() < 0.5
    }
    set_all_printoptions(profile=str(rng.choice(["default", "short", "full"])), **options)
    for _ in range(3):
        shape = SHAPES[rng.integers(len(SHAPES))]
        assert_same_text(random_array(shape, str(rng.choice(DTYPES))))


@pytest.mark.parametrize("default", ["float32", "float64"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_default_dtype(dtype, default):
    array = random_array((3,), dtype)
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, default))
    try:
        for part in (array, array[:0]):
            expected = repr(to_torch(part))
            name = f"torch.{array.dtype.name}"
            assert format_tensor(part, default_dtype=default, dtype_name=name) == expected
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize("length", range(1, 30))
def test_grad_fn_breaks_lines_alike(length):
    array = np.full(length, 0.5)
    tensor = to_torch(array).requires_grad_() * 1
    text = format_tensor(array, dtype_name="torch.float64", grad_fn="MulBackward0")
    assert text == repr(tensor)


def test_parameter():
    array = np.full((2, 2), 0.5, np.float32)
    text = format_tensor(array, prefix="Parameter containing:\ntensor(", requires_grad=True)
    assert text == repr(torch.nn.Parameter(to_torch(array)))
