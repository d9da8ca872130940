"""`save` and `load`: tensors, numbers and strings, and any nesting of them, in one file.

The file is safetensors [1]_, which other libraries read too; nothing in it is ever executed, as
it is in a pickle. What safetensors does not hold (nesting, numbers, strings) stands as JSON in the
file's metadata, with a digest of everything, so that an altered file is refused.

.. [1] https://huggingface.co/docs/safetensors
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import ml_dtypes
import numpy as np

from gradlab import dtypes
from gradlab.devices import Device, DeviceLike, find_device
from gradlab.errors import (
    CheckpointError,
    DTypeError,
    GradlabError,
    MissingFileError,
    OptionError,
    OutOfMemoryError,
    message,
    missing_dependency,
    printable,
)
from gradlab.fields import ANYTHING, TEXT, Only, check_fields
from gradlab.paths import as_path, open_file, replacing
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
    ``path`` before. A file that is there is replaced and keeps its mode, its group and, where the
    system allows it, its owner; where ``path`` is a link, the file that it leads to is replaced.
    Missing folders are made. Raises `OptionError` for objects of other kinds, with the place where
    they are, and `FileError` where the file cannot be written, as on a full disk.

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

    Raises `CheckpointError`, and gives nothing, where the file is truncated, was altered, is no
    safetensors file, or cannot be read; it is a `MissingFileError`, and a `FileNotFoundError`,
    where there is none. No file is ever unpickled.
    """
    where = find_device(map_location if device is None else device)
    source = as_path("load", f if path is None else path)
    content = read_arrays(source)
    if not content.digest:
        return {name: from_value(array, where) for name, array in content.arrays.items()}
    with explained("load", source):
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
        wanted = name = _name(keys)
        count = 1
        while name in self.arrays or name == "__metadata__":
            count += 1
            name = f"{wanted}#{count}"
        self.arrays[name] = array
        return {kind: name}


def _name(keys: tuple[Any, ...]) -> str:
    joined = ".".join(map(str, keys)) or "tensor"
    # A lone surrogate, which text from elsewhere may hold, has no place in a file's UTF-8.
    return joined.encode("utf-8", "backslashreplace").decode()


def _place(keys: tuple[Any, ...]) -> str:
    return "obj" + "".join(f"[{key!r}]" for key in keys)


def unpack(structure: Any, arrays: Mapping[str, np.ndarray], device: DeviceLike = None) -> Any:
    """Put together again what `pack` split, with the tensors on ``device``."""
    return _Unpacker(arrays, find_device(device)).build(structure)


class _Unpacker:
    def __init__(self, arrays: Mapping[str, np.ndarray], device: Device) -> None:
        self.arrays = arrays
        self.forms: dict[str, tuple[type, Callable[[Any], Any]]] = {
            _TENSOR: (str, lambda name: from_value(self.find(name), device)),
            _ARRAY: (str, self.find),
            _TUPLE: (list, lambda items: tuple(map(self.build, items))),
            _DICT: (list, self.read_dict),
            _FLOAT: (str, _read_float),
            _COMPLEX: (list, self.read_complex),
        }

    def build(self, node: Any) -> Any:
        if isinstance(node, list):
            return [self.build(each) for each in node]
        if not isinstance(node, dict):
            return node
        kind = next(iter(node), "")
        if kind not in self.forms:
            return {key: self.build(each) for key, each in node.items()}
        form, read = self.forms[kind]
        if len(node) > 1 or not isinstance(node[kind], form):
            raise UnfitError(f"a {kind} of another form than gradlab.save writes")
        return read(node[kind])

    def find(self, name: str) -> np.ndarray:
        if name not in self.arrays:
            raise UnfitError(f"a tensor {name!r}, which is not in the file")
        return self.arrays[name]

    def read_dict(self, pairs: list[Any]) -> dict[Any, Any]:
        try:
            return {self.build(key): self.build(each) for key, each in pairs}
        except (TypeError, ValueError):  # no pairs, or a key without a hash
            raise UnfitError("a dict of other pairs than gradlab.save writes") from None

    def read_complex(self, parts: list[Any]) -> complex:
        numbers = [self.build(part) for part in parts]
        if len(numbers) != 2 or not all(isinstance(each, float) for each in numbers):
            raise UnfitError("a complex number without its two parts")
        return complex(*numbers)


