"""The stub that editors and type checkers read says what the tensor can do."""

from __future__ import annotations

from gradlab import _stubs
from gradlab._methods import TensorMethods
from gradlab.tensor import Tensor


def test_stub_is_up_to_date() -> None:
    text = _stubs.PATH.read_text(encoding="utf-8")
    assert text == _stubs.render(), "run: python -m gradlab._stubs"


def test_every_method_has_a_docstring() -> None:
    found = _stubs.methods()
    named = {name: value for name, value in found.items() if not name.startswith("__")}
    assert [name for name, value in named.items() if not value.__doc__] == []


def test_methods_stand_on_the_tensor_itself() -> None:
    # The mixin only carries the stub: at run time it adds neither slots nor look-ups.
    assert TensorMethods.__slots__ == ()
    assert "sum" in vars(Tensor)
