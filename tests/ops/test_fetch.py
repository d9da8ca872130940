"""Many numbers come from a device at once."""

from __future__ import annotations

import gradlab as gl
from gradlab.ops.fetch import fetch


def test_numbers_take_the_place_of_tensors():
    values = [
        1.5,
        gl.tensor(2),
        "text",
        gl.tensor([[3.5]], requires_grad=True),
        gl.tensor(4.0, dtype=gl.float64),
        None,
    ]
    found = fetch(values)
    assert found == [1.5, 2, "text", 3.5, 4.0, None]
    assert type(found[1]) is int
    assert isinstance(values[1], gl.Tensor), "the list given is left as it is"
    assert fetch([]) == []


def test_one_transfer_for_each_dtype_and_device(fake_cuda):
    values = [gl.tensor(float(i), device=f"cuda:{i % 2}") for i in range(20)]
    values += [gl.tensor(i, device="cuda") for i in range(5)]
    gl.cuda.reset_statistics()
    assert fetch(values) == [*map(float, range(20)), *range(5)]
    assert gl.cuda.statistics().copies_to_host == 3
