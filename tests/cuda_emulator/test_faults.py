"""The emulator finds what it promises to find: kernels with one planted fault each (planted.cu).

Each message names the kernel, the block, the thread and the line that planted.cu marks. The same
kernels without their fault run in every mode, with the threads in both orders.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import traceback
from pathlib import Path

import numpy as np
import pytest
from gradlab.kernels.cuda import source

from cuda_emulator import build

pytestmark = pytest.mark.skipif(bool(build.available()), reason=build.available() or "-")

PLANTED = Path(__file__).with_name("planted.cu")
LINES = PLANTED.read_text().splitlines()
INCLUDE = LINES.index('#include "common.cuh"')
TEXT = "\n".join([
    source.read("common.cuh"), f'#line {INCLUDE + 2} "planted.cu"', *LINES[INCLUDE + 1 :], "",
])  # fmt: skip
KERNELS = re.findall(r"^KERNEL\((\w+)\)", PLANTED.read_text(), re.MULTILINE)

# What the scheduler finds, in every mode.
EVERYWHERE = {
    "barrier_at_two_places": "__syncthreads is reached by some threads of the block, and the one",
    "barrier_without_some": r"waits for ever in __syncthreads, like 62 others; thread \(5, 0, 0\)",
    "warp_at_two_places": "__shfl_xor_sync of lanes 0-31 is called, while lane",
    "shuffle_from_outside": "a shuffle of lanes 0-15 reads from lane 20, which its mask leaves out",
    "shuffle_without_one": "waits for ever in __shfl_down_sync for lane 7, like 30 others",
    "vote_of_half_a_warp": "names lanes 16-31 in its mask, which the block of 48 threads does not",
    "vote_by_a_stranger": "is called by a lane that its mask leaves out",
    "named_barrier_of_two_sizes": "bar.sync",
    "loop_for_ever": "waits in a loop for what no thread of this block will do",
    "null_pointer": "no array holds|null pointer|no array of the arguments",
    "division_by_zero": "divided by zero",
    "copy_misaligned": "cp.async: an address is not a multiple of the size of the copy",
    "nobody_arrives": r"mbarrier.try_wait \(32 of 32 arrivals and 0 bytes have not come\)",
    "mbarrier_written_over": "mbarrier.arrive on an mbarrier whose bytes were written over",
    "left_while_storing": "leaves the kernel while bulk copies still read its shared memory",
    "too_much_static": "limited to 48 KiB, more makes it 49156 bytes",
}
# What takes a look at memory, or at C++.
CHECKED = {
    "shared_index_beyond": r"index 64 is beyond an array of type 'float \[64\]'",
    "shared_write_beyond": r"writes 4 bytes, beginning 0 bytes past the end of .* tile \(256 byt",
    "shared_read_before": r"reads 4 bytes, beginning 12 bytes before the shared array tile",
    "dynamic_write_beyond": r"beginning 0 bytes past the end of the dynamic shared memory \(256",
    "dynamic_read_beyond": "past the end of the dynamic shared memory",
    "shared_not_written": "reads byte 252 of the shared array tile, which nobody has written",
    "race_without_barrier": "of the shared array tile, which",
    "race_after_a_shuffle": r"a race: reads byte \d+ of .* tile, which thread .* wrote at planted",
    "race_with_next_round": "a race: .* with no barrier between",
    "race_of_writers": r"a race: writes byte 0 of the shared array tile, which thread .* wrote at",
    "race_with_an_atomic": "a race: (changes atomically|reads) byte 0 of the shared array sum",
    "race_past_named_barriers": "a race: writes byte .* of the shared array tile, which .* read",
    "global_read_beyond": r"reads 4 bytes, beginning 0 bytes past the end of array argument 0 \(2",
    "global_write_before": "writes 4 bytes, beginning 4 bytes before array argument 0",
    "vector_not_aligned": "'const struct float4' is used at an address that is not a multiple of",
    "integer_overflow": r"\d+ \+ 2147483647 does not fit 'int'",
    "shift_too_far": "1 of type 'int' is shifted by",
    "copy_not_waited_for": "reads byte .* while an asynchronous copy to it is under way",
    "copy_waited_for_by_one": "reads byte .* of the shared array tile, which nobody has written",
    "copy_into_a_full_buffer": "writes byte 0 of .* while an asynchronous copy to it is under way",
    "use_of_an_empty_buffer": "reads byte .* of the shared array tiles",
    "store_still_reads": "writes byte 0 .* while an asynchronous copy still reads it",
}
STACK = {"stack_used_up": "stack of 128 KiB is used up"}
# What AddressSanitizer finds; its report goes to stderr and ends the process.
SANITIZED = {
    "shared_write_beyond": "use-after-poison",
    "shared_read_before": "use-after-poison",
    "dynamic_write_beyond": "use-after-poison",
    "dynamic_read_beyond": "use-after-poison",
    "global_read_beyond": "heap-buffer-overflow",
    "global_write_before": "heap-buffer-overflow",
    "stack_used_up": "stack-overflow",
}


def launch(name: str, fixed: bool, mode: str, order: int = 0) -> np.ndarray:
    x = np.ones(64, np.float32)
    threads = 48 if name == "vote_of_half_a_warp" else 64
    kernel = build.kernel_of(TEXT, "planted.cu", name, mode=mode)
    extent = (x.ctypes.data, x.ctypes.data + x.nbytes)
    shared = 256 if name.startswith("dynamic") else 0
    kernel.launch((1,), (threads,), [build.address(x), int(fixed)], shared, order, [extent])
    return x


def marked(name: str) -> str:
    """The line of planted.cu that ends in a comment with the name."""
    found = [i for i, line in enumerate(LINES) if line.endswith(f"// {name}")]
    return f"planted.cu:{found[0] + 1}" if found else ""


def test_every_kernel_is_tried():
    assert set(KERNELS) == {*EVERYWHERE, *CHECKED, *STACK}


def expect(message: str, name: str, what: str) -> None:
    assert re.search(what, message), message
    where = r"block \(0, 0, 0\), thread \(\d+, 0, 0\)"
    assert re.match(rf"{name}, {where}", message), message
    assert marked(name) in message, message


@pytest.mark.parametrize("mode", ["plain", "checked"])
@pytest.mark.parametrize("name", [*EVERYWHERE, *STACK])
def test_found_in_every_mode(name, mode):
    for order in (0, 1):
        if name == "named_barrier_of_two_sizes" and order:
            continue  # the smaller one is complete before the other begins
        with pytest.raises(build.EmulatorError) as error:
            launch(name, fixed=False, mode=mode, order=order)
        expect(str(error.value), name, {**EVERYWHERE, **STACK}[name])


@pytest.mark.parametrize("name", CHECKED)
def test_found_by_the_checker(name):
    for order in (0, 1):
        with pytest.raises(build.EmulatorError) as error:
            launch(name, fixed=False, mode="checked", order=order)
        expect(str(error.value), name, CHECKED[name])


@pytest.mark.parametrize("mode", ["plain", "checked"])
def test_nothing_is_found_without_a_fault(mode):
    results = [[launch(name, True, mode, order) for name in KERNELS] for order in (0, 1)]
    for name, forwards, backwards in zip(KERNELS, *results, strict=True):
        np.testing.assert_array_equal(forwards, backwards, name)


def test_a_launch_after_a_fault_is_as_any_other():
    before = launch("race_with_next_round", True, "checked")
    for _ in range(3):
        with pytest.raises(build.EmulatorError):
            launch("nobody_arrives", False, "checked")
        np.testing.assert_array_equal(launch("race_with_next_round", True, "checked"), before)


# --------------------------------------------------------------------------- AddressSanitizer


def test_found_by_address_sanitizer():
    """Each in a process of its own, forked from one that AddressSanitizer was loaded into."""
    try:
        environment = build.sanitized_environment()
    except build.EmulatorError as error:
        pytest.skip(str(error))
    paths = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, __file__],
        env={**os.environ, **environment, "PYTHONPATH": paths},
        capture_output=True, text=True, check=False, timeout=110,
    )  # fmt: skip
    reports = dict(re.findall(r"^== (\w+)\n(.*?)^== end$", done.stdout, re.DOTALL | re.MULTILINE))
    assert reports.pop("fixed", None) == "clean\n", done.stdout + done.stderr
    assert set(reports) == set(SANITIZED), done.stdout + done.stderr
    for name, report in reports.items():
        assert re.search(f"AddressSanitizer: {SANITIZED[name]}", report), report
        where = r"block \(0, 0, 0\), thread \(\d+, 0, 0\)"
        assert re.search(rf"gradlab emulator: {name}, {where}", report), report
        assert marked(name) in report, report


def _in_a_fork(name: str, function) -> None:
    print(f"== {name}", flush=True)
    child = os.fork()
    if not child:
        os.dup2(1, 2)
        try:
            function()
            print("clean", flush=True)
        except BaseException:
            traceback.print_exc()
        os._exit(0)
    os.waitpid(child, 0)
    print("== end", flush=True)


def _all_fixed() -> None:
    for name in KERNELS:
        for order in (0, 1):
            launch(name, True, "sanitized", order)


if __name__ == "__main__":
    build.kernel_of(TEXT, "planted.cu", KERNELS[0], mode="sanitized")  # built once
    _in_a_fork("fixed", _all_fixed)
    for fault in SANITIZED:
        _in_a_fork(fault, lambda fault=fault: launch(fault, False, "sanitized"))
