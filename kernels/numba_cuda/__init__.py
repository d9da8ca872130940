"""The kernels in plain Python, compiled by numba.cuda: the readable definition of each family."""
