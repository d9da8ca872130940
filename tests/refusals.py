"""What bad input is answered with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from gradlab.errors import GradlabError


def refusal(call: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
    """The text of the error that a call ends in: one of gradlab's, in one line."""
    with pytest.raises(GradlabError) as raised:
        call(*args, **kwargs)
    text = str(raised.value)
    assert "\n" not in text
    return text


@contextmanager
def refuses(kind: type[Exception], text: str) -> Iterator[None]:
    """The block raises ``kind`` with a message that contains ``text``."""
    with pytest.raises(kind) as raised:
        yield
    assert text in str(raised.value)
