"""Kernels for the CPU: functions of NumPy arrays, compiled by Numba where it is installed."""
