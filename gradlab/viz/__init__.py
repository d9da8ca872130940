"""Pictures: learning curves and sheets of images.

Matplotlib is imported when something is drawn, and never asked to open a window: each function
returns the figure, which a notebook shows and ``path`` writes to a file.
"""

from gradlab.viz.board import Point, ProgressBoard
from gradlab.viz.curves import plot_history
from gradlab.viz.images import misclassified, show_images

__all__ = ["Point", "ProgressBoard", "misclassified", "plot_history", "show_images"]
