"""Is what a GPU computes right: every op on its samples, gradients, compute-sanitizer."""

from __future__ import annotations

import importlib
import pkgutil
import shutil
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

import gradlab as gl
import gradlab.ops
from benchmarks.gpu.machine import is_fatal
from gradlab import testing
from gradlab.autograd import no_grad
from gradlab.dtypes import is_floating
from gradlab.ops.core import REGISTRY, Op

# The relative and absolute error that a result may have where CPU and GPU round on their own.
TOLERANCE = {
    "float32": 2e-5, "float64": 1e-9, "float16": 4e-3, "bfloat16": 3.2e-2, "complex64": 2e-5,
}  # fmt: skip
# Beside float32; of the integers one signed and one unsigned, since CuPy compiles a kernel for each
# dtype, which takes most of the time.
DTYPES = ("float64", "float16", "bfloat16", "int64", "uint8", "bool", "complex64")
# Gradients, hence floating: the CPU adds integers as well, CuPy's atomics do not.
FLOATING_ONLY = {"embedding_add"}


def sampled() -> list[Op]:
    """The ops that have samples."""
    for module in pkgutil.iter_modules(gradlab.ops.__path__):
        importlib.import_module(f"gradlab.ops.{module.name}")
    return [op for op in REGISTRY.values() if op.samples is not None]


def check(op: Op, few: bool = False) -> dict[str, Any]:
    """Check an op's samples on the GPU; what fails is listed, not raised."""
    assert op.samples is not None
    failures: list[str] = []
    count = 0
    for sample in op.samples():
        if few and (count >= 3 or sample.large):
            break
        count += 1
        call = testing._Call(op, sample)
        for name, work in (
            ("float32 and gradients", lambda: testing._check_device(call, gl.device("cuda"))),  # noqa: B023
            ("dtypes", lambda: _check_dtypes(call)),  # noqa: B023
            ("gradcheck", lambda: _gradcheck(call)),  # noqa: B023
        ):
            if few and name == "gradcheck":
                continue
            try:
                work()
            except Exception as error:
                if is_fatal(error):
                    raise
                said = (str(error).splitlines() or [type(error).__name__])[0]
                failures.append(f"{sample.name}, {name}: {said[:300]}")
    return {"samples": count, "failures": failures[:20], "failed_samples": len(failures)}


def _check_dtypes(call: Any) -> None:
    """The GPU's result in other dtypes against the CPU's in the same."""
    if not call.arrays:
        return
    for name in ("float16",) if call.sample.large else DTYPES:
        dtype = getattr(gl, name)
        floating_only = call.op.name in FLOATING_ONLY
        if dtype.kind not in call.op.kinds or (floating_only and not is_floating(dtype)):
            continue
        arrays = [testing._in_range(x, dtype) for x in call.arrays]
        with no_grad():
            try:
                expected = call.run([gl.tensor(x, dtype=dtype) for x in arrays])
            except gl.errors.GradlabError:
                continue  # a function may be narrower than its op
            found = call.run([gl.tensor(x, dtype=dtype, device="cuda") for x in arrays],
                             gl.device("cuda"))  # fmt: skip
        for y, reference in zip(found, expected, strict=True):
            _compare(name, y, reference)


def _compare(title: str, y: Any, reference: Any) -> None:
    """Raise an AssertionError unless a GPU's result is the CPU's, but for rounding."""
    if y.dtype != reference.dtype:
        raise AssertionError(f"{title}: expected {reference.dtype}, got {y.dtype}")
    limit = TOLERANCE.get(y.dtype.name, 0.0)
    scale = 0.0
    if limit:
        values = reference.detach().astype("complex128" if y.is_complex() else "float64").numpy()
        finite = abs(values[np.isfinite(values)])
        scale = max(1e-3, float(finite.max(initial=0.0)))
    testing.assert_close(y, reference, limit, limit * scale, equal_nan=True, check_device=False)


