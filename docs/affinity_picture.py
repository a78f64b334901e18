"""The picture of the README: the affinity matrix before, in the middle of and after training.

    python docs/affinity_picture.py         trains for a minute, and writes docs/affinity.png

Fixed test digits sorted by class, at the snapshots of a run of experiments/digits.py with
SimAffinity: rows are one view of each digit, columns another.
"""

import pathlib
import sys
import tempfile

import matplotlib
import numpy as np

ROOT = pathlib.Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "experiments")]

import digits  # noqa: E402

import jaxclr  # noqa: E402
from jaxclr.runs.snapshots import read_labels, read_snapshot, snapshot_steps  # noqa: E402


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        jaxclr.train(digits.config("sim_affinity"), out=folder + "/run")
        draw(pathlib.Path(folder) / "run", ROOT / "docs" / "affinity.png")


def draw(run: pathlib.Path, out: pathlib.Path) -> None:
    """The first, the middle and the last snapshot of a run side by side."""
    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    steps = snapshot_steps(run / "snapshots")
    steps = [steps[0], steps[len(steps) // 2], steps[-1]]
    figure, axes = plt.subplots(1, 3, figsize=(9, 3.2), layout="constrained")
    for axis, step, name in zip(axes, steps, ("before", "during", "after"), strict=True):
        snapshot = read_snapshot(run / "snapshots" / f"{step}.npz")
        labels = read_labels(run / "snapshots" / "labels.npz", snapshot)
        assert labels is not None
        order = np.argsort(labels.queries[: len(snapshot.rows)], kind="stable")
        matrix = snapshot.rows[order] @ snapshot.columns[order].T
        shown = axis.imshow(matrix, cmap="RdBu_r", vmin=-1, vmax=1, interpolation="none")
        axis.set(title=f"{name}: step {step:,}", xticks=[], yticks=[])
    axes[0].set(ylabel="first view", xlabel="second view")
    figure.colorbar(shown, ax=axes, label="cosine", shrink=0.8)
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    main()
