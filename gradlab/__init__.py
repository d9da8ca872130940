"""transitional: assembled by hand when all families are in"""
__version__ = "0.1.0"
import importlib as _il, pkgutil as _pk
from gradlab import dtypes, errors, devices
from gradlab.dtypes import *
from gradlab.dtypes import bool_ as bool
from gradlab.devices import Device, device, synchronize
from gradlab.formatting import set_printoptions, printoptions, get_printoptions
from gradlab.tensor import Tensor
import gradlab.ops as _ops
for _m in _pk.iter_modules(_ops.__path__):
    if _m.name in ("core", "samples"): continue
    try:
        _mod = _il.import_module("gradlab.ops." + _m.name)
    except Exception as _e:
        import sys; print("skipping", _m.name, repr(_e)[:200], file=sys.stderr); continue
    for _n, _v in vars(_mod).items():
        if not _n.startswith("_") and callable(_v) and getattr(_v, "__module__", "") == _mod.__name__ or _n in ("default_generator",):
            globals()[_n] = _v
from gradlab.autograd import *
from gradlab import autograd
for _n in ("nn", "optim", "data", "training", "viz", "testing"):
    try:
        globals()[_n] = _il.import_module("gradlab." + _n)
    except ModuleNotFoundError as _e:
        pass
try:
    from gradlab.serialization import save, load
except ModuleNotFoundError: pass
