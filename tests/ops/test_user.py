"""`gradlab.elementwise`: ops made of scalar Python functions, on the CPU and on CUDA's stand-in."""

from __future__ import annotations

import functools
import importlib
import math
import subprocess
import sys
import types

import numpy as np
import pytest
from gradlab.kernels.numba_cuda.launch import missing

import gradlab as gl
from gradlab.errors import GradientError, MissingDependencyError, OptionError, ShapeError
from gradlab.ops.samples import Sample, values
from gradlab.testing import check_op

pytest.importorskip("numba", reason="the extra numba is not installed")


@pytest.fixture
def on_cuda(emulator):
    if missing():
        pytest.skip(missing())
    return emulator


SCALE = 0.5


def samples():
    for shape1, shape2 in (((3, 4), (3, 4)), ((2, 3, 4), (4,)), ((3, 1), (1, 2)), ((), (3,))):
        x, beta = values(shape1), values(shape2, seed=1)
        yield Sample((x, beta), name=f"{shape1} with {shape2}")
    yield Sample((values((6, 8))[::2, ::-2], values((4, 3)).T[:3, :]), name="strided")
    yield Sample((values((0, 3)), 1.5), name="empty, with a scalar")
    yield Sample((values(1025), 0.5), name="1025 values", large=True)


@gl.elementwise(samples=samples)
def swish(x, beta=1.0):
    """x times the logistic function of beta x."""
    return x / (1 + math.exp(-beta * x))


@swish.gradient
def swish_gradient(gy, x, beta):
    s = 1 / (1 + math.exp(-beta * x))
    slope = x * s * (1 - s)
    return gy * (s + beta * slope), gy * x * slope


@swish_gradient.gradient
def swish_second_gradient(gx, gbeta, gy, x, beta):
    s = 1 / (1 + math.exp(-beta * x))
    ds = s * (1 - s)
    dds = ds * (1 - 2 * s)
    first = s + beta * x * ds
    ggy = gx * first + gbeta * x * x * ds
    xx = 2 * beta * ds + beta * beta * x * dds
    xbeta = 2 * x * ds + beta * x * x * dds
    return (
        ggy,
        gy * (gx * xx + gbeta * xbeta),
        gy * (gx * xbeta + gbeta * x * x * x * dds),
    )


def test_samples_on_the_cpu():
    assert check_op(swish, devices=[]) == 7


def test_samples_on_cuda(on_cuda):
    check_op(swish.op, devices=["cuda"])
    # Gradients of inputs that were broadcast are summed.
    launched = {source for source, _ in on_cuda.launches}
    assert launched == {"swish.ptx", "swish_gradient.ptx", "reduction.cu"}


def test_second_order_on_cuda(on_cuda):
    found = []
    for device in ("cpu", "cuda"):
        x = gl.tensor([0.5, -1.0], device=device, requires_grad=True)
        beta = gl.tensor([[1.0], [2.0]], device=device, requires_grad=True)
        first = gl.autograd.grad(swish(x, beta).sum(), [x, beta], create_graph=True)
        total = first[0].sum() + (first[1] ** 2).sum()
        found.append([each.numpy(force=True) for each in gl.autograd.grad(total, [x, beta])])
    for on_cpu, on_gpu in zip(*found, strict=True):
        np.testing.assert_allclose(on_gpu, on_cpu, rtol=1e-5)


def test_it_is_an_op_like_others():
    x = gl.tensor([-1.0, 2.0], requires_grad=True)
    y = swish(x, 2.0)
    np.testing.assert_allclose(
        y.numpy(force=True), x.numpy(force=True) / (1 + np.exp([2, -4])), 1e-6
    )
    assert y.grad_fn.name == "SwishBackward0"
    assert repr(swish) == "<elementwise swish(x, beta)>"
    assert swish.__name__ == "swish"
    assert swish.__doc__ == "x times the logistic function of beta x."
    with gl.no_grad():
        assert not swish(x).requires_grad


def test_inputs_by_name_and_by_default():
    x = gl.tensor([1.0, 2.0])
    np.testing.assert_array_equal(swish(x).numpy(), swish(x, 1.0).numpy())
    np.testing.assert_array_equal(swish(beta=3.0, x=x).numpy(), swish(x, 3.0).numpy())
    np.testing.assert_array_equal(swish(np.float32([1, 2])).numpy(), swish(x).numpy())
    with pytest.raises(OptionError, match=r"^swish: expected inputs \(x, beta\), got 3 in order"):
        swish(x, 1.0, 2.0)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_dtypes(dtype):
    x = gl.tensor([-1.0, 2.0], dtype=dtype)
    assert swish(x, 2.0).dtype == x.dtype
    assert swish(x, gl.tensor(1, dtype="int8")).dtype == x.dtype


