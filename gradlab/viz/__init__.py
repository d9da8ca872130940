"""Pictures: learning curves, sheets of images, and recorded graphs.

Each function returns its picture, which a notebook shows and ``path`` writes to a file. Graphs need
no other package; for the rest, Matplotlib is imported when something is drawn, and never asked to
open a window.
"""

from gradlab.viz.animator import Animator
from gradlab.viz.board import Point, ProgressBoard
from gradlab.viz.curves import plot_history
from gradlab.viz.graph import graph
from gradlab.viz.images import misclassified, show_images

__all__ = [
    "Animator",
    "Point",
    "ProgressBoard",
    "graph",
    "misclassified",
    "plot_history",
    "show_images",
]
