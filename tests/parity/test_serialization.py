"""Files that gradlab writes are read by PyTorch, and the other way round."""

from __future__ import annotations

import pytest

import gradlab as gl

torch = pytest.importorskip("torch")
safetensors_torch = pytest.importorskip("safetensors.torch")

DTYPES = [
    "bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64",
]  # fmt: skip


def values(dtype):
    return [[0, 1, 1], [0, 1, 0]] if dtype == "bool" else [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("dtype", DTYPES)
def test_pytorch_reads_what_gradlab_wrote(tmp_path, dtype):
    path = tmp_path / "state.safetensors"
    gl.save({"x": gl.tensor(values(dtype), dtype=dtype).T}, path)
    x = safetensors_torch.load_file(path)["x"]
    assert x.dtype == getattr(torch, dtype)
    assert torch.equal(x, torch.tensor(values(dtype), dtype=x.dtype).T)


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradlab_reads_what_pytorch_wrote(tmp_path, dtype):
    path = tmp_path / "state.safetensors"
    safetensors_torch.save_file(
        {"x": torch.tensor(values(dtype), dtype=getattr(torch, dtype))}, path
    )
    x = gl.load(path)["x"]
    assert x.dtype.name == dtype
    assert x.tolist() == torch.tensor(values(dtype), dtype=getattr(torch, dtype)).tolist()


def test_a_model_goes_from_one_to_the_other(tmp_path):
    there = torch.nn.Sequential(
        torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.ReLU(), torch.nn.Linear(3, 2)
    )
    here = gl.nn.Sequential(
        gl.nn.Linear(4, 3), gl.nn.BatchNorm1d(3), gl.nn.ReLU(), gl.nn.Linear(3, 2)
    )
    safetensors_torch.save_file(there.state_dict(), tmp_path / "there")
    here.load_state_dict(gl.load(tmp_path / "there"))
    gl.save(here.state_dict(), tmp_path / "here")
    back = safetensors_torch.load_file(tmp_path / "here")
    assert back.keys() == there.state_dict().keys()
    for name, value in there.state_dict().items():
        assert torch.equal(back[name], value)


def test_torch_save_is_named_for_what_it_is(tmp_path):
    path = tmp_path / "model.pt"
    torch.save({"x": torch.ones(2)}, path)
    with pytest.raises(gl.errors.CheckpointError, match=r"model\.pt is a pickle, as torch\.save"):
        gl.load(path)
