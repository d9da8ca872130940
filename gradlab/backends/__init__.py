"""What runs the array work of a device: NumPy for ``cpu``, CuPy for ``cuda``."""

from gradlab.backends import cudnn as cudnn, mps as mps
