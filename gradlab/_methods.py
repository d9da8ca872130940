"""The methods of `Tensor` that come from ops; they are attached where each op is declared.

The stub beside this file (``_methods.pyi``) lists them for editors and type checkers. It is made
from the registry by ``python -m gradlab._stubs``, and a test holds it up to date.
"""


class TensorMethods:
    __slots__ = ()
