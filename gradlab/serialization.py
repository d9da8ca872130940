"""`save` and `load`: tensors, numbers and strings, and any nesting of them, in one file.

The file is safetensors [1]_, which other libraries read too; nothing in it is ever executed, as
it is in a pickle. What safetensors does not hold (nesting, numbers, strings) stands as JSON in the
file's metadata, with a digest of everything, so that an altered file is refused.

.. [1] https://huggingface.co/docs/safetensors
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import secrets
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from gradlab import dtypes
from gradlab.devices import DeviceLike, find_device
from gradlab.errors import CheckpointError, DTypeError, OptionError, message, missing_dependency
from gradlab.paths import as_path
from gradlab.tensor import Tensor, from_value

FORMAT = "1"

# What safetensors calls the dtypes that gradlab has.
_DTYPES = {
    "BOOL": np.dtype(np.bool_),
    **{f"I{bits}": np.dtype(f"int{bits}") for bits in (8, 16, 32, 64)},
    **{f"U{bits}": np.dtype(f"uint{bits}") for bits in (8, 16, 32, 64)},
    **{f"F{bits}": np.dtype(f"float{bits}") for bits in (16, 32, 64)},
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "C64": np.dtype(np.complex64),
}


def save(
    obj: Any,
    path: str | os.PathLike[str] | None = None,
    *,
    f: str | os.PathLike[str] | None = None,
) -> None:
    """Write ``obj`` to the file ``path``, from which `load` gives it back. PyTorch calls it ``f``.

    ``obj`` is a tensor, a NumPy array, a number, a string, a bool, None, or dicts, lists and tuples
    of these, nested at will: state dicts of models and optimizers are such. A dict of tensors is
    written as a plain safetensors file with the dict's keys as names. Values only are kept: what is
    loaded has no history and is a `Tensor` where a `Parameter` was saved.

    The file appears whole or not at all: a process killed while it writes leaves what was at
    ``path`` before. Missing folders are made. Raises `OptionError` for objects of other kinds,
    with the place where they stand.

    >>> import gradlab as gl, tempfile, os
    >>> path = os.path.join(tempfile.mkdtemp(), "state.safetensors")
    >>> gl.save({"weight": gl.ones(2), "steps": 3}, path)
    >>> gl.load(path)
    {'weight': tensor([1., 1.]), 'steps': 3}
    """
    target = as_path("save", f if path is None else path)
    structure, arrays = pack(obj)
    write_arrays(target, structure, arrays)


def load(
    path: str | os.PathLike[str] | None = None,
    device: DeviceLike = None,
    *,
    map_location: DeviceLike = None,
    weights_only: bool = True,
    f: str | os.PathLike[str] | None = None,
) -> Any:
    """Read what `save` wrote to ``path``, its tensors onto ``device`` (None: the CPU).

    PyTorch calls the path ``f`` and the device ``map_location``. Its ``weights_only`` may be given;
    here every file is read so.

    A safetensors file that another program wrote is read as a dict of tensors.

    Raises `CheckpointError`, and gives nothing, where the file is truncated, was altered, or is no
    safetensors file. No file is ever unpickled.
    """
    where = find_device(map_location if device is None else device)
    content = read_arrays(as_path("load", f if path is None else path))
    if not content.digest:
        return {name: from_value(array, where) for name, array in content.arrays.items()}
    return unpack(content.structure, content.arrays, where)


# -------------------------------------------------------------- objects to JSON and arrays

# A JSON object with one of these as its only key stands for something JSON does not have.
_TENSOR, _ARRAY, _TUPLE, _DICT, _FLOAT, _COMPLEX = (
    "$tensor", "$array", "$tuple", "$dict", "$float", "$complex",
)  # fmt: skip


def pack(obj: Any) -> tuple[Any, dict[str, np.ndarray]]:
    """Split ``obj`` into values that JSON holds and the arrays these refer to by name.

    A tensor is named by the keys that lead to it, joined by dots.
    """
    arrays: dict[str, np.ndarray] = {}
    try:
        return _Packer(arrays).pack(obj, ()), arrays
    except RecursionError:
        raise OptionError(
            "save: expected an object of finite depth, got one nested too deeply; does it contain "
            "itself?"
        ) from None


class _Packer:
    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        self.arrays = arrays

    def pack(self, obj: Any, keys: tuple[Any, ...]) -> Any:
        if obj is None or isinstance(obj, bool | str):
            return obj
        if isinstance(obj, Tensor):
            return self._pack_array(_TENSOR, obj.detach().numpy(force=True), keys)
        if isinstance(obj, np.ndarray):
            return self._pack_array(_ARRAY, obj, keys)
        if isinstance(obj, Mapping):
            return self._pack_dict(obj, keys)
        if isinstance(obj, list | tuple):
            items = [self.pack(each, (*keys, i)) for i, each in enumerate(obj)]
            return {_TUPLE: items} if isinstance(obj, tuple) else items
        return self._pack_number(obj, keys)

    def _pack_number(self, obj: Any, keys: tuple[Any, ...]) -> Any:
        if isinstance(obj, np.generic):
            obj = obj.item() if obj.dtype.kind in "biufc" else float(obj)
        if isinstance(obj, int):  # also of enumerations, whose JSON would be their name
            return obj if isinstance(obj, bool) else int(obj)
        if isinstance(obj, float):
            return float(obj) if math.isfinite(obj) else {_FLOAT: repr(float(obj))}
        if isinstance(obj, complex):
            return {_COMPLEX: [self.pack(part, keys) for part in (obj.real, obj.imag)]}
        place = f" at {_place(keys)}" if keys else ""
        raise OptionError(
            message(
                "save",
                expected="tensors, NumPy arrays, numbers, strings, and dicts, lists or tuples of "
                "them",
                got=f"{type(obj).__name__}{place}",
                # A model, an optimizer or a schedule.
                hint="save its state_dict()" if hasattr(obj, "state_dict") else "",
            )
        )

    def _pack_dict(self, obj: Mapping[Any, Any], keys: tuple[Any, ...]) -> Any:
        plain = all(type(key) is str and not key.startswith("$") for key in obj)
        if plain:
            return {key: self.pack(each, (*keys, key)) for key, each in obj.items()}
        pairs = [[self.pack(key, keys), self.pack(each, (*keys, key))] for key, each in obj.items()]
        return {_DICT: pairs}

    def _pack_array(self, kind: str, array: np.ndarray, keys: tuple[Any, ...]) -> dict[str, Any]:
        if array.dtype not in dtypes.ALL:
            raise DTypeError(
                message(
                    "save", expected="numbers", got=f"an array of {array.dtype} at {_place(keys)}"
                )
            )
        wanted = name = ".".join(map(str, keys)) or "tensor"
        count = 1
        while name in self.arrays or name == "__metadata__":
            count += 1
            name = f"{wanted}#{count}"
        self.arrays[name] = array
        return {kind: name}


def _place(keys: tuple[Any, ...]) -> str:
    return "obj" + "".join(f"[{key!r}]" for key in keys)


def unpack(structure: Any, arrays: Mapping[str, np.ndarray], device: DeviceLike = None) -> Any:
    """Put together again what `pack` split, with the tensors on ``device``."""
    where = find_device(device)

    def build(node: Any) -> Any:
        if isinstance(node, list):
            return [build(each) for each in node]
        if not isinstance(node, dict):
            return node
        kind = next(iter(node), "")
        read = readers.get(kind)
        if read is None:
            return {key: build(each) for key, each in node.items()}
        return read(node[kind])

    readers: dict[str, Callable[[Any], Any]] = {
        _TENSOR: lambda name: from_value(arrays[name], where),
        _ARRAY: lambda name: arrays[name],
        _TUPLE: lambda items: tuple(map(build, items)),
        _DICT: lambda pairs: {build(key): build(each) for key, each in pairs},
        _FLOAT: float,
        _COMPLEX: lambda parts: complex(*map(build, parts)),
    }
    return build(structure)


# ------------------------------------------------------------------------------ the file itself


class Content(NamedTuple):
    """A file as read; without structure and digest if another program wrote it."""

    arrays: dict[str, np.ndarray]
    structure: Any = None
    digest: str = ""


def write_arrays(
    path: str | os.PathLike[str], structure: Any, arrays: Mapping[str, np.ndarray]
) -> str:
    """Write named arrays and the structure that refers to them; return the digest of both."""
    safetensors_numpy = _safetensors("save").numpy
    joined = [name for name, array in arrays.items() if array.dtype.kind == "c"]
    layout = json.dumps({"complex": joined, "object": structure}, allow_nan=False)
    stored = {name: _storable(array) for name, array in arrays.items()}
    digest = _digest(layout, stored)
    metadata = {"format": "gradlab", "version": FORMAT, "structure": layout, "sha256": digest}
    with replacing(path) as temporary:
        # Not save_file: it makes a file that its owner alone may read.
        temporary.write_bytes(safetensors_numpy.save(stored, metadata=metadata))
    return digest


def _storable(array: np.ndarray) -> np.ndarray:
    """The array as safetensors takes it: contiguous, little-endian, and complex as pairs.

    Not every version of safetensors has complex dtypes, and none has complex128.
    """
    array = array if array.flags.c_contiguous else array.copy(order="C")
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("<"))
    if array.dtype.kind == "c":
        real = np.float32 if array.dtype == np.complex64 else np.float64
        return array.reshape(*array.shape, 1).view(real)
    return array


def _digest(layout: str, arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of all that a file means: the structure, and each array's name, form and bytes."""
    found = hashlib.sha256(layout.encode())
    for name in sorted(arrays):
        array = arrays[name]
        header = json.dumps([name, array.dtype.name, array.shape])
        found.update(header.encode())
        found.update(array.reshape(-1).view(np.uint8).data if array.size else b"")
    return found.hexdigest()