def test_integers_become_the_default_dtype_and_bools_stay():
    @gl.elementwise
    def positive(x):
        return x > 0

    assert swish(gl.tensor([1, 2])).dtype == gl.float32
    assert positive(gl.tensor([1.0, -1.0])).tolist() == [True, False]
    gl.set_default_dtype("float64")
    try:
        assert swish(gl.tensor([1, 2])).dtype == gl.float64
    finally:
        gl.set_default_dtype("float32")


def test_literals_take_the_dtype_of_the_inputs():
    @gl.elementwise
    def wave(x):
        total = 0.0
        for _ in range(3):
            total += SCALE * x / 2
        return -total * math.pi + (x**2 if x > -1 else 1)

    tree = wave._scalar.typed(np.float32)
    import ast

    assert ast.unparse(tree).splitlines()[1:] == [
        "    total = _literal_(0.0)",
        "    for _ in range(3):",
        "        total += _literal_(SCALE) * x / _literal_(2)",
        "    return -total * _literal_(math.pi) + (x ** 2 if x > _literal_(-1) else _literal_(1))",
    ]
    x = np.float32([-2.0, 0.3])
    expected = -0.75 * x * np.pi + np.where(x > -1, x**2, 1)
    np.testing.assert_allclose(wave(gl.tensor(x)).numpy(), expected, 1e-6)


def test_a_float32_kernel_has_no_float64_arithmetic(on_cuda, monkeypatch):
    ptx = []
    launch = on_cuda.launch_ptx
    monkeypatch.setattr(
        on_cuda,
        "launch_ptx",
        lambda kernel, *args: (ptx.append(kernel.ptx), launch(kernel, *args)),
    )
    swish(gl.ones(3, device="cuda"), gl.ones(3, device="cuda"))
    assert ".visible .entry" in ptx[0]
    assert "sm_90" in ptx[0]
    assert ".f64" not in ptx[0]


def test_a_count_taken_for_a_number_is_still_a_count():
    @gl.elementwise
    def power_sum(x):
        n = 2
        total = x
        for _ in range(n + 1):  # n + 1 looks like arithmetic
            total = total + x
        return total

    assert power_sum(gl.tensor([1.0, 2.0])).tolist() == [4.0, 8.0]


def test_a_gradient_of_one_input():
    for gradient in (lambda gy, x: gy * 2 * x, lambda gy, x: (gy * 2 * x,)):

        @gl.elementwise(gradient=gradient)
        def square(x):
            return x * x

        x = gl.tensor([1.0, -3.0], requires_grad=True)
        square(x).sum().backward()
        assert x.grad.tolist() == [2.0, -6.0]


def test_inputs_may_be_called_y():
    @gl.elementwise
    def product(x, y):
        return x * y

    @product.gradient
    def product_gradient(gy, x, y):
        return gy * y, gy * x

    x, y = (gl.tensor(value, requires_grad=True) for value in (2.0, 5.0))
    product(x, y).backward()
    assert (x.grad.item(), y.grad.item()) == (5.0, 2.0)


def test_infinities_and_not_exceptions():
    @gl.elementwise
    def inverse(x):
        return 1 / x

    assert inverse(gl.tensor([0.0, 2.0])).tolist() == [math.inf, 0.5]


def test_a_missing_gradient_is_refused_when_it_is_needed():
    @gl.elementwise
    def cube(x):
        return x**3

    x = gl.tensor([1.0], requires_grad=True)
    y = cube(x)  # fine so far
    with pytest.raises(
        GradientError,
        match=r"^cube has no gradient, and one was asked for; give it "
        r"one with @cube.gradient, or call it inside no_grad\(\) or on x.detach\(\)$",
    ):
        y.backward()  # fmt: skip
    cube(x.detach())


def test_a_missing_second_gradient_names_both():
    @gl.elementwise
    def cube(x):
        return x**3

    @cube.gradient
    def cube_gradient(gy, x):
        return 3 * gy * x**2

    x = gl.tensor([1.0], requires_grad=True)
    (gx,) = gl.autograd.grad(cube(x).sum(), x, create_graph=True)
    with pytest.raises(
        GradientError,
        match=r"^cube: a gradient of its gradient was asked for, and "
        r"cube_gradient has none; give it one with @cube_gradient.gradient$",
    ):
        gl.autograd.grad(gx.sum(), x)  # fmt: skip


def unknown_name(x):
    return nothing_here(x)  # noqa: F821


def an_import(x):
    import math

    return math.exp(x)


def text(x):
    return x + math.exp("a")


def a_tuple(x):
    return x, x