def _read_float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UnfitError(f"{text[:20]!r} for a number") from None


# ------------------------------------------------------------------------------ the file itself


class Content(NamedTuple):
    """A file as read; without structure and digest if another program wrote it."""

    arrays: dict[str, np.ndarray]
    structure: Any = None
    digest: str = ""


def write_arrays(
    path: str | os.PathLike[str],
    structure: Any,
    arrays: Mapping[str, np.ndarray],
    operation: str = "save",
    state: str = "nothing was written",
) -> str:
    """Write named arrays and the structure that refers to them; return the digest of both.

    Raises `FileError`, which says ``state`` of what is safe, where the file cannot be written.
    """
    safetensors_numpy = _safetensors(operation).numpy
    joined = [name for name, array in arrays.items() if array.dtype.kind == "c"]
    layout = to_json(operation, {"complex": joined, "object": structure})
    stored = {name: _storable(array) for name, array in arrays.items()}
    digest = _digest(layout, stored)
    metadata = {"format": "gradlab", "version": FORMAT, "structure": layout, "sha256": digest}
    with replacing(path, operation, state) as temporary:
        # Not save_file: it makes a file that its owner alone may read.
        temporary.write_bytes(safetensors_numpy.save(stored, metadata=metadata))
    return digest


def to_json(operation: str, obj: Any) -> str:
    """What `pack` gave as JSON."""
    try:
        return json.dumps(obj, allow_nan=False)
    except (ValueError, RecursionError) as error:  # Python writes integers of 4,300 digits at most
        raise OptionError(
            message(operation, expected="values that JSON can hold", got=printable(error))
        ) from None


def from_json(text: str | bytes) -> Any:
    """What JSON says, and nothing that `to_json` never writes: no NaN, no key twice."""
    try:
        return json.loads(text, object_pairs_hook=_without_repeats, parse_constant=_refuse_constant)
    except RecursionError:
        raise UnfitError("JSON nested too deeply") from None
    except ValueError as error:  # also of what is not UTF-8
        raise UnfitError(f"damaged JSON ({printable(error)})") from None


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise UnfitError("a key twice")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise UnfitError(f"{name}, which JSON does not have")


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


class UnfitError(Exception):
    """What a file holds that it cannot, before its name is known."""


@contextmanager
def explained(operation: str, path: Any) -> Iterator[None]:
    """Turn what is wrong with a file, or with reading it, into one line that names it."""
    start = f"{operation}: {printable(path)}"
    try:
        yield
    except UnfitError as error:
        text = f"{start} is damaged or was altered: it holds {error}; nothing was loaded"
    except RecursionError:
        text = f"{start} is damaged or was altered: it is nested too deeply; nothing was loaded"
    except FileNotFoundError:
        raise MissingFileError(f"{start}: there is no such file") from None
    except OSError as error:
        if isinstance(error, GradlabError):
            raise
        loop = error.errno == errno.ELOOP
        reason = "its links lead back to themselves" if loop else error.strerror or error
        text = f"{start} cannot be read: {printable(reason)}; nothing was loaded"
    except MemoryError as error:
        if isinstance(error, GradlabError):
            raise
        raise OutOfMemoryError(f"{start} does not fit in memory; nothing was loaded") from None
    else:
        return
    raise CheckpointError(text)


