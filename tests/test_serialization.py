"""What is saved comes back bit for bit, or, from a damaged file, not at all."""

from __future__ import annotations

import json
import math
import os
import pickle
import stat
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

import gradlab as gl
from gradlab import dtypes, serialization
from gradlab.errors import CheckpointError, DTypeError, OptionError, OutOfMemoryError
from refusals import refusal


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file.safetensors"


def same(a, b):
    """Equal in type, structure, dtype and bits."""
    if isinstance(a, gl.Tensor):
        return type(b) is gl.Tensor and same(a.detach().numpy(), b.numpy())
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float):
        return type(b) is float and (a == b or (math.isnan(a) and math.isnan(b)))
    return type(a) is type(b) and a == b


@pytest.mark.parametrize("dtype", dtypes.ALL, ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3)])
def test_every_dtype(path, dtype, shape):
    values = np.array([0, 1, 0, 2.5, 3, 1])[: math.prod(shape)].astype(dtype).reshape(shape)
    x = gl.tensor(values)
    gl.save(x, path)
    assert same(x, gl.load(path))


def test_views_keep_their_values(path):
    x = gl.tensor(np.arange(12.0).reshape(3, 4))
    views = {"transposed": x.T, "column": x[:, 1], "flipped": x.flip(0), "rows": x[1:]}
    gl.save(views, path)
    for name, value in gl.load(path).items():
        assert value.tolist() == views[name].tolist(), name


def test_names_of_arguments_as_in_pytorch(path):
    gl.save(obj={"weight": gl.ones(2)}, f=path)
    assert gl.load(f=path, map_location="cpu")["weight"].tolist() == [1, 1]


def test_a_nested_object(path):
    obj = {
        "state": {0: {"step": 3, "exp_avg": gl.ones(2)}, 1: {}},
        "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.999), "params": [0, 1], "fused": None}],
        "numbers": [True, -(2**80), 0.1, math.inf, -math.inf, math.nan, 1 + 2j, complex("inf")],
        "text": ["", "naïve ∂", "$tensor", "\ud800"],
        "an array": np.arange(3, dtype=np.uint32),
        "$dict": {"$tensor": "not one", 1.5: (), None: [], (1, "a"): {}},
        "": gl.zeros(1),
    }
    gl.save(obj, path)
    assert same(obj, gl.load(path))


def test_numpy_scalars_become_numbers(path):
    gl.save([np.float32(0.5), np.int64(3), np.bool_(True), dtypes.bfloat16.type(2)], path)
    assert same(gl.load(path), [0.5, 3, True, 2.0])


def test_names_that_would_meet(path):
    obj = {"a.b": gl.zeros(1), "a": {"b": gl.ones(1)}, "__metadata__": gl.full((1,), 2.0)}
    gl.save(obj, path)
    assert same(obj, gl.load(path))


leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.lists(st.floats(width=32), max_size=3).map(lambda values: gl.tensor(values))
)
objects = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
    ),
    max_leaves=8,
)


@hypothesis.given(objects)
def test_any_object(tmp_path_factory, obj):
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    gl.save(obj, path)
    assert same(obj, gl.load(path))


def test_requires_grad_is_left_behind(path):
    gl.save({"w": gl.ones(2, requires_grad=True)}, path)
    w = gl.load(path)["w"]
    assert not w.requires_grad
    w += 1  # memory of its own, and writable
    assert gl.load(path)["w"].tolist() == [1.0, 1.0]


def test_a_dict_of_tensors_is_a_plain_safetensors_file(path):
    safetensors_numpy = pytest.importorskip("safetensors.numpy")
    gl.save({"0.weight": gl.ones(2, 3), "0.bias": gl.zeros(2)}, path)
    read = safetensors_numpy.load_file(path)
    assert read["0.weight"].tolist() == [[1, 1, 1], [1, 1, 1]]
    assert read["0.bias"].tolist() == [0, 0]


def test_a_file_of_another_program(path):
    safetensors_numpy = pytest.importorskip("safetensors.numpy")
    arrays = {"w": np.arange(3, dtype=np.float16), "c": np.array([1 + 2j], dtype=np.complex64)}
    safetensors_numpy.save_file(arrays, path, metadata={"format": "pt"})
    read = gl.load(path)
    assert {name: x.tolist() for name, x in read.items()} == {"w": [0, 1, 2], "c": [1 + 2j]}
    assert read["w"].dtype == gl.float16


# ---------------------------------------------------------------------------- damaged files


def test_every_truncation_is_refused(path):
    gl.save({"w": gl.arange(5), "n": 3}, path)
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(CheckpointError) as caught:
            gl.load(path)
        assert str(path) in str(caught.value)


def test_no_altered_byte_goes_unnoticed(path):
    obj = {"w": gl.arange(5), "n": 3}
    gl.save(obj, path)
    whole = path.read_bytes()
    for at in range(len(whole)):
        altered = bytearray(whole)
        altered[at] ^= 1
        path.write_bytes(altered)
        with pytest.raises(CheckpointError, match=r"load: .*file\.safetensors"):
            gl.load(path)