def a_complex(x):
    return x * 1j


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (unknown_name, r"an error: NameError: name 'nothing_here' is not defined for float32"),
        (an_import, r"an import inside the function for float32 \(line \d+\)"),
        (text, r"no implementation of exp\(Literal\[str\]\(a\)\) for float32 \(line \d+\)"),
    ],
)
def test_what_numba_cannot_compile_is_named(function, reason):
    with pytest.raises(
        OptionError,
        match=rf"^{function.__name__}: expected a function of numbers "
        rf"that Numba can compile, got one with {reason}.*; use arithmetic",
    ):
        gl.elementwise(function)(gl.ones(2))  # fmt: skip


def test_what_is_returned_must_be_numbers():
    with pytest.raises(
        OptionError, match=r"^a_tuple\(x\): expected it to return one number, got 2"
    ):
        gl.elementwise(a_tuple)(gl.ones(2))
    with pytest.raises(
        OptionError, match=r"^a_complex: expected it to return real numbers, got com"
    ):
        gl.elementwise(a_complex)(gl.ones(2))

    op = gl.elementwise(gradient=lambda gy, x, beta: (gy, gy, gy))(swish.__wrapped__)
    x = gl.tensor([1.0], requires_grad=True)
    with pytest.raises(OptionError, match=r"expected it to return 2 numbers, got 3 numbers$"):
        op(x, 1.0).backward()


def test_what_is_no_function_of_numbers_is_refused_at_once():
    with pytest.raises(
        OptionError, match=r"^elementwise: expected a Python function of numbers, got"
    ):
        gl.elementwise(math.exp)
    with pytest.raises(OptionError, match=r"one or more inputs, and no \*args .*, got f\(\*xs\)$"):

        @gl.elementwise
        def f(*xs):
            return xs[0]

    f = gl.elementwise(a_tuple)
    with pytest.raises(
        OptionError, match=r"^a_tuple.gradient: expected a function of \(gy, x\), got"
    ):
        f.gradient(text)


def test_shapes_that_do_not_broadcast():
    with pytest.raises(ShapeError, match=r"^swish: expected shapes that broadcast"):
        swish(gl.ones(3), gl.ones(4))


# What is compiled is the function that was imported


