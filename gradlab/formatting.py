"""The text of a tensor, laid out as PyTorch lays it out.

`format_tensor` turns an array and what is known of it (device, gradient) into one string. The
rules, each in one function below:

* all numbers of a tensor share one style and one width (`_float_spec`, `_format_floats`);
* above ``threshold`` elements only the first and last ``edgeitems`` along each axis are shown,
  and only those are looked at (`_edges`);
* a row goes on in the next line at ``linewidth`` characters (`_join_cells`);
* what differs from the default (device, dtype, gradient) is noted after the values (`_notes`,
  `_append_notes`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from itertools import compress, islice
from types import EllipsisType
from typing import Any

import numpy as np

from gradlab.contexts import Restoring
from gradlab.errors import OptionError, message


@dataclass(frozen=True, slots=True)
class PrintOptions:
    """How tensors are printed; see `set_printoptions` for the meaning of each option."""

    precision: int = 4
    threshold: float = 1000
    edgeitems: int = 3
    linewidth: int = 80
    sci_mode: bool | None = None


_PROFILES = {
    "default": PrintOptions(),
    "short": PrintOptions(precision=2, edgeitems=2),
    "full": PrintOptions(threshold=math.inf),
}
_options = _PROFILES["default"]

_WHOLE = "#.0f"  # '#' keeps the point: "2." is a float, "2" an integer


def get_printoptions() -> PrintOptions:
    """Return the options in force.

    >>> get_printoptions().precision
    4
    """
    return _options


def set_printoptions(
    precision: int | None = None,
    threshold: float | None = None,
    edgeitems: int | None = None,
    linewidth: int | None = None,
    profile: str | None = None,
    sci_mode: bool | EllipsisType | None = ...,
) -> None:
    """Set how tensors are printed, in the whole process. What is not given stays as it is.

    Args:
        precision: digits after the decimal point.
        threshold: number of elements above which a tensor is summarised.
        edgeitems: elements shown at each end of an axis of a summarised tensor.
        linewidth: characters after which a row goes on in the next line.
        profile: ``"default"``, ``"short"`` (2 digits, 2 edge items) or ``"full"`` (never
            summarised); sets all options before the others given are applied.
        sci_mode: True for scientific notation, False for never, None for where it reads better.

    Raises `OptionError` for a value that an option cannot take.

    >>> set_printoptions(precision=2)
    >>> get_printoptions().precision
    2
    >>> set_printoptions(profile="default")
    """
    global _options
    if profile is not None and profile not in _PROFILES:
        expected = f"profile to be one of {', '.join(map(repr, _PROFILES))}"
        raise OptionError(message("set_printoptions", expected=expected, got=repr(profile)))
    changes: dict[str, Any] = {}
    for name, value, lowest in (
        ("precision", precision, 0),
        ("threshold", threshold, 0),
        ("edgeitems", edgeitems, 0),
        ("linewidth", linewidth, 1),
    ):
        if value is not None:
            changes[name] = _checked(name, value, lowest)
    if sci_mode is not ...:
        if sci_mode not in (True, False, None):
            expected = "sci_mode to be True, False or None"
            raise OptionError(message("set_printoptions", expected=expected, got=repr(sci_mode)))
        changes["sci_mode"] = sci_mode
    _options = replace(_options if profile is None else _PROFILES[profile], **changes)


class printoptions(Restoring):
    """`set_printoptions` for the length of a ``with`` block, or of a function it decorates.

    >>> with printoptions(precision=1) as options:
    ...     options.precision
    1
    """

    def __init__(
        self,
        precision: int | None = None,
        threshold: float | None = None,
        edgeitems: int | None = None,
        linewidth: int | None = None,
        profile: str | None = None,
        sci_mode: bool | EllipsisType | None = ...,
    ) -> None:
        self._options: Any = (precision, threshold, edgeitems, linewidth, profile, sci_mode)

    def _change(self, before: list[PrintOptions]) -> PrintOptions:
        before.append(_options)
        set_printoptions(*self._options)
        return _options

    def _restored(self, before: list[PrintOptions]) -> Generator[None, None, None]:
        global _options
        try:
            yield
        finally:
            if before:
                _options = before[0]


def _checked(name: str, value: float, lowest: int) -> float:
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if whole and value >= lowest:
        return int(value)
    if name == "threshold" and value == math.inf:
        return value
    infinite = " (or math.inf)" if name == "threshold" else ""
    raise OptionError(
        message(
            "set_printoptions",
            expected=f"{name} to be an integer of at least {lowest}{infinite}",
            got=repr(value),
        )
    )


def format_tensor(
    array: Any,
    *,
    device: str | None = None,
    default_dtype: Any = np.float32,
    dtype_name: str | None = None,
    grad_fn: str | None = None,
    requires_grad: bool = False,
    prefix: str = "tensor(",
    to_host: Callable[[Any], np.ndarray] = np.asarray,
) -> str:
    """Return the text of a tensor, as PyTorch prints it.

    Args:
        array: the values: an array of any shape and of any dtype of gradlab.
        device: noted unless None or ``"cpu"``.
        default_dtype: the floating dtype that goes without a note; int64, bool and the complex
            dtype of the same precision go without one too.
        dtype_name: how the note names the dtype (default: the dtype's own name).
        grad_fn: name of the op that made the tensor, noted as ``grad_fn=<name>``.
        requires_grad: noted where there is no ``grad_fn``.
        prefix: the text before the values; rows are aligned below its last line.
        to_host: copies the part of ``array`` that is shown to a NumPy array, once.

    >>> print(format_tensor(np.array([[0.0, 2.0], [4.0, 6.0]], np.float32), grad_fn="MulBackward0"))
    tensor([[0., 2.],
            [4., 6.]], grad_fn=<MulBackward0>)
    >>> print(format_tensor(np.array([1e-5, 1.0])))
    tensor([1.0000e-05, 1.0000e+00], dtype=float64)
    """
    options = _options
    indent = len(prefix) - (prefix.rfind("\n") + 1)
    if array.size == 0:
        body = "[]"
    elif array.ndim and array.size > options.threshold and options.edgeitems == 0:
        body = "[...]"
    else:
        body = _format_values(array, indent, options, to_host)
    notes = _notes(
        array,
        device=device,
        default_dtype=np.dtype(default_dtype),
        dtype_name=dtype_name or array.dtype.name,
        grad_fn=grad_fn,
        requires_grad=requires_grad,
        # Where the values do not tell the shape.
        show_shape=options.edgeitems == 0 if array.size else array.ndim != 1,
    )
    return _append_notes(prefix + body, notes, indent, options.linewidth) + ")"


def _format_values(
    array: Any, indent: int, options: PrintOptions, to_host: Callable[[Any], np.ndarray]
) -> str:
    edgeitems = options.edgeitems
    summarised = array.size > options.threshold
    gaps = [edgeitems if summarised and n > 2 * edgeitems else None for n in array.shape]
    shown = to_host(array if gaps == [None] * array.ndim else _edges(array, edgeitems))
    cells, cell_width = _format_numbers(shown.reshape(-1), options)
    row_indent = indent + array.ndim - 1
    # Two characters for the comma and the space that follow a cell.
    per_line = max(1, (options.linewidth - row_indent) // (cell_width + 2))
    return _join_cells(iter(cells), list(zip(shown.shape, gaps, strict=True)), indent, per_line)


def _edges(array: Any, edgeitems: int) -> Any:
    """The first and last ``edgeitems`` along every axis that is longer than both together.

    One gather, so that a large array on a device costs one small copy, whatever its shape.
    """
    picked = [
        [*range(edgeitems), *range(length - edgeitems, length)]
        if length > 2 * edgeitems
        else range(length)
        for length in array.shape
    ]
    return array[np.ix_(*picked)]


def _join_cells(
    cells: Iterator[str], axes: list[tuple[int, int | None]], indent: int, per_line: int
) -> str:
    """Nest the cells in brackets; ``axes`` holds the length of each axis and where its gap is."""
    if not axes:
        return next(cells)
    (length, gap), *inner = axes
    if not inner:
        items = list(islice(cells, length))
        if gap is not None:
            items.insert(gap, " ...")
        lines = [", ".join(items[i : i + per_line]) for i in range(0, len(items), per_line)]
    else:
        lines = [_join_cells(cells, inner, indent + 1, per_line) for _ in range(length)]
        if gap is not None:
            lines.insert(gap, "...")
    separator = "," + "\n" * max(1, len(inner)) + " " * (indent + 1)
    return "[" + separator.join(lines) + "]"


def _format_numbers(values: np.ndarray, options: PrintOptions) -> tuple[list[str], int]:
    """The text of each value of a 1-d array, and the width that rows are broken by."""
    kind = values.dtype.kind
    if kind == "c":
        return _format_complex(values, options)
    if kind in "biu":
        texts = [str(value) for value in values.tolist()]
        width = max(map(len, texts))
    else:  # 'f', and 'V', which is how NumPy sees bfloat16
        texts, width = _format_floats(values, options)
    return [text.rjust(width) for text in texts], width


def _format_complex(values: np.ndarray, options: PrintOptions) -> tuple[list[str], int]:
    reals, real_width = _format_floats(values.real, options)
    imags, imag_width = _format_floats(values.imag, options)
    cells = [
        f"{real.rjust(real_width)}{'' if imag.startswith('-') else '+'}{imag}j"
        for real, imag in zip(reals, imags, strict=True)
    ]
    # The sign is not counted: PyTorch breaks its lines by the width of the two numbers and the j.
    return cells, real_width + imag_width + 1


def _format_floats(values: np.ndarray, options: PrintOptions) -> tuple[list[str], int]:
    """The text of each value, all in one style, and the width of the widest.

    Zeros, NaNs and infinities neither choose the style nor count for the width.
    """
    with np.errstate(invalid="ignore"):  # a signalling NaN is a value to print like any other
        values = values.astype(np.float64)
    counts = np.isfinite(values) & (values != 0)
    spec = _float_spec(np.abs(values[counts]), options)
    texts = [format(value, spec) for value in values.tolist()]
    return texts, max(map(len, compress(texts, counts)), default=1)


def _float_spec(sizes: np.ndarray, options: PrintOptions) -> str:
    """The format of all numbers of a tensor, given the absolute values that choose it."""
    if sizes.size == 0:
        return _WHOLE
    # As Python floats, whose quotient overflows to infinity without a warning.
    smallest, largest = float(sizes.min()), float(sizes.max())
    scientific = options.sci_mode
    if scientific is None:
        scientific = largest / smallest > 1000 or largest > 1e8 or smallest < 1e-4
    if scientific:
        return f".{options.precision}e"
    return _WHOLE if bool((sizes == np.ceil(sizes)).all()) else f".{options.precision}f"


def _notes(
    array: Any,
    *,
    device: str | None,
    default_dtype: np.dtype,
    dtype_name: str,
    grad_fn: str | None,
    requires_grad: bool,
    show_shape: bool,
) -> list[str]:
    notes = []
    if device not in (None, "cpu"):
        notes.append(f"device='{device}'")
    if show_shape:
        notes.append(f"size={tuple(array.shape)}")
    if not _dtype_is_implied(array, default_dtype):
        notes.append(f"dtype={dtype_name}")
    if grad_fn:
        notes.append(f"grad_fn=<{grad_fn}>")
    elif requires_grad:
        notes.append("requires_grad=True")
    return notes


def _dtype_is_implied(array: Any, default_dtype: np.dtype) -> bool:
    """True where the printed values, read back as Python numbers, would give the dtype again."""
    if array.dtype == default_dtype:
        return True
    default_complex = "complex128" if default_dtype == np.float64 else "complex64"
    return array.size > 0 and array.dtype.name in ("int64", "bool", default_complex)


def _append_notes(text: str, notes: list[str], indent: int, linewidth: int) -> str:
    """Add the notes behind commas, each on a new line where it would pass ``linewidth``."""
    # Two characters are kept free behind the values, for the comma and the space.
    column = len(text) - (text.rfind("\n") + 1) + 2
    for note in notes:
        if column + len(note) + 2 > linewidth:
            text += ",\n" + " " * indent + note
            column = indent + len(note)
        else:
            text += ", " + note
            column += len(note) + 2
    return text
