"""CUDA kernels: ``*.cu`` and the Python that chooses their geometry and launches them.

Each family has one stem: ``softmax.cu`` is the device code, ``softmax.py`` decides which of its
kernels fits a shape, allocates the result and launches. All launches pass `launch`.
"""
