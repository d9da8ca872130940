"""`Module`: what has parameters, buffers and submodules, and a forward that uses them.

Parameters, buffers and submodules lie in the instance's ``__dict__`` like any other attribute, so
reading one costs no more than that; beside them the module keeps which names are what. Assigning
to an attribute is where names are taken down.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from inspect import signature
from types import FunctionType
from typing import TYPE_CHECKING, Any, TypeVar

from gradlab import dtypes
from gradlab.arguments import show
from gradlab.autograd.modes import no_grad
from gradlab.devices import Device, DeviceLike, find_device
from gradlab.errors import (
    DTypeError,
    NameNotFoundError,
    OptionError,
    StateError,
    message,
    printable,
)
from gradlab.nn import hooks as hooking, state as loading
from gradlab.nn.hooks import Hook, Hooks
from gradlab.nn.parameter import Parameter, UninitializedParameter
from gradlab.nn.registered import Registered
from gradlab.tensor import RemovableHook, Tensor

if TYPE_CHECKING:
    from typing import Self

T = TypeVar("T", bound="Module")

# What a registered name stands for, and the attribute that keeps the names of that kind.
_PARAMETER, _BUFFER, _MODULE = "_parameter_names", "_buffer_names", "_module_names"
_KINDS = (_PARAMETER, _BUFFER, _MODULE)
_CALLED = {_PARAMETER: "a Parameter", _BUFFER: "a tensor", _MODULE: "a Module"}


class Module:
    """Base class of layers, losses and models.

    A subclass makes its parameters and submodules in ``__init__``, after ``super().__init__()``,
    and says in ``forward`` what it computes; calling the module runs `forward` and its hooks.

    >>> import gradlab as gl
    >>> from gradlab import nn
    >>> class Perceptron(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.hidden = nn.Linear(2, 8)
    ...         self.out = nn.Linear(8, 1)
    ...     def forward(self, x):
    ...         return self.out(self.hidden(x).relu())
    >>> net = Perceptron()
    >>> net(gl.ones(5, 2)).shape
    (5, 1)
    >>> [name for name, _ in net.named_parameters()]
    ['hidden.weight', 'hidden.bias', 'out.weight', 'out.bias']
    """

    training: bool

    _parameter_names: dict[str, None]
    _buffer_names: dict[str, bool]  # the bool: it is saved in the state dict
    _module_names: dict[str, None]
    # An instance has its own once a hook is registered. Until then a call costs one look here.
    _hooks: Hooks | None = None

    def __init__(self) -> None:
        # Past __setattr__, which asks for the names.
        self.__dict__.update(training=True, _parameter_names={}, _buffer_names={}, _module_names={})

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the result; every subclass defines it."""
        name = type(self).__name__
        raise NotImplementedError(f"{name}: expected a method forward, got none; define it")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._hooks is None:
            return self.forward(*args, **kwargs)
        return hooking.call(self, self._hooks, args, kwargs)

    # -------------------------------------------------------------------------- attributes

    def __setattr__(self, name: str, value: Any) -> None:
        own = self.__dict__
        held = next((each for each in _KINDS if name in own.get(each, ())), None)
        kind = None
        if isinstance(value, Parameter):
            kind = _PARAMETER
        elif isinstance(value, Module) and held != _PARAMETER:
            kind = _MODULE
        if kind is None and held is not None:
            self._refill(held, name, value)
        elif kind is None or _is_property(type(self), name):
            object.__setattr__(self, name, value)
        else:
            self._register(kind, name, value, replace=True)

    def _refill(self, held: str, name: str, value: Any) -> None:
        """Assign something else to a registered name: a buffer takes tensors, all take None."""
        if value is not None and not (held == _BUFFER and isinstance(value, Tensor)):
            what = "a tensor" if isinstance(value, Tensor) else type(value).__name__
            hint = "delete the attribute first"
            if held == _PARAMETER and isinstance(value, Tensor):
                hint = "wrap it in nn.Parameter(...), or write into the old one with .copy_(...)"
            raise DTypeError(
                message(
                    f"{type(self).__name__}.{name}",
                    expected=f"{_CALLED[held]} or None",
                    got=what,
                    hint=hint,
                )
            )
        self.__dict__[name] = value

    def __delattr__(self, name: str) -> None:
        object.__delattr__(self, name)
        self._forget(name)

    def _forget(self, name: str) -> None:
        for kind in _KINDS:
            self.__dict__.get(kind, {}).pop(name, None)

    def __getattr__(self, name: str) -> Any:
        # Reached only by names that are not there, and by properties that raise AttributeError.
        if isinstance(getattr(type(self), name, None), property):
            return object.__getattribute__(self, name)  # whose own message says what is missing
        text = f"{type(self).__name__} has no attribute {name!r}"
        if name in _KINDS or name == "training":
            text = f"{type(self).__name__}: call super().__init__() before using the module"
        elif not name.startswith("__"):
            import difflib

            close = difflib.get_close_matches(name, [n for n in dir(self) if n[0] != "_"])
            text += f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
        # With `obj` and without `name` the interpreter adds no second suggestion of its own.
        raise AttributeError(text, obj=self)

    def __dir__(self) -> list[str]:
        return [name for name in super().__dir__() if not name[0].isdigit()]

    def _register(
        self, kind: str, name: str, value: Any, *, saved: bool = True, replace: bool = False
    ) -> None:
        self._check_name(kind, name, replace)
        names = self.__dict__[kind]
        if name not in names:
            self._forget(name)
            names[name] = saved
        elif kind == _BUFFER:
            names[name] = saved
        self.__dict__[name] = value

    def _check_name(self, kind: str, name: Any, replace: bool) -> None:
        title = type(self).__name__
        if kind not in self.__dict__:
            raise StateError(
                f"{title}: expected super().__init__() first, got {_CALLED[kind]} for {name!r}; "
                "call super().__init__() at the beginning of __init__"
            )
        if not isinstance(name, str) or not name or "." in name:
            raise StateError(
                message(title, expected="a name without dots, not empty", got=repr(name))
            )
        if name in self.__dict__[kind]:
            return
        # An assignment replaces what a subclass or the instance has, as everywhere in Python.
        # Not hasattr(self, name): for a new name that composes the message of __getattr__.
        taken = hasattr(Module if replace else type(self), name)
        if taken or (not replace and name in self.__dict__):
            raise StateError(
                f"{title}: expected a new name for {_CALLED[kind]}, got {name!r}, which is an "
                "attribute already; choose another name"
            )

    # ------------------------------------------------------------------------ registration

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Add a parameter under a name; None keeps the name for one that is left out."""
        if param is not None and not isinstance(param, Parameter):
            raise DTypeError(
                message(
                    f"{type(self).__name__}.register_parameter",
                    expected="a Parameter or None",
                    got=type(param).__name__,
                    hint="wrap a tensor in nn.Parameter(...)",
                )
            )
        self._register(_PARAMETER, name, param)

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Add a tensor that is saved and moved with the module, but not trained.

        With ``persistent=False`` it is left out of the `state_dict`.
        """
        if tensor is not None and not isinstance(tensor, Tensor):
            raise DTypeError(
                message(
                    f"{type(self).__name__}.register_buffer",
                    expected="a tensor or None",
                    got=type(tensor).__name__,
                    hint="convert it with gradlab.asarray(...)",
                )
            )
        self._register(_BUFFER, name, tensor, saved=persistent)

    def register_module(self, name: str, module: Module | None) -> None:
        """Add a submodule under a name (also `add_module`)."""
        if module is not None and not isinstance(module, Module):
            raise DTypeError(
                message(
                    f"{type(self).__name__}.register_module",
                    expected="a Module or None",
                    got=_got(module),
                    hint=_instance_hint(module),
                )
            )
        self._register(_MODULE, name, module)

    def add_module(self, name: str, module: Module | None) -> None:
        """Add a submodule under a name; it is then also an attribute of that name."""
        self.register_module(name, module)

    @property
    def _parameters(self) -> Registered:
        """The module's own parameters by name, as PyTorch keeps them."""
        return Registered(self, _PARAMETER, self.register_parameter)

    @property
    def _buffers(self) -> Registered:
        """The module's own buffers by name, as PyTorch keeps them."""
        return Registered(self, _BUFFER, self.register_buffer)

    @property
    def _modules(self) -> Registered:
        """The direct submodules by name, as PyTorch keeps them."""
        return Registered(self, _MODULE, self.register_module)

    # --------------------------------------------------------------------------- iteration

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Yield the direct submodules with their names, each once."""
        seen = set()
        for name in self._module_names:
            module = self.__dict__[name]
            if module is not None and module not in seen:
                seen.add(module)
                yield name, module

    def children(self) -> Iterator[Module]:
        """Yield the direct submodules, each once."""
        for _, module in self.named_children():
            yield module

    def named_modules(
        self,
        memo: set[Module] | None = None,
        prefix: str = "",
        remove_duplicate: bool = True,
    ) -> Iterator[tuple[str, Module]]:
        """Yield the module itself and all submodules, at any depth, with their dotted names.

        A shared submodule comes once, under its first name, unless ``remove_duplicate=False``.
        """
        memo = set() if memo is None else memo
        if self in memo:
            return
        if remove_duplicate:
            memo.add(self)
        yield prefix, self
        for name in self._module_names:
            module = self.__dict__[name]
            if module is not None:
                path = f"{prefix}.{name}" if prefix else name
                yield from module.named_modules(memo, path, remove_duplicate)

    def modules(self) -> Iterator[Module]:
        """Yield the module itself and all submodules, each once."""
        seen = set()
        stack: list[Module] = [self]
        while stack:
            module = stack.pop()
            if module not in seen:
                seen.add(module)
                yield module
                own = module.__dict__
                below = [own[name] for name in module._module_names if own[name] is not None]
                stack += below[::-1]

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """Yield the parameters with their dotted names; a shared one once, under its first name.

        ``recurse=False`` keeps to those of the module itself.
        """
        yield from self._named(_PARAMETER, prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """Yield the parameters, each once: what an optimizer is given."""
        yield from self._unnamed(_PARAMETER, recurse)

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield the buffers with their dotted names."""
        yield from self._named(_BUFFER, prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """Yield the buffers, each once."""
        yield from self._unnamed(_BUFFER, recurse)

    def _unnamed(self, kind: str, recurse: bool) -> Iterator[Any]:
        # Asked for at every step of a training loop: putting the names together would double it.
        seen = {None}
        for module in self.modules() if recurse else (self,):
            own = module.__dict__
            for name in getattr(module, kind):
                value = own[name]
                if value not in seen:
                    seen.add(value)
                    yield value

    def _named(
        self, kind: str, prefix: str, recurse: bool, remove_duplicate: bool
    ) -> Iterator[tuple[str, Any]]:
        modules = (
            self.named_modules(prefix=prefix, remove_duplicate=remove_duplicate)
            if recurse
            else [(prefix, self)]
        )
        seen = set()
        for path, module in modules:
            own = module.__dict__
            for name in getattr(module, kind):
                value = own[name]
                if value is None or value in seen:
                    continue
                if remove_duplicate:
                    seen.add(value)
                yield (f"{path}.{name}" if path else name), value

    def get_submodule(self, target: str) -> Module:
        """Return the submodule with a dotted name; the module itself for ``""``."""
        module: Any = self
        for name in target.split(".") if target else ():
            if name not in module._module_names:
                known = ", ".join(map(repr, module._module_names)) or "none"
                raise NameNotFoundError(
                    f"{type(self).__name__}: expected the name of a submodule, got {target!r}; "
                    f"{type(module).__name__} has the submodules {known}, and no {name!r}"
                )
            module = module.__dict__[name]
        return module

    def get_parameter(self, target: str) -> Parameter:
        """Return the parameter with a dotted name, such as ``"0.weight"``."""
        return self._get(_PARAMETER, target)

    def get_buffer(self, target: str) -> Tensor:
        """Return the buffer with a dotted name."""
        return self._get(_BUFFER, target)

    def _get(self, kind: str, target: str) -> Any:
        path, _, name = target.rpartition(".")
        module = self.get_submodule(path)
        names = module.__dict__[kind]
        if name not in names:
            what = kind.strip("_").partition("_")[0]
            known = ", ".join(map(repr, names)) or "none"
            raise NameNotFoundError(
                f"{type(self).__name__}: expected the name of a {what}, got {target!r}; "
                f"{type(module).__name__} has {known}"
            )
        return module.__dict__[name]

    # ------------------------------------------------------------------------------- state

    def _state(self) -> Iterator[tuple[str, Tensor]]:
        """The module's own tensors that are saved, by name."""
        own = self.__dict__
        saved = [name for name, saved in self._buffer_names.items() if saved]
        for name in (*self._parameter_names, *saved):
            if own[name] is not None:
                yield name, own[name]

    def state_dict(self, prefix: str = "", *, keep_vars: bool = False) -> OrderedDict[str, Tensor]:
        """Return all parameters and persistent buffers by their dotted names.

        The tensors share the module's memory and have no history (with ``keep_vars``, they are the
        parameters themselves). Every name begins with ``prefix``, which is given with its dot.
        """
        made: OrderedDict[str, Tensor] = OrderedDict()  # as PyTorch's, which prints as one
        for path, module in self.named_modules(remove_duplicate=False):
            for name, tensor in module._state():
                if isinstance(tensor, UninitializedParameter):
                    raise StateError(
                        f"state_dict: {type(module).__name__} has no {name} before its first "
                        "forward; run the model on one batch first"
                    )
                key = f"{path}.{name}" if path else name
                made[prefix + key] = tensor if keep_vars else tensor.detach()
        return made

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True
    ) -> loading.IncompatibleKeys:
        """Copy values into the parameters and buffers, which keep their memory, dtype and device.

        The values are tensors, NumPy arrays, or anything `gradlab.asarray` takes. With ``strict``
        the names must be those of `state_dict` exactly; shapes must fit always. Raises
        `StateError`, naming everything that is wrong, and has then changed nothing. Returns
        ``(missing_keys, unexpected_keys)``.
        """
        return loading.load(self, state_dict, strict)

    def _loaded(self) -> None:
        """Called after values were loaded into the module's own tensors."""

    # ------------------------------------------------------------ everything at once

    def train(self, mode: bool = True) -> Self:
        """Set the module and its submodules to training (dropout on) or to evaluation."""
        if mode not in (True, False):
            name = f"{type(self).__name__}.train"
            raise OptionError(message(name, expected="True or False", got=repr(mode)))
        for module in self.modules():
            module.training = bool(mode)
        return self

    def eval(self) -> Self:
        """Set the module and its submodules to evaluation; the same as ``train(False)``."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Start or stop recording gradients for all parameters (``False`` freezes them)."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters, or set them to 0 in their memory."""
        for parameter in self.parameters():
            if set_to_none or parameter.grad is None:
                parameter.grad = None
            else:
                parameter.grad.detach_().zero_()

    def apply(self, fn: Callable[[Module], Any]) -> Self:
        """Call ``fn`` on every submodule, innermost first, and on the module itself."""
        for module in self.children():
            module.apply(fn)
        fn(self)
        return self

    def to(
        self, *args: Any, device: DeviceLike = None, dtype: Any = None, non_blocking: bool = False
    ) -> Self:
        """Move all parameters and buffers to a device, cast the floating ones, or both; in place.

        ``net.to("cuda")``, ``net.to(gradlab.float64)``, ``net.to("cpu", gradlab.bfloat16)``,
        ``net.to(tensor)``. The parameters stay the same objects, so optimizers keep them, and
        their gradients go along. Integer buffers are moved, not cast.
        """
        for each in args:
            if isinstance(each, Tensor):
                device, dtype = each.device, each.dtype
            elif isinstance(each, Device) or (isinstance(each, str) and not _names_dtype(each)):
                device = each
            elif each is not None and not isinstance(each, bool):
                dtype = each
        where = None if device is None else find_device(device)
        wanted = None if dtype is None else dtypes.as_dtype(dtype)
        if wanted is not None and not dtypes.is_floating(wanted):
            raise DTypeError(
                message(
                    f"{type(self).__name__}.to",
                    expected="a floating dtype",
                    got=wanted.name,
                    hint="parameters need gradients, which integers cannot have",
                )
            )

        def convert(x: Tensor) -> Tensor:
            return x.to(device=where, dtype=wanted if dtypes.is_floating(x.dtype) else None)

        return self._replace_all(convert)

    def _replace_all(self, convert: Callable[[Tensor], Tensor]) -> Self:
        """Give each parameter, its gradient, and each buffer the memory of its conversion."""
        seen = set()
        with no_grad():
            for module in self.modules():
                for _, tensor in (*module._own(_PARAMETER), *module._own(_BUFFER)):
                    for each in (tensor, tensor.grad):
                        if each is not None and each not in seen:
                            seen.add(each)
                            _convert(each, convert)
        return self

    def _own(self, kind: str) -> list[tuple[str, Any]]:
        own = self.__dict__
        return [(name, own[name]) for name in own[kind] if own[name] is not None]

    def cpu(self) -> Self:
        """Move all parameters and buffers to the CPU."""
        return self.to("cpu")

    def cuda(self, device: int | DeviceLike = None) -> Self:
        """Move all parameters and buffers to a CUDA device, the first if none is given."""
        if isinstance(device, int):
            device = f"cuda:{device}"
        return self.to("cuda" if device is None else device)

    def float(self) -> Self:
        """Cast all floating parameters and buffers to float32."""
        return self.to(dtypes.float32)

    def double(self) -> Self:
        """Cast all floating parameters and buffers to float64."""
        return self.to(dtypes.float64)

    def half(self) -> Self:
        """Cast all floating parameters and buffers to float16."""
        return self.to(dtypes.float16)

    def bfloat16(self) -> Self:
        """Cast all floating parameters and buffers to bfloat16."""
        return self.to(dtypes.bfloat16)

    def type(self, dtype: Any) -> Self:
        """Cast all floating parameters and buffers to ``dtype``."""
        return self.to(dtypes.as_dtype(dtype))

    # ------------------------------------------------------------------------------- hooks

    def _hooks_for(self, name: str, hook: Any) -> Hooks:
        if not callable(hook):
            raise OptionError(message(name, expected="a function", got=show(hook)))
        if self._hooks is None:
            self._hooks = Hooks()
        return self._hooks

    def register_forward_pre_hook(
        self, hook: Hook, *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHook:
        """Call ``hook(module, args)`` before each forward; what it returns replaces the inputs.

        With ``with_kwargs`` it is called as ``hook(module, args, kwargs)`` and returns a pair of
        both, or None. The handle's ``remove()`` takes the hook away.
        """
        hooks = self._hooks_for("register_forward_pre_hook", hook).before
        handle = RemovableHook(hooks, (hook, with_kwargs))  # type: ignore[arg-type]
        if prepend:
            hooking.first(hooks)
        return handle

    def register_forward_hook(
        self, hook: Hook, *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHook:
        """Call ``hook(module, args, output)`` after each forward; what it returns is the output.

        None leaves it as it is. With ``with_kwargs`` the hook is called as
        ``hook(module, args, kwargs, output)``.
        """
        hooks = self._hooks_for("register_forward_hook", hook).after
        handle = RemovableHook(hooks, (hook, with_kwargs))  # type: ignore[arg-type]
        if prepend:
            hooking.first(hooks)
        return handle

    def register_full_backward_hook(self, hook: Hook, prepend: bool = False) -> RemovableHook:
        """Call ``hook(module, grad_input, grad_output)`` once the inputs' gradients are known.

        ``grad_input`` has an entry for each positional argument of `forward`, ``grad_output`` one
        for each output, None where there is no gradient. What the hook returns, if not None,
        replaces ``grad_input``. A module that changes its input in place is refused.
        """
        hooks = self._hooks_for("register_full_backward_hook", hook).backward
        handle = RemovableHook(hooks, hook)
        if prepend:
            hooking.first(hooks)
        return handle

    # -------------------------------------------------------------------------------- repr

    def extra_repr(self) -> str:
        """What stands between the parentheses of the repr, for a subclass to define."""
        return ""

    def _get_name(self) -> str:
        return type(self).__name__

    def __repr__(self) -> str:
        extra = self.extra_repr()
        lines = extra.split("\n") if extra else []
        if len(lines) == 1 and not self._module_names:
            return f"{self._get_name()}({extra})"
        # Names may come from a file.
        lines += [f"({printable(name)}): {self.__dict__[name]!r}" for name in self._module_names]
        return listed(self._get_name(), lines)


def listed(name: str, lines: Iterable[str]) -> str:
    """A repr with one entry per line, as of all modules that hold others."""
    body = "".join(f"\n  {line}" for line in "\n".join(lines).splitlines())
    return f"{name}({body}\n)" if body else f"{name}()"


def _is_property(kind: type, name: str) -> bool:
    """True where the class itself handles assignments to the name."""
    return hasattr(getattr(kind, name, None), "__set__")


def _names_dtype(name: str) -> bool:
    return name in dtypes._BY_NAME


def _got(value: Any) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__


def _instance_hint(value: Any) -> str:
    """What to write in place of a class or a function, where a module was expected."""
    if isinstance(value, type) and issubclass(value, Module):
        return f"make one: {value.__name__}(...)"
    if not isinstance(value, FunctionType):
        return ""
    from gradlab import nn

    wanted = value.__name__.replace("_", "").lower()
    name = next((each for each in nn.__all__ if each.lower() == wanted), None)
    if name is None:
        return "write a Module whose forward calls it"
    options = signature(getattr(nn, name)).parameters.values()
    needs = any(each.default is each.empty and each.kind is not each.VAR_KEYWORD
                for each in options)  # fmt: skip
    return f"wrap it: nn.{name}({'...' if needs else ''})"


def _convert(x: Tensor, convert: Callable[[Tensor], Tensor]) -> None:
    source = x.placeholder() if isinstance(x, UninitializedParameter) else x.detach()
    made = convert(source)
    if made is not source:
        x._replace(made)
