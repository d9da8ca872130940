"""What the emulator does, by tiny kernels: warps, barriers, atomics, copies, launches, builds."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
import pytest
from gradlab.kernels import cache
from gradlab.kernels.cuda import source

from cuda_emulator import build

pytestmark = pytest.mark.skipif(bool(build.available()), reason=build.available() or "-")

KERNELS = (
    source.read("common.cuh")
    + r"""
#define ME int(threadIdx.x)
#define KERNEL(name) extern "C" __global__ void name(int32* y, int64 n)

KERNEL(shfl) { y[ME] = __shfl_sync(FULL_MASK, ME, int(n) + ME, 8); }
KERNEL(shfl_xor) { y[ME] = __shfl_xor_sync(FULL_MASK, ME, int(n), 16); }
KERNEL(shfl_up) { y[ME] = __shfl_up_sync(FULL_MASK, ME, unsigned(n), 16); }
KERNEL(shfl_down) { y[ME] = __shfl_down_sync(FULL_MASK, ME, unsigned(n), 16); }
KERNEL(halves) {  // of a warp, each on its own
  uint32 mask = ME % 32 < 16 ? 0xffff : 0xffff0000;
  for (int i = 0; i < (ME % 32 < 16 ? 3 : 5); i++) y[ME] += __shfl_xor_sync(mask, 1, 8);
}
KERNEL(votes) {
  y[ME] = int(__ballot_sync(FULL_MASK, ME % 3 == 0));
  y[ME] += __any_sync(FULL_MASK, ME == 5) + 2 * __all_sync(FULL_MASK, ME != 5);
}
KERNEL(match) {
  int all;
  y[ME] = int(__match_any_sync(FULL_MASK, ME % 4));
  __match_all_sync(FULL_MASK, ME / 32, &all);
  y[ME] += all;
}
KERNEL(reduce) {
  y[ME] = __reduce_add_sync(FULL_MASK, ME) + 1000 * __reduce_max_sync(FULL_MASK, ME % 7) +
          10000 * __reduce_min_sync(FULL_MASK, ME + 3) +
          int(__reduce_xor_sync(FULL_MASK, 1u << ME % 32));
}
KERNEL(counted) {
  int count = __syncthreads_count(ME < 10), any = __syncthreads_or(ME == 3);
  y[ME] = count + 100 * any + 200 * __syncthreads_and(ME < 64);
}
KERNEL(alone) { y[ME] = int(__activemask()) == int(1u << ME % 32); }
KERNEL(atomics) {
  SHARED(int32, sum, [2]);
  SHARED(uint32, bits, [2]);
  if (ME == 0) sum[0] = 0, sum[1] = -5, bits[0] = 0, bits[1] = 0;
  __syncthreads();
  atomicAdd(&sum[0], ME);
  atomicMax(&sum[1], ME);
  atomicOr(&bits[0], 1u << ME % 32);
  atomicInc(&bits[1], 9);
  __syncthreads();
  if (ME == 0) y[0] = sum[0], y[1] = sum[1], y[2] = int(bits[0]), y[3] = int(bits[1]);
  int32 old;
  do old = y[5]; while (atomicCAS(&y[5], old, old + 1) != old);
}
KERNEL(last_block) {  // the last one to come finishes, whichever it is
  SHARED(int32, last, [1]);
  if (ME == 0) last[0] = atomicAdd(&y[1], 1) == int(gridDim.x * gridDim.y * gridDim.z) - 1;
  __syncthreads();
  if (last[0] && ME == 0) y[0] = 7;
}
KERNEL(warpgroup) {
  struct Mine { int in, out; } mine{ME, 0};
  emu::collective_group("sum", &mine, [](void** all) {
    int sum = 0;
    for (int i = 0; i < 128; i++) sum += static_cast<Mine*>(all[i])->in;
    for (int i = 0; i < 128; i++) static_cast<Mine*>(all[i])->out = sum;
  }, EMU_SITE);
  y[ME] = mine.out;
}
KERNEL(places) {
  int linear = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  int place = threadIdx.x + 10 * threadIdx.y + 100 * threadIdx.z + 1000 * blockIdx.z;
  y[linear + 24 * blockIdx.z] = place;
}
KERNEL(untouched) {
  SHARED(float, x, [4]);
  DYNAMIC_SHARED(bytes);
  y[ME] = x[ME % 4] != x[ME % 4] && bytes[n] == 0xff;
}
KERNEL(early) {  // what a copy brings is not there before it is waited for
  SHARED(int32, to, [2]);
  to[ME] = 1;
  emu::cp_async(&to[ME], &y[2 + ME], 4, ME ? 4 : 2, EMU_SITE);
  emu::cp_async_commit();
  int before = to[ME];
  emu::cp_async_wait(0);
  y[ME] = before * 1000000 + to[ME];
}
KERNEL(copies_and_arrives) {
  SHARED(int32, to, [32]);
  SHARED(uint64, bar, [1]);
  if (ME == 0) emu::mbarrier_init(bar, 32, EMU_SITE);
  __syncthreads();
  emu::cp_async(&to[ME], &y[ME], 4, 4, EMU_SITE);
  emu::cp_async_mbarrier_arrive(bar, true, EMU_SITE);
  while (!emu::mbarrier_test(bar, 0, EMU_SITE)) {}
  y[ME] = to[31 - ME];
}
extern "C" __global__ void __launch_bounds__(32 * 2, 4) bounded(int32* y, int64 n) {}
struct Six { int32 values[6]; };
extern "C" __global__ void four_kinds(const float* x, int64 n, double scale, Six six) {}
"""
)
LANES = np.arange(32)


@pytest.fixture(params=["plain", "checked"])
def run(request):
    """Runs a kernel of the above in both orders of its threads, which must not differ."""

    def run(name: str, n: int = 0, block: Any = 32, grid: Any = 1, shared: int = 0, y: Any = None):
        kernel = build.kernel_of(KERNELS, "tiny.cu", name, mode=request.param)
        results = []
        for order in (0, 1):
            out = np.zeros(256, np.int32) if y is None else np.array(y, np.int32)
            dims = [(dim,) if isinstance(dim, int) else dim for dim in (grid, block)]
            extent = (out.ctypes.data, out.ctypes.data + out.nbytes)
            kernel.launch(*dims, [build.address(out), n], shared, order, [extent])
            results.append(out)
        np.testing.assert_array_equal(*results)
        return results[0]

    return run


def test_shuffles_within_segments(run):
    assert run("shfl", 3)[:32].tolist() == [i // 8 * 8 + (i + 3) % 8 for i in LANES]
    assert run("shfl_xor", 5)[:32].tolist() == [i ^ 5 for i in LANES]
    # From beyond the segment: a lane keeps what it has.
    assert run("shfl_xor", 16)[:32].tolist() == [*LANES[:16], *LANES[:16]]
    assert run("shfl_up", 3)[:32].tolist() == [i - 3 if i % 16 >= 3 else i for i in LANES]
    assert run("shfl_down", 3)[:32].tolist() == [i + 3 if i % 16 < 13 else i for i in LANES]


def test_halves_of_a_warp_go_their_own_way(run):
    assert run("halves")[:32].tolist() == [3] * 16 + [5] * 16


def test_votes_and_matches(run):
    ballot = np.array(sum(1 << i for i in range(0, 32, 3)), np.uint32).astype(np.int32)
    assert run("votes")[:32].tolist() == [ballot + 1] * 32
    alike = [np.uint32(0x11111111 << i % 4) for i in LANES]
    assert run("match")[:32].astype(np.uint32).tolist() == [each + 1 for each in alike]


def test_reductions_of_a_warp(run):
    assert run("reduce")[:32].tolist() == [sum(range(32)) + 6000 + 30000 - 1] * 32


def test_barriers_that_count(run):
    assert run("counted", block=64)[:64].tolist() == [310] * 64
    assert run("counted", block=96)[:96].tolist() == [110] * 96


def test_activemask_promises_nothing(run):
    assert run("alone")[:32].all()


def test_atomics(run):
    found = run("atomics", block=96)
    assert found[:6].tolist() == [96 * 95 // 2, 95, -1, 96 % 10, 0, 96]


def test_blocks_share_global_memory(run):
    assert run("last_block", block=64, grid=(3, 2, 2))[:2].tolist() == [7, 12]


def test_warpgroups(run):
    assert run("warpgroup", block=256)[0] == sum(range(128))
    assert run("warpgroup", block=256)[255] == sum(range(128, 256))
    with pytest.raises(build.EmulatorError, match="takes four whole warps, which the block of 160"):
        run("warpgroup", block=160)


def test_places(run):
    assert run("places", block=(3, 2, 4), grid=(1, 1, 3))[71] == 2 + 10 + 300 + 2000


@pytest.mark.parametrize("run", ["plain"], indirect=True)  # the checker would object
def test_shared_memory_begins_as_nan(run):
    assert run("untouched", 15, block=4, shared=16)[:4].all()


@pytest.mark.parametrize("run", ["plain"], indirect=True)
def test_copies_arrive_late(run):
    assert run("early", block=2, y=[0, 0, -1, -1])[:2].tolist() == [1000000 + 0xFFFF, 999999]


def test_an_mbarrier_tracks_copies(run):
    assert run("copies_and_arrives", y=LANES)[:32].tolist() == LANES[::-1].tolist()


# ---------------------------------------------------------------------------------- launches


@pytest.mark.parametrize(
    ("grid", "block", "shared", "message"),
    [
        ((1,), (1025,), 0, r"a block of \(1025, 1, 1\) threads: it has 1 to 1024"),
        ((1,), (32, 64), 0, r"a block of \(32, 64, 1\) threads"),
        ((1,), (1, 1, 65), 0, "at most 64 along z"),
        ((1 << 31,), (1,), 0, r"a grid of \(2147483648, 1, 1\) blocks"),
        ((1, 65536), (1,), 0, "to 65535 along y and z"),
        ((1,), (32,), (227 << 10) + 1, "232449 bytes of dynamic shared memory: a block has up to"),
        ((0,), (32,), 0, r"a grid of \(0,\)"),
        ((1,), (0,), 0, r"a block of \(0,\)"),
        ((1 << 32,), (32,), 0, r"a grid of \(4294967296,\)"),
    ],
)
def test_geometry_that_a_gpu_refuses(grid, block, shared, message):
    kernel = build.kernel_of(KERNELS, "tiny.cu", "alone")
    with pytest.raises(build.EmulatorError, match=f"alone is launched with .*{message}"):
        kernel.launch(grid, block, [build.address(np.zeros(1)), 0], shared)


def test_launch_bounds():
    kernel = build.kernel_of(KERNELS, "tiny.cu", "bounded")
    arguments = [build.address(np.zeros(1)), 0]
    kernel.launch((1,), (64,), arguments)
    with pytest.raises(
        build.EmulatorError, match=r"of 65 threads, beyond its __launch_bounds__\(64"
    ):
        kernel.launch((1,), (65,), arguments)


def test_arguments():
    kernel = build.kernel_of(KERNELS, "tiny.cu", "four_kinds")
    pointer, six = build.address(np.zeros(1)), np.zeros((), [("values", np.int32, 6)])
    kernel.launch((1,), (1,), [pointer, 1, 2.0, six])
    with pytest.raises(build.EmulatorError, match="four_kinds has 4 parameters, got 3 arguments"):
        kernel.launch((1,), (1,), [pointer, 1, 2.0])
    for place, wrong, expected in [
        (0, 5, "a pointer of 8 bytes, got 5"),
        (1, 1.0, "an integer of 8 bytes, got 1.0"),
        (1, np.int64(1), "an integer of 8 bytes"),
        (2, 1, "a double of 8 bytes, got 1"),
        (3, np.zeros((), [("values", np.int32, 5)]), "a struct of 24 bytes"),
    ]:
        given = [pointer, 1, 2.0, six]
        given[place] = wrong
        with pytest.raises(build.EmulatorError, match=f"parameter {place} is {expected}"):
            kernel.launch((1,), (1,), given)


# ------------------------------------------------------------------------------------ builds


def test_the_portable_switch_of_stacks(monkeypatch):
    """Processors without assembly of their own take swapcontext."""
    monkeypatch.setitem(build.FLAGS, "portable", build.FLAGS["plain"])
    monkeypatch.setitem(build.RUNTIME_FLAGS, "portable", ["-DEMU_SWAPCONTEXT"])
    y = np.zeros(128, np.int32)
    for order in (0, 1):
        kernel = build.kernel_of(KERNELS, "tiny.cu", "counted", mode="portable")
        kernel.launch((3,), (64,), [build.address(y), 0], 0, order)
        assert y[:64].tolist() == [310] * 64
    kernel = build.kernel_of(KERNELS, "tiny.cu", "warpgroup", mode="portable")
    with pytest.raises(build.EmulatorError, match="takes four whole warps"):
        kernel.launch((1,), (96,), [build.address(y), 0])
    kernel.launch((1,), (128,), [build.address(y), 0])
    assert (y == sum(range(128))).all()


def test_a_source_that_does_not_compile():
    with pytest.raises(build.EmulatorError, match=r"wrong\.cu:2:\d+: error: .nothing. was not"):
        build.kernel_of(
            'extern "C" __global__ void wrong(float* x) {\n  x[0] = nothing;\n}',
            "wrong.cu",
            "wrong",
        )


def test_old_builds_are_deleted(tmp_path):
    for i in range(5):
        (tmp_path / f"{i}.so").write_bytes(bytes(100))
        os.utime(tmp_path / f"{i}.so", (time.time() - 1000 * i,) * 2)
    build.prune(tmp_path, limit=250, age=1500)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.so", "1.so"]
    build.prune(tmp_path, limit=0, age=1500)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.so", "1.so"]


@pytest.mark.parametrize("damage", [0, 1000, None])
def test_a_damaged_build_is_built_again(tmp_path, monkeypatch, damage):
    monkeypatch.setattr(build, "CACHE", tmp_path)
    text = f'extern "C" __global__ void k(int* y) {{ y[0] = 7; }}  // {damage}'
    build._runtime.cache_clear()
    try:
        made = build.build.__wrapped__(text, "k.cu", (), "plain")
        whole = made.read_bytes()
        made.write_bytes(whole[:damage] if damage is not None else whole[:-1] + b"?")
        assert build.build.__wrapped__(text, "k.cu", (), "plain") == made
        assert made.read_bytes()[:4] == b"\x7fELF"
        assert cache.read(made) is not None
        assert not list(tmp_path.glob("*.part"))
    finally:
        build._runtime.cache_clear()
