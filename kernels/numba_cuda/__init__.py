"""The kernels in plain Python, compiled by numba.cuda: the readable definition of each family.

Each file holds its family twice, naive first and then tiled, a few dozen lines each, and adds them
to the ladder as ``"numba_naive"`` and ``"numba_tiled"``. They take any matrix of float32 or
float64, edges included, and are written to be read: the kernels that gradlab uses are in
:mod:`gradlab.kernels.cuda`.
"""
