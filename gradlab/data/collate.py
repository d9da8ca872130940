"""From a list of samples to a batch, and a batch to a device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from gradlab.devices import Device, cpu
from gradlab.errors import DataError, ShapeError, message
from gradlab.ops.shape import stack
from gradlab.tensor import Tensor, from_value

_NAME = "default_collate"


def default_collate(samples: Sequence[Any]) -> Any:
    """Make a batch of samples, which all have the form of the first.

    - Tensors and NumPy arrays of one shape become a tensor with a new first axis.
    - Numbers become a tensor of one axis: Python floats float32 (the default dtype), ints int64,
      bools bool; NumPy numbers keep their dtype.
    - Tuples, named tuples, lists and dicts keep their form and are collated within.
    - Text and bytes stay a list.

    Raises `ShapeError` for shapes that differ and `DataError` for anything else; both name the
    sample, counted from 0 within the batch.

    >>> default_collate([(1.5, "a"), (2.5, "b")])
    (tensor([1.5000, 2.5000]), ['a', 'b'])
    >>> default_collate([{"x": np.zeros(3), "y": 0}, {"x": np.ones(3), "y": 1}])["x"].shape
    (2, 3)
    """
    if not len(samples):
        raise DataError(message(_NAME, expected="one sample or more", got="none"))
    first = samples[0]
    if isinstance(first, Tensor):
        return _stack_tensors(samples)
    if isinstance(first, np.ndarray):
        return _stack_arrays(samples)
    if isinstance(first, bool | int | float | complex | np.number | np.bool_):
        return _numbers(samples)
    if isinstance(first, str | bytes):
        return list(samples)
    if isinstance(first, Mapping):
        return {key: default_collate(_at_key(samples, key)) for key in first}
    if isinstance(first, tuple | list):
        return _rebuild(first, [default_collate(column) for column in _columns(samples)])
    raise DataError(
        message(
            _NAME,
            expected="tensors, arrays, numbers, text, or tuples, lists and dicts of them",
            got=type(first).__name__,
            hint="give the DataLoader a collate_fn",
        )
    )


def _rebuild(like: Any, items: list[Any]) -> Any:
    """A tuple, named tuple or list of the type of ``like``."""
    if isinstance(like, list):
        return items
    return type(like)(*items) if hasattr(like, "_fields") else tuple(items)


def _stack_tensors(samples: Sequence[Any]) -> Tensor:
    _check_alike(samples)
    if any(x.requires_grad or x.device is not cpu for x in samples):
        return stack(list(samples))
    # Samples without history on the host: one copy, in place of one view per sample.
    return _stack_arrays([x.numpy() for x in samples])


def _stack_arrays(samples: Sequence[Any]) -> Tensor:
    _check_alike(samples)
    return from_value(np.stack(samples), cpu, operation=_NAME)


def _check_alike(samples: Sequence[Any]) -> None:
    kind = Tensor if isinstance(samples[0], Tensor) else np.ndarray
    shape = samples[0].shape
    for i, sample in enumerate(samples):
        if not isinstance(sample, kind):
            raise _unlike(samples, i)
        if sample.shape != shape:
            raise ShapeError(
                message(
                    _NAME,
                    expected=f"samples of one shape, {shape} as the first",
                    got=f"{sample.shape} for sample {i} of the batch",
                    hint="pad them, or give the DataLoader a collate_fn",
                )
            )


def _unlike(samples: Sequence[Any], i: int) -> DataError:
    return DataError(
        message(
            _NAME,
            expected=f"samples of one type, {type(samples[0]).__name__} as the first",
            got=f"{type(samples[i]).__name__} for sample {i} of the batch",
            hint="give the DataLoader a collate_fn",
        )
    )


def _numbers(samples: Sequence[Any]) -> Tensor:
    for i, sample in enumerate(samples):
        if not isinstance(sample, bool | int | float | complex | np.number | np.bool_):
            raise _unlike(samples, i)
    return from_value(list(samples), cpu, operation=_NAME)


def _at_key(samples: Sequence[Any], key: Any) -> list[Any]:
    values = []
    for i, sample in enumerate(samples):
        if not isinstance(sample, Mapping):
            raise _unlike(samples, i)
        if key not in sample:
            raise DataError(
                message(
                    _NAME,
                    expected=f"the key {key!r} in every sample, as in the first",
                    got=f"sample {i} of the batch without it",
                )
            )
        values.append(sample[key])
    return values


def _columns(samples: Sequence[Any]) -> list[list[Any]]:
    width = len(samples[0])
    for i, sample in enumerate(samples):
        if not isinstance(sample, tuple | list):
            raise _unlike(samples, i)
        if len(sample) != width:
            raise DataError(
                message(
                    _NAME,
                    expected=f"samples of {width} items, as the first",
                    got=f"{len(sample)} items for sample {i} of the batch",
                )
            )
    return [[sample[place] for sample in samples] for place in range(width)]


def map_tensors(function: Callable[[Tensor], Any], batch: Any) -> Any:
    """Apply ``function`` to each tensor within tuples, lists and dicts; leave the rest as it is."""
    if isinstance(batch, Tensor):
        return function(batch)
    if isinstance(batch, Mapping):
        return {key: map_tensors(function, value) for key, value in batch.items()}
    if isinstance(batch, tuple | list):
        return _rebuild(batch, [map_tensors(function, value) for value in batch])
    return batch


def to_device(batch: Any, device: Device) -> Any:
    """Move each tensor of a batch to a device; a tensor that is there already stays itself."""
    return map_tensors(lambda x: x if x.device is device else x.to(device), batch)