def check_program(name: str, terms: int) -> dict[str, Any]:
    """Run a program (`benchmarks.gpu.programs`) on the CPU and on the GPU; what differs is
    listed. ``terms`` is how long its long sums are."""
    from benchmarks.gpu.programs import PROGRAMS

    results = []
    for device in ("cpu", "cuda"):
        gl.manual_seed(7)
        results.append(PROGRAMS[name](gl.device(device), terms))
    expected, found = results
    failures = [] if len(found) == len(expected) else ["it gave another number of results"]
    for i, (y, reference) in enumerate(zip(found, expected, strict=False)):
        try:
            _compare(f"result {i}", y, reference)
        except AssertionError as error:
            failures.append(f"result {i}: {error}"[:300])
    return {"checks": len(found), "failures": failures[:20], "failed_checks": len(failures)}


def _gradcheck(call: Any) -> None:
    """First gradients on the GPU against numeric ones, in float64."""
    wanted = testing._differentiable(call) if call.op.gradients else []
    if not wanted or not call.sample.smooth or call.sample.large:
        return
    device = gl.device("cuda")

    def function(*chosen: Any) -> Any:
        given: list[Any] = call.tensors(device)
        for i, x in zip(wanted, chosen, strict=True):
            given[i] = x
        return call.run(given, device)

    testing.gradcheck(function, [gl.tensor(call.arrays[i], dtype="float64", device="cuda")
                                 for i in wanted], rtol=1e-5)  # fmt: skip


def sanitize(tool: str, dry: bool = False) -> dict[str, Any]:
    """Run `subset` under compute-sanitizer, where it is installed and works."""
    path = shutil.which("compute-sanitizer")
    if path is None or dry:
        return {"left_out_because": "compute-sanitizer is not on the PATH"}
    command = [
        path, "--tool", tool, "--error-exitcode", "86", "--print-limit", "20",
        sys.executable, "-m", "benchmarks.gpu.checks",
    ]  # fmt: skip
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=SANITIZER_SECONDS
        )
    except subprocess.TimeoutExpired:
        return {"clean": False, "said": [f"it did not end within {SANITIZER_SECONDS} s"]}
    said = (done.stdout + done.stderr).splitlines()
    if any("Device not supported" in line for line in said):
        return {"left_out_because": "compute-sanitizer does not support the device here"}
    lines = [line for line in said if line.startswith(("=========", "wrong: "))]
    return {
        "exit_code": done.returncode,
        "clean": done.returncode == 0,
        "said": (lines or said[-5:])[:60],
    }


SANITIZER_SECONDS = 400
SIZES = ((1, 1, 1), (33, 65, 17), (128, 64, 96), (136, 264, 32))


def subset(
    dtypes: Sequence[str] = ("float32", "bfloat16"),
    sizes: Sequence[tuple[int, ...]] = SIZES,
    dry: bool = False,
) -> list[str]:
    """A few calls of each family and of each kind of module, small ones; returns what is wrong.

    Without CuPy's memory pool, which would hand out memory in which an access out of bounds hits
    another array.
    """
    from benchmarks.gpu import variants
    from benchmarks.gpu.machine import Machine
    from benchmarks.gpu.verify import poisoned

    machine = Machine(dry)
    with poisoned(machine, pooled=False):
        gl.manual_seed(0)
        for dtype in dtypes:
            for size in sizes:
                _calls(dtype, *size)
        gl.synchronize("cuda")
    wrong = []
    for variant in variants.of_each_kind(machine):
        found = variants.force(machine, variant, pooled=False, small=True)
        wrong += [f"{variants.title(variant)}: {each}" for each in found["failures"]]
    return wrong


def _calls(dtype: str, m: int, n: int, k: int) -> None:
    functional = gl.nn.functional
    a = gl.randn(m, k, device="cuda").astype(dtype)
    b = gl.randn(k, n, device="cuda").astype(dtype)
    (a @ b, a.T.contiguous().T @ b, (a @ b).softmax(-1), (a @ b).sum(0), (a @ b).amax(-1))
    x = (a @ b).detach().requires_grad_()
    labels = gl.randint(0, n, (m,), device="cuda")
    functional.cross_entropy(x, labels).backward()
    functional.layer_norm(x, (n,)).sum().backward()
    functional.dropout(x, 0.5).var(-1).sum().backward()
    x.cumsum(-1).argmax(0)
    with no_grad():
        for kind in (gl.optim.SGD, gl.optim.AdamW):
            kind([x], lr=0.1).step()


def main() -> int:
    wrong = subset()
    for line in wrong:
        print(f"wrong: {line}")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