def read_arrays(path: str | os.PathLike[str]) -> Content:
    """Read a safetensors file and check it against its digest, if it has one."""
    safetensors = _safetensors("load")
    data = Path(path).read_bytes()
    try:
        entries = safetensors.deserialize(data)
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"load: {path} {_what_is_wrong(data, error)}") from None
    arrays = {name: _array(path, name, entry) for name, entry in entries}
    (header_size,) = struct.unpack_from("<Q", data)
    metadata = json.loads(data[8 : 8 + header_size]).get("__metadata__", {})
    # Any one of the entries will do: a file altered in one of them is not taken for another's.
    if metadata.get("format") != "gradlab" and not {"structure", "sha256"} & set(metadata):
        return Content(arrays)
    return _checked(path, metadata, arrays)


def _checked(path: Any, metadata: dict[str, str], arrays: dict[str, np.ndarray]) -> Content:
    if metadata.get("version") != FORMAT:
        raise CheckpointError(
            f"load: {path} has the format version {metadata.get('version')!r}, and this gradlab "
            f"reads {FORMAT!r}; update gradlab, or write the file anew"
        )
    layout, digest = metadata.get("structure", ""), metadata.get("sha256", "")
    intact = metadata.get("format") == "gradlab" and len(metadata) == 4
    if not intact or _digest(layout, arrays) != digest:
        raise CheckpointError(
            f"load: {path} was altered since it was written (its SHA-256 does not match); "
            "nothing was loaded"
        )
    parsed = json.loads(layout)
    for name in parsed["complex"]:
        real = arrays[name]
        dtype = np.complex64 if real.dtype == np.float32 else np.complex128
        arrays[name] = real.view(dtype).reshape(real.shape[:-1])
    return Content(arrays, parsed["object"], digest)


