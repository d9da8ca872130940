"""The exception types of gradlab and the one formatter that writes their messages.

Every message follows one form, in the user's terms and on one line::

    operation: expected <what would have worked>, got <what came>; <what to do>

Each type also derives from the built-in exception a NumPy or PyTorch user would catch.
"""

from __future__ import annotations

import numpy as np

from gradlab._environment import pip_install


class GradlabError(Exception):
    """Base class of all errors that gradlab raises on purpose.

    As text it is safe to print, whatever names it holds; a compiler's log keeps its lines.
    """

    def __str__(self) -> str:
        # Not super(): KeyError would show the repr of its message, quotes and all.
        return "\n".join(map(printable, Exception.__str__(self).expandtabs().split("\n")))


class ShapeError(GradlabError, ValueError):
    """Shapes that do not fit together."""


class DTypeError(GradlabError, TypeError):
    """A dtype that the operation is not defined for."""


class AxisError(GradlabError, IndexError, ValueError):
    """An axis or an index outside the range of a tensor."""


class LinAlgError(GradlabError, np.linalg.LinAlgError, RuntimeError):
    """A matrix without an inverse, or without the factorization asked for."""


class DeviceError(GradlabError, RuntimeError):
    """A device that is missing, or tensors on different devices."""


class GradientError(GradlabError, RuntimeError):
    """A misuse of automatic differentiation."""


class OptionError(GradlabError, ValueError):
    """An argument outside the values it may take."""


class DataError(GradlabError, ValueError):
    """Data (a file, a data set, labels) that cannot be used as given."""


class StateError(GradlabError, KeyError, RuntimeError):
    """A state dict that does not fit the object it is loaded into."""


class NameNotFoundError(GradlabError, AttributeError):
    """A name that a module, or another object, does not hold."""


class CheckpointError(GradlabError, RuntimeError):
    """A file of tensors or a checkpoint that is damaged, altered or of another kind."""


class MissingFileError(CheckpointError, FileNotFoundError):
    """A file of tensors that is not there."""


class FileError(GradlabError, OSError):
    """A file that cannot be written: a full disk, a missing permission."""


class NonFiniteLossError(GradlabError, ArithmeticError):
    """A loss that became NaN or infinite while training."""


class OutOfMemoryError(GradlabError, MemoryError):
    """Memory that a device, or the host, does not have."""


class CompileError(GradlabError, RuntimeError):
    """A CUDA kernel that does not compile."""


class LaunchError(GradlabError, RuntimeError):
    """A CUDA kernel that failed, or that the GPU refused to run."""


class NotSupportedError(GradlabError, NotImplementedError):
    """Something that an object of this kind does not have."""


class MissingDependencyError(GradlabError, ImportError):
    """An optional package that is not installed."""


_LONGEST = 1000  # characters of a value in a message


def message(operation: str, *, expected: str = "", got: str = "", hint: str = "") -> str:
    """Return ``operation: expected …, got …; hint`` leaving out what is empty.

    >>> message("mm", expected="two matrices", got="shapes (3,) and (3, 2)", hint="use mv")
    'mm: expected two matrices, got shapes (3,) and (3, 2); use mv'
    """
    if "\n" in str(got):  # the repr of a tensor or an array
        got = " ".join(got.split())
    if len(got) > _LONGEST:
        got = f"{got[: _LONGEST - 100]} ... {got[-80:]}"
    parts = [f"expected {expected}" if expected else "", f"got {got}" if got else ""]
    body = ", ".join(part for part in parts if part)
    # What came may be text from a file or a server.
    return printable(f"{operation}: {body}" + (f"; {hint}" if hint and body else hint))


def printable(text: object) -> str:
    r"""Return ``str(text)`` with everything a terminal would act on escaped, as `repr` escapes it.

    Names of metrics, keys, files and URLs may come from elsewhere. Control characters, line breaks,
    marks that turn the direction of text, and surrogates become visible; all else stays.

    >>> printable("loss\x1b[2J\n")
    'loss\\x1b[2J\\n'
    """
    text = str(text)
    if text.isprintable():
        return text
    escaped = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return "".join(escaped)


def missing_dependency(package: str, extra: str, purpose: str) -> MissingDependencyError:
    """The error for a package that is not installed: what needs it, the line that installs it.

    ``extra`` is the extra of gradlab that lists the package, "" where gradlab always needs it.
    """
    return MissingDependencyError(
        f"{purpose} needs the package {package}, which is not installed; "
        f"run: {pip_install(extra, package)}"
    )