def read_arrays(path: str | os.PathLike[str]) -> Content:
    """Read a safetensors file and check it against its digest, if it has one."""
    safetensors = _safetensors("load")
    with explained("load", path):
        with open_file(Path(path)) as file:
            data = file.read()
        try:
            entries = safetensors.deserialize(data)
        except safetensors.SafetensorError as error:
            raise CheckpointError(
                f"load: {printable(path)} {_what_is_wrong(data, error)}"
            ) from None
        (header_size,) = struct.unpack_from("<Q", data)
        header = from_json(data[8 : 8 + header_size])
        del data
        arrays = {name: _array(path, name, entry) for name, entry in entries}
        metadata = header.get("__metadata__") or {}
        # Any one of the entries will do: a file altered in one of them is not taken for another's.
        if metadata.get("format") != "gradlab" and not {"structure", "sha256"} & set(metadata):
            return Content(arrays)
        return _checked(path, metadata, arrays)


def _checked(path: Any, metadata: dict[str, str], arrays: dict[str, np.ndarray]) -> Content:
    if metadata.get("version") != FORMAT:
        raise CheckpointError(
            f"load: {printable(path)} has the format version {metadata.get('version')!r}, and this "
            f"gradlab reads {FORMAT!r}; update gradlab, or write the file with this one"
        )
    layout, digest = metadata.get("structure", ""), metadata.get("sha256", "")
    intact = metadata.get("format") == "gradlab" and len(metadata) == 4
    if not intact or _digest(layout, arrays) != digest:
        raise CheckpointError(
            f"load: {printable(path)} was altered since it was written (its SHA-256 does not "
            "match); nothing was loaded"
        )
    parsed = from_json(layout)
    check_fields(f"load: {printable(path)}", parsed, _LAYOUT, CheckpointError)
    for name in parsed["complex"]:
        arrays[name] = _rejoined(name, arrays.get(name))
    return Content(arrays, parsed["object"], digest)


_LAYOUT = Only({"complex": [TEXT], "object": ANYTHING})


def _rejoined(name: str, pairs: np.ndarray | None) -> np.ndarray:
    """The complex numbers that `_storable` took apart."""
    if pairs is None or pairs.dtype.name not in _COMPLEX_OF or pairs.shape[-1:] != (2,):
        raise UnfitError(f"no complex tensor {name!r}, which it lists")
    return pairs.view(_COMPLEX_OF[pairs.dtype.name]).reshape(pairs.shape[:-1])


_COMPLEX_OF = {"float32": np.complex64, "float64": np.complex128}


def _array(path: Any, name: str, entry: Mapping[str, Any]) -> np.ndarray:
    dtype = _DTYPES.get(entry["dtype"])
    if dtype is None:
        raise CheckpointError(
            f"load: tensor {name!r} in {printable(path)} has the dtype {entry['dtype']}, which "
            "gradlab does not have"
        )
    try:
        return np.frombuffer(entry["data"], dtype=dtype).reshape(entry["shape"])
    except (ValueError, OverflowError):  # too many axes, or sizes beyond an array of nothing
        shape = entry["shape"]
        got = f"the shape {tuple(shape)}" if len(shape) <= 8 else f"{len(shape)} axes"
        raise UnfitError(f"tensor {name!r} of {got}, which no array can have") from None


def _what_is_wrong(data: bytes, error: Exception) -> str:
    if not data:
        return "is empty"
    if data.startswith((b"PK\x03\x04", b"\x80")):
        return (
            "is a pickle, as torch.save writes it, which gradlab does not read because it can run "
            "any code; write it with safetensors.torch.save_file"
        )
    if len(data) >= 9 and data[8:9] == b"{":
        return f"is truncated or damaged ({printable(error)}); nothing was loaded"
    return "is not a safetensors file"


def _safetensors(operation: str) -> Any:
    try:
        import safetensors
        import safetensors.numpy
    except ImportError:  # a core dependency, so only where it was taken away
        raise missing_dependency("safetensors", "", operation) from None
    return safetensors
