"""What there is to check and to time on a GPU, in calls of less than ten minutes each.

    python3 -m pip install --no-deps --no-build-isolation --editable .    # once; CuPy is there
    python3 -m benchmarks.gpu --check --out DIR      # is everything right?
    python3 -m benchmarks.gpu --time --out DIR       # how fast: all sections, or those named
    python3 -m benchmarks.gpu --time matmul softmax --out DIR
    python3 -m benchmarks.gpu --sanitize --out DIR   # compute-sanitizer: bad accesses, races

Each call writes one JSON file into ``DIR`` (``benchmarks/results`` where none is named) and prints
tables of less than 12,000 characters, with what failed at their end; its exit status is 1 where
anything did. `python -m benchmarks.gpu.table --into README.md` makes the README's table of a file.
A machine that is given back keeps nothing: name a folder that comes back with ``--out``.

``--check`` launches every module of every kernel, forced, and runs every op on its samples. Nothing
is timed whose result was not compared with float64 in the same process (`benchmarks.gpu.verify`):
a case that is wrong has no time, in the file and in the tables, and meets no target. ``--check``
and ``--time`` together check first, and time nothing unless all was right.

Sections (`benchmarks.gpu.sections`) run in processes of their own, since an illegal access ends a
process's use of the GPU. Only CuPy is needed; PyTorch, Triton and compute-sanitizer join in where
they are installed. Where a GPU's time is short, compile beforehand, on a machine without one:

    make cubins ARGS="--arch sm_90a" NVRTC=13.0.88    # the NVRTC of the machine with the GPU
    python3 -m benchmarks.gpu --check --cubins .cubins --out DIR

``--dry-run`` runs all of it on the emulator of the tests, with tiny sizes and no times.
"""
