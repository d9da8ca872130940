"""Every CUDA kernel is compiled for the GPUs it is tuned for; no GPU is needed for that."""

from __future__ import annotations

import logging

import pytest
from gradlab.kernels import cache
from gradlab.kernels.cuda import bundle, compiler, nvrtc, resources, source as sources
from gradlab.kernels.cuda.driver import Variant

pytestmark = [
    pytest.mark.skipif(bool(nvrtc.available()), reason=nvrtc.available()),
    pytest.mark.timeout(600),  # some take 10 s on a quiet machine
]


@pytest.mark.parametrize(
    ("variant", "arch"),
    resources.tasks(),
    ids=lambda each: (
        compiler.describe(each.source, each.defines) if isinstance(each, Variant) else each
    ),
)
def test_kernels_compile_without_spills_and_warnings(variant, arch, record_property):
    report = resources.report(variant, arch)
    assert not report.problems, "\n".join(report.problems)
    assert report.kernels, f"{report.module} has no kernel"
    record_property("kernels", [tuple(each) for each in report.kernels])


def test_every_source_has_a_family_that_lists_its_variants():
    listed = {variant.source for variant in resources.variants()}
    assert listed == set(sources.names())


# ------------------------------------------------------------------------- planted faults


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Sources and a cache of the test's own."""
    monkeypatch.setattr(sources, "FOLDER", tmp_path)
    monkeypatch.setenv("CUPY_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("GRADLAB_QUIET", raising=False)
    cache._warn_once.cache_clear()
    sources.read.cache_clear()
    yield tmp_path
    sources.read.cache_clear()


SPILLING = """
extern "C" __global__ void __launch_bounds__(1024, 2) greedy(float* x) {
  float kept[64];
#pragma unroll
  for (int i = 0; i < 64; ++i) kept[i] = x[i * 1024 + threadIdx.x];
  __syncthreads();
#pragma unroll
  for (int i = 0; i < 64; ++i) x[i * 1024 + threadIdx.x] = kept[63 - i] * kept[(7 * i) % 64];
}
"""


def test_a_spill_is_a_problem(folder):
    (folder / "greedy.cu").write_text(SPILLING)
    report = resources.report(Variant("greedy.cu"), "sm_80")
    (kernel,) = report.kernels
    assert (kernel.kernel, kernel.registers) == ("greedy", 32)
    assert kernel.spill_stores > 0
    (problem,) = report.problems
    assert problem.startswith("greedy: ")
    assert f"{kernel.spill_stores} bytes spill stores" in problem


def test_a_warning_is_a_problem(folder):
    text = 'extern "C" __global__ void k(int* x) { asm("setmaxnreg.dec.sync.aligned.u32 24;"); }'
    (folder / "warned.cu").write_text(text)
    report = resources.report(Variant("warned.cu"), "sm_90a")
    (problem,) = report.problems
    assert "'setmaxnreg' ignored" in problem


def test_what_does_not_compile_is_a_problem(folder, capsys, monkeypatch):
    (folder / "wrong.cu").write_text('extern "C" __global__ void k(int* x) {\n  x[0] = y;\n}')
    monkeypatch.setattr(resources, "variants", lambda: [Variant("wrong.cu", (("DTYPE", "int32"),))])
    assert resources.main(["--arch", "sm_89"]) == 1
    said = capsys.readouterr().out
    assert 'wrong.cu (int32) for sm_89: wrong.cu(2): error: identifier "y" is undefined' in said
    assert said.endswith("1 problems\n")


def test_what_nothing_was_asked_of_is_no_success(capsys):
    assert resources.main(["-k", "nothing"]) == 2
    assert capsys.readouterr().err == "no module has 'nothing' in its name\n"
    with pytest.raises(SystemExit):
        resources.main(["--arch", "hopper"])
    assert "expected one such as sm_80 or sm_90a, got 'hopper'" in capsys.readouterr().err


def test_shared_memory_and_stack_are_read(folder):
    (folder / "shared.cu").write_text(
        '#include "more.cuh"\nextern "C" __global__ void k(int* x) {\n'
        "  __shared__ int tile[SIZE];\n  tile[threadIdx.x] = x[threadIdx.x];\n  __syncthreads();\n"
        "  x[threadIdx.x] = tile[31 - threadIdx.x];\n}"
    )
    (folder / "more.cuh").write_text("#define SIZE (32 * FACTOR)\n")
    variant = Variant("shared.cu", (("FACTOR", 4),))
    (first,) = resources.report(variant, "sm_80").kernels
    assert (first.shared, first.stack, first.spill_loads) == (512, 0, 0)
    assert first.module == "shared.cu (FACTOR=4)"
    assert resources.report(variant, "sm_80").kernels == [first]  # from the cache
    assert "kernel  module                arch   registers" in resources.table(
        [resources.report(variant, "sm_80")]
    )


def test_variants_for_newer_gpus_are_compiled_for_those_only(monkeypatch):
    monkeypatch.setattr(
        resources, "variants", lambda: [Variant("a.cu"), Variant("b.cu", (), (8, 9)),
                                        Variant("c.cu", (), (9, 0))]
    )  # fmt: skip
    assert [(variant.source[0], arch) for variant, arch in resources.tasks()] == [
        ("a", "sm_80"), ("a", "sm_89"), ("a", "sm_90a"), ("b", "sm_89"), ("b", "sm_90a"),
        ("c", "sm_90a"),
    ]  # fmt: skip


def test_twins_are_compiled_for_the_last_architecture_alone(monkeypatch):
    listed = [Variant("a.cu", (("DTYPE", name), ("N", 2))) for name in ("float16", "bfloat16")]
    listed.append(Variant("b.cu", (("DTYPE", "float16"),)))  # whose twin is not listed
    monkeypatch.setattr(resources, "variants", lambda: listed)
    found = [(variant.source[0], variant.defines[0][1], arch) for variant, arch in
             resources.tasks()]  # fmt: skip
    assert found == [
        ("a", "float16", "sm_90a"),
        *[("a", "bfloat16", arch) for arch in resources.ARCHITECTURES],
        *[("b", "float16", arch) for arch in resources.ARCHITECTURES],
    ]


# ------------------------------------------------------------------ as the driver compiles


def test_architectures():
    assert compiler.architecture((7, 5)) == "sm_75"
    assert compiler.architecture((8, 0)) == "sm_80"
    assert compiler.architecture((8, 9)) == "sm_89"
    assert compiler.architecture((9, 0)) == "sm_90a"
    assert compiler.architecture((8, 99)) == "sm_89"
    with pytest.raises(RuntimeError, match=r"compute capability 7\.0, and NVRTC \d+\.\d+ compiles"):
        compiler.architecture((7, 0))


GOOD = 'extern "C" __global__ void k(int* x) { x[0] = VALUE; }'


def test_a_module_is_compiled_once_and_says_so(folder, caplog):
    (folder / "good.cu").write_text(GOOD)
    with caplog.at_level(logging.INFO, "gradlab.cuda"):
        made = compiler.cubin("good.cu", (("VALUE", 1),), "sm_80")
        assert compiler.cubin("good.cu", (("VALUE", 1),), "sm_80") == made
    assert made[:4] == b"\x7fELF"
    (record,) = caplog.records
    assert record.getMessage().startswith("compiled good.cu (VALUE=1) for sm_80 in 0.")
    caplog.clear()
    (folder / "good.cu").write_text(GOOD + "\n")
    sources.read.cache_clear()
    with caplog.at_level(logging.INFO, "gradlab.cuda"):
        compiler.cubin("good.cu", (("VALUE", 1),), "sm_80")
        compiler.cubin("good.cu", (("VALUE", 1),), "sm_90a")
    assert len(caplog.records) == 2  # another text, another architecture


@pytest.fixture
def no_handlers(monkeypatch):
    """A program that has not set up logging; pytest itself has."""
    monkeypatch.setattr(compiler.LOG, "hasHandlers", lambda: False)


def test_without_logging_the_line_goes_to_standard_error(folder, capsys, no_handlers):
    (folder / "good.cu").write_text(GOOD)
    compiler.cubin("good.cu", (("VALUE", 2),), "sm_80")
    said = capsys.readouterr().err
    assert said.startswith("gradlab: compiling good.cu (VALUE=2) for sm_80 ... 0.")
    assert said.endswith(" s (once: the result is kept on disk)\n")
    assert said.count("\n") == 1
    compiler.cubin("good.cu", (("VALUE", 2),), "sm_80")
    assert capsys.readouterr().err == ""


def test_the_line_can_be_turned_off(folder, capsys, no_handlers, monkeypatch):
    (folder / "good.cu").write_text(GOOD)
    monkeypatch.setenv("GRADLAB_QUIET", "1")
    compiler.cubin("good.cu", (("VALUE", 3),), "sm_80")
    monkeypatch.setenv("GRADLAB_QUIET", "0")
    monkeypatch.setattr(logging.getLogger("gradlab"), "level", logging.WARNING)
    compiler.cubin("good.cu", (("VALUE", 4),), "sm_80")
    assert capsys.readouterr().err == ""


def test_a_folder_that_cannot_be_written_is_no_obstacle(folder, monkeypatch):
    (folder / "good.cu").write_text(GOOD)
    (folder / "file").write_text("")
    monkeypatch.setenv("CUPY_CACHE_DIR", str(folder / "file"))
    monkeypatch.setattr(cache, "private", lambda: folder / "private")
    with pytest.warns(UserWarning, match=r"^compiled CUDA kernels: they are kept in .*private in"):
        assert compiler.cubin("good.cu", (("VALUE", 5),), "sm_80")
    assert [file.suffix for file in (folder / "private").iterdir()] == [".cubin"]


def compiled(folder, value=6):
    """A module that was compiled, its file in the cache, and how often it has been since."""
    (folder / "good.cu").write_text(GOOD)
    made = compiler.cubin("good.cu", (("VALUE", value),), "sm_80")
    (file,) = (folder / "cache" / "gradlab").glob("*.cubin")
    return made, file


@pytest.mark.parametrize("damage", [b"", b"\x7fELF", None])
def test_a_damaged_module_is_compiled_again(folder, caplog, damage):
    made, file = compiled(folder)
    file.write_bytes(file.read_bytes()[:-100] if damage is None else damage)
    with caplog.at_level(logging.INFO, "gradlab.cuda"):
        assert compiler.cubin("good.cu", (("VALUE", 6),), "sm_80") == made
        assert compiler.cubin("good.cu", (("VALUE", 6),), "sm_80") == made
    assert len(caplog.records) == 1
    assert cache.read(file) == made


def test_a_module_that_the_driver_refuses_is_compiled_once_more(folder, caplog):
    made, file = compiled(folder)
    file.write_bytes(cache.sealed(file.name, b"code of another release"))

    def load(code):
        if code != made:
            raise RuntimeError("CUDA_ERROR_INVALID_IMAGE")
        return "module"

    with caplog.at_level(logging.INFO, "gradlab.cuda"):
        assert compiler.loaded("good.cu", (("VALUE", 6),), "sm_80", load) == "module"
    assert len(caplog.records) == 1
    assert cache.read(file) == made

    def refuse(code):
        raise RuntimeError("CUDA_ERROR_OUT_OF_MEMORY")

    with pytest.raises(RuntimeError, match="OUT_OF_MEMORY"):
        compiler.loaded("good.cu", (("VALUE", 6),), "sm_80", refuse)


def test_an_empty_variable_means_the_home_folder(folder, monkeypatch):
    monkeypatch.setenv("CUPY_CACHE_DIR", "")
    monkeypatch.setenv("HOME", str(folder / "home"))
    assert compiler.cache_folder() == folder / "home/.cupy/kernel_cache/gradlab"


def test_a_damaged_log_is_made_again(folder):
    (folder / "good.cu").write_text(GOOD)
    variant = Variant("good.cu", (("VALUE", 7),))
    first = resources.report(variant, "sm_80").kernels
    (file,) = (folder / "cache" / "gradlab").glob("*.log")
    file.write_bytes(b"")
    assert resources.report(variant, "sm_80").kernels == first


def test_the_error_names_kernel_architecture_and_the_first_error(folder):
    (folder / "wrong.cu").write_text('extern "C" __global__ void k(int* x) {\n  x[0] = y + z;\n}')
    with pytest.raises(compiler.KernelCompileError) as caught:
        compiler.cubin("wrong.cu", (("DTYPE", "float32"),), "sm_90a")
    assert str(caught.value) == (
        "wrong.cu (float32) does not compile for sm_90a: "
        'wrong.cu(2): error: identifier "y" is undefined'
    )
    assert '"z"' in caught.value.log


def test_small_numbers_are_not_flushed_to_zero():
    assert "-ftz=true" not in sources.options(())


# ----------------------------------------------------------------- which compiler, of several


class Installed:
    """Libraries on disk by their versions, and how the system loads them."""

    def __init__(self, monkeypatch, folder, driver=None):
        self.folder, self.loaded = folder, []
        self.versions = {}
        monkeypatch.setattr(nvrtc.ctypes, "CDLL", self.load)
        monkeypatch.setattr(nvrtc, "_of_pathfinder", lambda: "")
        monkeypatch.setattr(nvrtc, "_of_wheels", lambda: list(self.versions))
        monkeypatch.setattr(nvrtc, "_version_of", lambda path: self.versions[path])
        monkeypatch.setattr(nvrtc, "driver_version", lambda: driver)

    def add(self, major, minor):
        file = self.folder / f"cu{major}{minor}" / f"libnvrtc.so.{major}"
        file.parent.mkdir()
        for name in ("", f"-builtins.so.{major}.{minor}", f"-builtins.alt.so.{major}.{minor}"):
            (file if not name else file.parent / f"libnvrtc{name}").touch()
        self.versions[str(file)] = (major, minor)
        return str(file)

    def load(self, path):
        if not str(path).startswith(str(self.folder)):
            raise OSError(path)
        self.loaded.append(path)
        return path


def test_the_compilers_second_library_is_loaded_from_beside_it(tmp_path, monkeypatch):
    # The system's loader would not find it there, and NVRTC 13.0 asks no one else.
    installed = Installed(monkeypatch, tmp_path)
    path = installed.add(13, 0)
    assert nvrtc.library.__wrapped__() == path
    assert installed.loaded == [path, f"{tmp_path}/cu130/libnvrtc-builtins.so.13.0"]


@pytest.mark.parametrize(
    ("driver", "expected"),
    [(None, (13, 5)), ((13, 0), (13, 5)), ((14, 1), (13, 5)), ((12, 4), (12, 9))],
)
def test_the_newest_compiler_that_the_driver_can_load_the_code_of(
    tmp_path, monkeypatch, driver, expected
):
    installed = Installed(monkeypatch, tmp_path, driver)
    for version in ((12, 9), (13, 5), (13, 0), (12, 2)):
        installed.add(*version)
    assert installed.versions[nvrtc.library.__wrapped__()] == expected


def test_a_compiler_newer_than_the_driver_is_refused(tmp_path, monkeypatch):
    installed = Installed(monkeypatch, tmp_path, (12, 4))
    installed.add(13, 0)
    with pytest.raises(ImportError) as caught:
        nvrtc.library.__wrapped__()
    assert str(caught.value) == (
        "CUDA's compiler NVRTC is installed in version 13.0, and the NVIDIA driver supports CUDA "
        '12.4 at most, so it cannot load what NVRTC makes; run: pip install "'
        'nvidia-cuda-nvrtc-cu12>=12.0", or update the driver'
    )
    installed.versions.clear()
    with pytest.raises(ImportError, match="NVRTC is not installed"):
        nvrtc.library.__wrapped__()


def test_a_compiler_for_another_machine_is_used_whatever_the_driver(tmp_path, monkeypatch):
    installed = Installed(monkeypatch, tmp_path, (12, 4))
    installed.add(12, 4)
    other = installed.add(13, 0)
    monkeypatch.setattr(nvrtc, "_chosen", [])
    for each in ("library", "version", "supported"):  # `use` forgets what was asked before
        monkeypatch.setattr(nvrtc, each, nvrtc.cache(getattr(nvrtc, each).__wrapped__))
    for path in (tmp_path / "cu130", tmp_path / "cu130" / "libnvrtc.so.13"):
        nvrtc.use(path)
        assert nvrtc.library() == other
    for path in (tmp_path / "nowhere", tmp_path):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(FileNotFoundError, match="no NVRTC"):
            nvrtc.use(path if path != tmp_path else tmp_path / "empty")


# ------------------------------------------------------------- machine code for another machine


@pytest.fixture
def kept(folder, monkeypatch):
    """Two modules, compiled and kept; the cache of the machine they are brought to is empty."""
    (folder / "good.cu").write_text(GOOD)
    listed = [Variant("good.cu", (("VALUE", i),)) for i in range(2)]
    monkeypatch.setattr(resources, "variants", lambda: listed)
    monkeypatch.setenv("GRADLAB_QUIET", "1")
    assert resources.main(["--keep", str(folder / "kept"), "--arch", "sm_90a"]) == 0
    monkeypatch.setenv("CUPY_CACHE_DIR", str(folder / "elsewhere"))
    return folder / "kept", listed


def test_what_was_kept_is_not_compiled_again(kept, monkeypatch):
    where, listed = kept
    (where / "cupys.cubin").write_bytes(b"CuPy's own")
    assert bundle.bring(where, [*listed, Variant("good.cu", (("VALUE", 9),))], "sm_90a") == (
        2, 1, 1,
    )  # fmt: skip
    monkeypatch.setattr(nvrtc, "compile_source", None)
    for variant in listed:
        assert compiler.cubin(variant.source, variant.defines, "sm_90a")[:4] == b"\x7fELF"
    assert (compiler.cache_folder().parent / "cupys.cubin").read_bytes() == b"CuPy's own"


def test_what_was_kept_for_another_compiler_or_is_damaged_is_refused(kept, monkeypatch):
    where, listed = kept
    file = next((where / "gradlab").glob("*.cubin"))
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match=rf"{file.name} is not the file that was kept there"):
        bundle.bring(where, listed, "sm_90a")
    monkeypatch.setattr(nvrtc, "version", lambda: (12, 9))
    with pytest.raises(ValueError, match=r"compiled by this machine's NVRTC 12.9, got that of "):
        bundle.bring(where, listed, "sm_90a")
    with pytest.raises(ValueError, match=r"nowhere: expected a folder that .* wrote, got no"):
        bundle.bring(where / "nowhere", listed, "sm_90a")


def test_a_compiler_that_is_not_there_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        resources.main(["--nvrtc", str(tmp_path / "nowhere")])
    assert "--nvrtc: no NVRTC (libnvrtc.so.13, say) at" in capsys.readouterr().err