@pytest.fixture
def imported(tmp_path, monkeypatch):
    """Imports a module from its text, as often as it is given one."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def imports(text):
        (tmp_path / "user_ops.py").write_text(text)
        return importlib.import_module("user_ops")

    yield imports
    sys.modules.pop("user_ops", None)


PLUS_ONE = "import gradlab as gl\ndef plain(x):\n    return x + 1\nop = gl.elementwise(plain)\n"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_file_that_changes_after_the_import(imported, on_cuda, dtype):
    module = imported(PLUS_ONE)
    imported(PLUS_ONE.replace("x + 1", "x + 2 + 0"))
    x = gl.ones(2, dtype=dtype)
    assert module.op(x).tolist() == [2.0, 2.0]
    assert module.op(x.to("cuda")).tolist() == [2.0, 2.0]
    assert gl.elementwise(module.plain)(x).tolist() == [2.0, 2.0]  # read only now
    with pytest.raises(OptionError, match=r"^plain: .* got one typed .*, or changed in its file"):
        gl.elementwise(module.plain)(x.to("cuda"))


def test_a_file_whose_lines_have_moved_or_that_is_broken(imported, on_cuda):
    module = imported(PLUS_ONE)
    imported("# a line\n" + PLUS_ONE)
    assert gl.elementwise(module.plain)(gl.ones(2, device="cuda")).tolist() == [2.0, 2.0]
    imported("def (")
    assert gl.elementwise(module.plain)(gl.ones(2)).tolist() == [2.0, 2.0]


def test_numbers_that_are_equal_and_not_the_same(imported):
    module = imported(PLUS_ONE.replace("x + 1", "x // 2 * 1"))
    imported(PLUS_ONE.replace("x + 1", "x // 2.0 * True"))
    assert gl.elementwise(module.plain)._scalar.tree is None


def test_lambdas_on_one_line(on_cuda):
    # fmt: off
    first, second, third = gl.elementwise(lambda x: x + 1), gl.elementwise(lambda x: x + 2), gl.elementwise(lambda x: x + 1.0)  # noqa: E501
    # fmt: on
    for device in ("cpu", "cuda"):
        x = gl.ones(1, device=device)
        assert [op(x).item() for op in (first, second, third)] == [2.0, 3.0, 2.0]
    assert all(op._scalar.tree is not None for op in (first, second, third))


def test_a_lambda_amid_a_longer_expression(on_cuda):
    ops = [
        gl.elementwise(
            lambda x, n=2.0: (
                x * n
            ),
        ),
    ]  # fmt: skip
    assert ops[0](gl.ones(1, device="cuda")).item() == 2.0


def test_nested_functions_take_their_own_values(on_cuda):
    def times(factor):
        @gl.elementwise
        def op(x):
            return factor * x

        return op

    double, triple = times(2.0), times(3.0)
    for device in ("cpu", "cuda"):
        for dtype in ("float32", "float64"):
            x = gl.ones(1, device=device, dtype=dtype)
            assert (double(x).item(), triple(x).item()) == (2.0, 3.0)


def test_what_a_decorator_made_is_what_is_compiled():
    def twice(function):
        @functools.wraps(function)
        def wrapper(*inputs):
            return 2 * function(*inputs)

        return wrapper

    @twice
    def plus_one(x):
        return x + 1

    with pytest.raises(OptionError, match=r"no \*args .*, got plus_one\(\*inputs\)$"):
        gl.elementwise(plus_one)

    @functools.wraps(swish.__wrapped__)
    def another(x):
        return 3 * x

    assert gl.elementwise(another)(gl.ones(1)).item() == 3.0


def test_a_number_from_around_that_changes(on_cuda, monkeypatch):
    enclosing = 1.0
    settings = types.ModuleType("settings")
    settings.scale = 1.0
    monkeypatch.setitem(globals(), "SETTINGS", settings)
    monkeypatch.setitem(globals(), "OFFSET", 0.0)

    @gl.elementwise
    def op(x):
        return SETTINGS.scale * x * enclosing + OFFSET  # noqa: F821

    def found():
        return [
            op(gl.ones(1, device=device, dtype=dtype)).item()
            for device in ("cpu", "cuda")
            for dtype in ("float32", "float64")
        ]

    assert found() == [1.0] * 4
    settings.scale = 2.0
    assert found() == [2.0] * 4
    enclosing = 3.0
    assert found() == [6.0] * 4
    globals()["OFFSET"] = 1.0
    assert found() == [7.0] * 4
    compiled = op.op.forward.__closure__  # and is not compiled again without need
    before = [cell.cell_contents for cell in compiled if isinstance(cell.cell_contents, dict)]
    assert found() == [7.0] * 4
    after = [cell.cell_contents for cell in compiled if isinstance(cell.cell_contents, dict)]
    assert before[0] is after[0]


NAMES = [
    "call", "result", "y", "cuda", "int", "threadIdx", "inner", "gy", "xp", "x_shape", "i", "math",
    "double", "register",
]  # fmt: skip


def ops_named_as_their_inputs(imported, names):
    others = {"y": "y_", "call": "call_"}
    lines = ["import gradlab as gl"]
    for name in names:
        other = others.get(name, "z")
        lines += [
            f"def {name}({name}, {other}):",
            f"    return {name} * {other} + {name}",
            f"def gradient(g, {name}, {other}):",
            f"    return g * ({other} + 1), g * {name}",
            f"op_{name} = gl.elementwise({name}, gradient=gradient)",
        ]
    module = imported("\n".join(lines))
    return {name: getattr(module, f"op_{name}") for name in names}


def check_ops(ops, device):
    for name, op in ops.items():
        a, b = (gl.tensor([value], device=device, requires_grad=True) for value in (2.0, 5.0))
        result = op(a, b)
        assert result.item() == 12.0, name
        result.sum().backward()
        assert (a.grad.item(), b.grad.item()) == (6.0, 2.0), name


def test_any_name_may_be_that_of_an_input(imported):
    check_ops(ops_named_as_their_inputs(imported, NAMES), "cpu")


def test_an_input_called_self():
    doubled = gl.elementwise(lambda self, x=2.0: self * x)
    assert doubled(self=gl.ones(1)).item() == 2.0


def test_any_name_may_be_that_of_an_input_on_cuda(imported, fake_cuda):
    if missing():
        pytest.skip(missing())
    check_ops(ops_named_as_their_inputs(imported, NAMES[:6]), "cuda")


def test_without_source_cuda_says_so(on_cuda):
    scope = {}
    exec("def typed_in(x): return x + 1", scope)
    op = gl.elementwise(scope["typed_in"])
    assert op(gl.ones(2)).tolist() == [2.0, 2.0]
    with pytest.raises(
        OptionError, match=r"^typed_in: expected a function whose source can be read"
    ):
        op(gl.ones(2, device="cuda"))


def test_without_numba(monkeypatch):
    from gradlab.ops import user

    monkeypatch.setattr(user, "missing_for_cpu", lambda: "numba")
    op = gl.elementwise(lambda x: x + 1)
    with pytest.raises(MissingDependencyError, match=r'numba.*pip install "numba>=[\d.]+"$'):
        op(gl.ones(2))


def test_numba_is_imported_when_an_op_is_called():
    code = (
        "import sys, gradlab as gl\n"
        "op = gl.elementwise(lambda x: x)\n"
        "assert not {'numba', 'cupy'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