def test_appended_bytes_are_refused(path):
    gl.save(gl.ones(3), path)
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        gl.load(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"a text, and no more than that", "is not a safetensors file"),
        (pickle.dumps({"w": 1}), "is a pickle, .* write it with safetensors.torch.save_file"),
        (b"PK\x03\x04 and so on, a zip", "is a pickle"),
    ],
)
def test_files_of_another_kind(path, content, message):
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        gl.load(path)


def test_a_file_of_a_later_version(path, monkeypatch):
    monkeypatch.setattr(serialization, "FORMAT", "99")
    gl.save(gl.ones(3), path)
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match=r"format version '99'.*update gradlab"):
        gl.load(path)


def test_a_dtype_that_gradlab_lacks(path):
    header = b'{"w":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]}}'
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0")
    with pytest.raises(CheckpointError, match=r"tensor 'w' in .* has the dtype F8_E4M3"):
        gl.load(path)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        gl.load(tmp_path / "missing")


# --------------------------------------------------------------------------------- bad input


def test_objects_that_cannot_be_saved(path):
    with pytest.raises(OptionError) as caught:
        gl.save({"a": [1, {2, 3}]}, path)
    assert str(caught.value) == (
        "save: expected tensors, NumPy arrays, numbers, strings, and dicts, lists or tuples of "
        "them, got set at obj['a'][1]"
    )
    with pytest.raises(OptionError, match=r"got Linear; save its state_dict\(\)$"):
        gl.save(gl.nn.Linear(2, 1), path)
    with pytest.raises(
        DTypeError, match=r"save: expected numbers, got an array of <U1 at obj\['a'\]"
    ):
        gl.save({"a": np.array(["x"])}, path)
    assert not path.exists()


def test_an_object_that_contains_itself(path):
    obj = []
    obj.append(obj)
    with pytest.raises(OptionError, match="does it contain itself"):
        gl.save(obj, path)


# ------------------------------------------------------------------------------- atomic writes


def test_folders_are_made(tmp_path):
    gl.save(1, tmp_path / "a" / "b" / "c")
    assert gl.load(tmp_path / "a" / "b" / "c") == 1


@pytest.mark.parametrize("call", ["fsync", "open"])
def test_a_failed_write_leaves_the_old_file_alone(path, monkeypatch, call):
    gl.save(1, path)

    def fail(*args, **kwargs):
        raise OSError("no space left")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match="no space left"):
        gl.save(2, path)
    monkeypatch.undo()
    assert gl.load(path) == 1
    assert os.listdir(path.parent) == [path.name]


def test_the_data_is_on_the_disk_before_the_name_changes(path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda handle: calls.append("fsync") or fsync(handle))
    monkeypatch.setattr(Path, "replace", lambda a, b: calls.append("replace") or replace(a, b))
    gl.save(1, path)
    assert calls == ["fsync", "replace", "fsync"]


@pytest.mark.skipif(os.name != "posix", reason="modes and links as POSIX has them")
def test_mode_and_links_as_of_any_file(path, tmp_path):
    (tmp_path / "plain").write_text("")
    link = tmp_path / "link"
    link.symlink_to(path)
    gl.save(1, link)
    assert link.is_symlink()
    assert gl.load(path) == 1
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


# ------------------------------------------------------------------------------ hostile files


