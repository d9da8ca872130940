"""What runs the array work of a device: NumPy for ``cpu``, CuPy for ``cuda``."""
