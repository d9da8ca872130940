"""Everything that is to be checked and timed on a GPU, in one command of under 8 minutes.

`python -m benchmarks.gpu` (or `make gpu`) runs the sections of `sections`, each in a process of
its own, since an illegal access ends a process's use of the GPU; prints what it found, and writes
one JSON file, from which `python -m benchmarks.gpu.table` makes the README's table. It needs
nothing but CuPy; PyTorch, Triton and compute-sanitizer join in where they are installed.

``--dry-run`` runs all of it on the emulator of the tests, with tiny sizes and no times.
"""