def write_header(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def entry(shape, dtype="U8", size=None):
    size = math.prod(shape) if size is None else size
    return {"dtype": dtype, "shape": shape, "data_offsets": [0, size]}


@pytest.mark.parametrize(
    ("header", "text"),
    [
        ({"w": entry([1] * 65)}, "it holds tensor 'w' of 65 axes, which no array can have"),
        ({"w": entry([0, 2**62, 2**62])}, "which no array can have"),
        ({"w": entry([0, 2**63])}, "which no array can have"),
        ({"w": entry([-1])}, "is truncated or damaged"),
        ({"w": entry([2**64])}, "is truncated or damaged"),
        ({"w": {"dtype": "U8", "shape": [1], "data_offsets": [0, 9]}}, "is truncated or damaged"),
        ({"w": {"dtype": "U8", "shape": [1], "data_offsets": [1, 0]}}, "is truncated or damaged"),
        ({"w": {"dtype": "U8", "shape": [1]}}, "is truncated or damaged"),
        ({"w": {"dtype": "\x1b[2J", "shape": [1], "data_offsets": [0, 1]}}, "truncated or damaged"),
        ({"a": entry([1]), "b": entry([1])}, "is truncated or damaged"),  # they overlap
        (b'{"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},'
         b'"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', "it holds a key twice"),
        ({"\x1b[2J": entry([1], "F8_E4M3")}, r"tensor '\x1b[2J' in"),
        (b'{"a":' * 2000 + b"1" + b"}" * 2000, "is truncated or damaged"),
        (b"\xff\xfe{}", "is not a safetensors file"),
    ],
)  # fmt: skip
def test_headers_that_are_refused(path, header, text):
    write_header(path, header, b"" if "[0, 0]" in str(header) else b"\0")
    told = refusal(gl.load, path)
    assert told.startswith("load: ")
    assert str(path) in told
    assert text in told


def test_a_header_without_metadata(path):
    for metadata in ({"__metadata__": None}, {"__metadata__": {}}, {}):
        write_header(path, {**metadata, "w": entry([1])}, b"\7")
        assert gl.load(path)["w"].tolist() == [7]


def test_a_header_longer_than_the_file(path):
    for size in (2**63, 2**64 - 1, 100_000_001, 10):
        path.write_bytes(size.to_bytes(8, "little") + b"{}")
        assert "is truncated or damaged" in refusal(gl.load, path)


@pytest.mark.parametrize(
    ("structure", "text"),
    [
        ({"$tensor": "none"}, "a tensor 'none', which is not in the file"),
        ({"$array": "none"}, "a tensor 'none', which is not in the file"),
        ({"$tensor": ["w"]}, "a $tensor of another form than gradlab.save writes"),
        ({"$tensor": "w", "x": 1}, "a $tensor of another form"),
        ({"$tuple": 3}, "a $tuple of another form"),
        ({"$dict": [3]}, "a dict of other pairs than gradlab.save writes"),
        ({"$dict": [[[], 3]]}, "a dict of other pairs"),
        ({"$float": "one"}, "'one' for a number"),
        ({"$float": 1}, "a $float of another form"),
        ({"$complex": [0.0]}, "a complex number without its two parts"),
        ({"$complex": ["x", 0.0]}, "a complex number without its two parts"),
    ],
)
def test_structures_that_are_refused(path, structure, text):
    """What is behind a digest that matches: who alters the one can make the other again."""
    serialization.write_arrays(path, structure, {"w": np.zeros(1)})
    told = refusal(gl.load, path)
    assert told.startswith(f"load: {path} is damaged or was altered: it holds {text}")
    assert told.endswith("; nothing was loaded")


@pytest.mark.parametrize(
    "layout",
    [
        "[" * 100_000,
        '{"complex": [], "object": ' + "[" * 1200 + "]" * 1200 + "}",
        '{"complex": [], "object": NaN}',
        '{"complex": [], "object": -Infinity}',
        '{"complex": [], "complex": [], "object": 1}',
        '{"complex": [], "object": ' + "9" * 5000 + "}",
        '{"complex": ["none"], "object": 1}',
        '{"complex": ["w"], "object": 1}',  # of uint8
        '{"complex": {"w": 1}, "object": 1}',
        '{"complex": [], "object": 1, "x": 1}',
        '{"object": 1}', '{"complex": []}', "[]", "null", "", "{", "\0",
    ],
)  # fmt: skip
def test_layouts_that_are_refused(path, layout):
    import safetensors.numpy

    arrays = {"w": np.zeros(2, np.uint8)}
    metadata = {
        "format": "gradlab",
        "version": serialization.FORMAT,
        "structure": layout,
        "sha256": serialization._digest(layout, arrays),
    }
    path.write_bytes(safetensors.numpy.save(arrays, metadata=metadata))
    assert str(path) in refusal(gl.load, path)


def test_names_that_utf_8_does_not_have(path):
    obj = {"\ud800": gl.ones(1), r"\ud800": gl.zeros(1)}
    gl.save(obj, path)
    assert same(gl.load(path), obj)


def test_an_integer_longer_than_python_writes(path):
    assert refusal(gl.save, 10**5000, path).startswith("save: expected values that JSON can hold")
    assert not path.exists()


def test_what_is_nested_as_deep_as_can_be_saved_is_loaded(path):
    """Whatever the depth: what `save` has taken is not lost."""
    for wrap in (lambda x: [x], lambda x: (x,), lambda x: {"a": x}, lambda x: {1: x}):
        obj, saved = 1, 0
        for depth in range(1, 1200):
            obj = wrap(obj)
            if depth % 25 == 0:
                try:
                    gl.save(obj, path)
                except OptionError:
                    break
                saved = depth
                gl.load(path)
        assert saved >= 150


def test_what_is_missing_is_an_error_of_both_kinds(tmp_path):
    with pytest.raises(CheckpointError) as raised:
        gl.load(tmp_path / "missing")
    assert isinstance(raised.value, FileNotFoundError)
    assert str(raised.value) == f"load: {tmp_path}/missing: there is no such file"


def test_a_file_that_does_not_fit_in_memory(path, monkeypatch):
    gl.save(1, path)

    def fail(*args):
        raise MemoryError

    monkeypatch.setattr(serialization, "_array", fail)
    monkeypatch.setattr(serialization, "from_json", fail)
    with pytest.raises(OutOfMemoryError, match="does not fit in memory; nothing was loaded"):
        gl.load(path)
