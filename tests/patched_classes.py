"""Classes that get methods added, as the course notes add them, and lose them again."""

from __future__ import annotations

import contextlib
import types
from collections.abc import Iterator


@contextlib.contextmanager
def classes_as_they_were(module: types.ModuleType) -> Iterator[None]:
    """Take back the methods that are added to a module's classes, and what is put into it."""
    names = dict(vars(module))
    before = {each: dict(vars(each)) for each in names.values() if isinstance(each, type)}
    try:
        yield
    finally:
        vars(module).update(names)
        for each, attributes in before.items():
            for name in set(vars(each)) - set(attributes):
                delattr(each, name)
            for name, value in attributes.items():
                if vars(each).get(name) is not value:
                    setattr(each, name, value)
