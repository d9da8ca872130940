"""The grad modes as decorators of whatever Python can call, and of what runs in pieces."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect

import pytest

import gradlab as gl
from gradlab.errors import OptionError
from refusals import refusal

MODES = {
    "no_grad()": (gl.no_grad(), (False, False)),
    "no_grad": (gl.no_grad, (False, False)),
    "inference_mode()": (gl.inference_mode(), (False, True)),
    "inference_mode": (gl.inference_mode, (False, True)),
    "inference_mode(False)": (gl.inference_mode(False), (True, False)),
    "enable_grad()": (gl.enable_grad(), (True, False)),
    "enable_grad": (gl.enable_grad, (True, False)),
}


def modes():
    return gl.is_grad_enabled(), gl.is_inference_mode_enabled()


@pytest.fixture(params=[*MODES, "set_grad_enabled(False)"])
def decorated(request):
    """A decorator, and the modes it means."""
    if request.param in MODES:
        return MODES[request.param]
    return gl.set_grad_enabled(False), (False, False)


@pytest.fixture(params=[True, False])
def outside(request):
    """Both modes of a caller."""
    with gl.enable_grad() if request.param else gl.no_grad():
        yield modes()


def test_a_generator_runs_in_the_mode_and_its_caller_does_not(outside, decorated):
    decorate, inside = decorated

    @decorate
    def numbers(first):
        """Two numbers."""
        seen = [modes()]
        try:
            got = yield first
            seen.append(modes())
            try:
                yield got
            except KeyError:
                seen.append(modes())
                yield "caught"
        finally:
            seen.append(modes())
            seen_by.append(seen)
        return "end"

    seen_by = []
    assert inspect.isgeneratorfunction(numbers)
    assert (numbers.__name__, numbers.__doc__) == ("numbers", "Two numbers.")
    running = numbers(1)
    steps = [
        (lambda: next(running), 1),
        (lambda: running.send(2), 2),
        (lambda: running.throw(KeyError()), "caught"),
    ]
    for step, expected in steps:
        assert step() == expected
        assert modes() == outside
    with pytest.raises(StopIteration) as end:
        next(running)
    assert end.value.value == "end"
    assert modes() == outside
    assert seen_by.pop() == [inside] * 4

    for finish in ("close", "forget", "fail"):
        running = numbers(1)
        next(running)
        if finish == "close":
            running.close()
        elif finish == "forget":
            del running
            gc.collect()
        else:
            with pytest.raises(ZeroDivisionError):
                running.throw(ZeroDivisionError())
        assert modes() == outside
        assert seen_by.pop() == [inside] * 2


def test_a_generator_records_nothing():
    x = gl.ones(2, requires_grad=True)

    @gl.no_grad()
    def doubled():
        for _ in range(2):
            yield x * 2

    for y in doubled():
        assert not y.requires_grad
        assert (x * 2).requires_grad
    assert modes() == (True, False)


def test_a_block_around_a_yield_keeps_its_mode():
    @gl.no_grad()
    def mixed():
        with gl.enable_grad():
            yield modes()
            yield modes()
        yield modes()

    found = []
    for each in mixed():
        found.append(each)
        assert modes() == (True, False)
    assert found == [(True, False), (True, False), (False, False)]


def test_generators_in_turns_and_delegated():
    @gl.no_grad()
    def off():
        yield modes()
        return (yield from on())

    @gl.enable_grad()
    def on():
        yield modes()
        return modes()

    @gl.no_grad()
    def outer():
        result = yield from off()
        yield (result, modes())

    expected = [(False, False), (True, False), ((True, False), (False, False))]
    for pair in zip(outer(), outer(), expected, strict=True):
        assert pair == (pair[2],) * 3
        assert modes() == (True, False)


def test_a_generator_that_ignores_its_end():
    @gl.no_grad()
    def stubborn():
        while True:
            try:
                yield
            except GeneratorExit:
                yield

    running = stubborn()
    next(running)
    with pytest.raises(RuntimeError, match="ignored GeneratorExit"):
        running.close()
    assert modes() == (True, False)


def test_coroutines_in_turns(outside, decorated):
    decorate, inside = decorated

    @decorate
    async def work(name):
        found = [modes()]
        for _ in range(3):
            await asyncio.sleep(0)
            found.append(modes())
        return name, found

    async def beside():
        for _ in range(5):
            assert modes() == outside
            await asyncio.sleep(0)

    async def main():
        results = await asyncio.gather(work("a"), beside(), work("b"))
        assert modes() == outside
        return results

    assert inspect.iscoroutinefunction(work)
    a, _, b = asyncio.run(main())
    assert (a, b) == (("a", [inside] * 4), ("b", [inside] * 4))
    assert modes() == outside


def test_a_coroutine_that_is_cancelled():
    found = []

    @gl.no_grad()
    async def waiting():
        try:
            await asyncio.sleep(60)
        finally:
            found.append(modes())

    async def main():
        task = asyncio.ensure_future(waiting())
        await asyncio.sleep(0)
        assert modes() == (True, False)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert modes() == (True, False)

    asyncio.run(main())
    assert found == [(False, False)]


def test_async_generators(outside, decorated):
    decorate, inside = decorated
    found = []

    @decorate
    async def numbers():
        try:
            for i in range(3):
                found.append(modes())
                await asyncio.sleep(0)
                found.append(modes())
                try:
                    found.append((yield i))
                except KeyError:
                    yield "caught"
        finally:
            found.append(modes())

    async def main():
        async for _ in numbers():
            assert modes() == outside
        assert found == [inside, inside, None] * 3 + [inside]
        found.clear()
        running = numbers()
        assert await anext(running) == 0
        assert await running.asend("sent") == 1
        assert modes() == outside
        assert await running.athrow(KeyError()) == "caught"
        await running.aclose()
        assert modes() == outside
        assert found == [inside, inside, "sent", inside, inside, inside]

    assert inspect.isasyncgenfunction(numbers)
    asyncio.run(main())


class Methods:
    """Each of its members tells the modes it runs in."""

    @gl.no_grad()
    def plain(self):
        return self, modes()

    @gl.no_grad
    @staticmethod
    def static(*args):
        return args, modes()

    @gl.no_grad()
    @classmethod
    def of_class(cls):
        return cls, modes()

    @classmethod
    @gl.no_grad
    def of_class_too(cls):
        return cls, modes()

    @gl.no_grad
    @property
    def read(self):
        """What it is."""
        return self, modes()

    @read.setter
    def read(self, value):
        self.got = value, modes()

    @gl.no_grad()
    @functools.cached_property
    def once(self):
        return self, modes()

    @gl.no_grad()
    @staticmethod
    def several():
        yield modes()

    def unlike(self, first):
        return first, modes()

    @gl.no_grad()
    def __call__(self):
        yield modes()


def test_methods():
    made, off = Methods(), (False, False)
    assert made.plain() == (made, off)
    assert made.static(1) == Methods.static(1) == ((1,), off)
    assert made.of_class() == Methods.of_class() == Methods.of_class_too() == (Methods, off)
    assert made.read == (made, off)
    assert Methods.read.__doc__ == "What it is."
    made.read = 3
    assert made.got == (3, (True, False))  # the setter was added afterwards, undecorated
    assert made.once is made.once
    assert made.once == (made, off)
    assert list(made.several()) == list(Methods.several()) == [off]
    assert gl.no_grad(made.unlike)(2) == (2, off)
    assert modes() == (True, False)


def test_setters_and_deleters():
    class Kept:
        def get(self):
            return modes()

        def change(self, value=None):
            seen.append(modes())

        both = gl.no_grad()(property(get, change, change))

    seen = []
    made = Kept()
    made.both = 1
    del made.both
    assert [made.both, *seen] == [(False, False)] * 3


def test_callables_without_a_name():
    def plain(*args):
        return args, modes()

    def generator(*args):
        yield args, modes()

    class Callable:
        def __call__(self, *args):
            return args, modes()

    class Yielding:
        def __call__(self, *args):
            yield args, modes()

    expected = ((1,), (False, False))
    for function in (functools.partial(plain, 1), functools.partial(functools.partial(plain), 1)):
        assert gl.no_grad(function)() == expected
    assert list(gl.no_grad(functools.partial(generator, 1))()) == [expected]
    assert gl.no_grad(Callable())(1) == expected
    assert list(gl.no_grad()(Yielding())(1)) == [expected]
    assert gl.no_grad(len)([1]) == 1


def test_what_is_no_function():
    class Model:
        pass

    for name in ("no_grad", "enable_grad", "inference_mode"):
        decorate = getattr(gl, name)
        for decorating in (decorate, decorate()):
            text = refusal(decorating, Model)
            assert text == (
                f"{name}: expected a function, got the class Model; decorate its methods"
            )
            assert refusal(decorating, "x") == f"{name}: expected a function, got 'x'"
    unbound = functools.partialmethod(len)
    assert refusal(gl.no_grad(), unbound).startswith("no_grad: expected a function, got functools")


def test_a_flag_is_needed():
    with pytest.raises(OptionError) as raised:

        @gl.set_grad_enabled
        def double(x):
            return 2 * x

    assert str(raised.value) == (
        "set_grad_enabled: expected True or False, got the function double"
    )
    assert modes() == (True, False)
    assert refusal(gl.set_grad_enabled, "False").endswith("expected True or False, got 'False'")