def _array(path: Any, name: str, entry: Mapping[str, Any]) -> np.ndarray:
    dtype = _DTYPES.get(entry["dtype"])
    if dtype is None:
        raise CheckpointError(
            f"load: tensor {name!r} in {path} has the dtype {entry['dtype']}, which gradlab does "
            "not have"
        )
    return np.frombuffer(entry["data"], dtype=dtype).reshape(entry["shape"])


def _what_is_wrong(data: bytes, error: Exception) -> str:
    if not data:
        return "is empty"
    if data.startswith((b"PK\x03\x04", b"\x80")):
        return (
            "is a pickle, as torch.save writes it, which gradlab does not read because it can run "
            "any code; write it with safetensors.torch.save_file"
        )
    if len(data) >= 9 and data[8:9] == b"{":
        return f"is truncated or damaged ({error}); nothing was loaded"
    return "is not a safetensors file"


def _safetensors(operation: str) -> Any:
    try:
        import safetensors
        import safetensors.numpy
    except ImportError:  # a core dependency, so only where it was taken away
        raise missing_dependency("safetensors", "", operation) from None
    return safetensors


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary file beside ``path`` to write to, which takes its place on success.

    What was written is on the disk before the name changes, so that neither a killed process nor
    a power failure leaves half a file under the name.
    """
    target = Path(os.path.realpath(path))  # a link stays a link
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        _synchronize(temporary)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if os.name == "posix":  # the new name itself; Windows has no such call
        _synchronize(target.parent)


def _synchronize(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
