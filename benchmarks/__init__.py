"""gradlab timed beside the libraries a user would otherwise pick.

`python -m benchmarks` runs the cases of `benchmarks.suites` in one process and prints one table of
ratios; `python -m benchmarks.table` makes the README's table of the figures it leaves in
benchmarks/results; `python -m benchmarks.pieces` shows where the time of a training step goes.
What was tried, and what came of it, stands in NOTES.md.
"""
