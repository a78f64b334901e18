"""Checks of features and labels that every evaluation starts with."""

import jax
import numpy as np

from jaxclr.errors import UserError

Array = jax.Array


def check_features(name: str, x: np.ndarray | Array) -> None:
    """Raises unless x is a matrix of at least one row."""
    if x.ndim != 2 or x.shape[0] == 0:
        raise ValueError(f"{name} must be [n, D] with n > 0, got shape {x.shape}.")


def check_labeled(
    name: str, x: np.ndarray | Array, y: np.ndarray | Array, classes: int
) -> np.ndarray:
    """Checked labels, one per row of x: int32 on the host, 0..classes-1, or -1 for none."""
    check_features(f"{name}_x", x)
    y = np.asarray(y)
    if y.shape != (x.shape[0],):
        raise ValueError(f"{name}_y must be [{x.shape[0]}], one per row, got shape {y.shape}.")
    if y.dtype.kind not in "iu":
        raise ValueError(f"{name}_y must be integers, got {y.dtype}.")
    if y.min() < -1 or y.max() >= classes:
        raise UserError(
            f"{name} labels must be in 0..{classes - 1} ({classes} classes), "
            f"got {y.min()}..{y.max()}; -1 leaves a row out."
        )
    if y.max() < 0:
        raise UserError(f"No {name} row has a label; all of them are -1.")
    return y.astype(np.int32)


def check_pair(
    train_x: np.ndarray | Array,
    train_y: np.ndarray | Array,
    test_x: np.ndarray | Array,
    test_y: np.ndarray | Array,
    classes: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Checked labels of both splits, whose features must have one width."""
    train_y = check_labeled("train", train_x, train_y, classes)
    test_y = check_labeled("test", test_x, test_y, classes)
    if train_x.shape[1] != test_x.shape[1]:
        raise ValueError(
            f"train_x and test_x differ in width: {train_x.shape[1]} and {test_x.shape[1]}."
        )
    return train_y, test_y


def check_finite(name: str, finite: np.ndarray) -> None:
    """Raises UserError if a row of features, bool [n], holds a NaN or an infinity."""
    bad = np.flatnonzero(~finite)
    if len(bad):
        raise UserError(
            f"{len(bad)} of {len(finite)} {name} images have features that are not finite (NaN), "
            f"the first of them image {bad[0]}: the parameters diverged, or the images are far "
            "from those of training. Evaluate an earlier checkpoint."
        )


def check_known(train: np.ndarray, test: np.ndarray, classes: tuple[str, ...]) -> None:
    """Raises UserError if there is a label in test that train lacks."""
    strange = np.setdiff1d(test, train)
    if len(strange):
        raise UserError(
            f"Class '{classes[strange[0]]}' is in the test split but not in the training split, "
            "from which it cannot be learned. Add images of it to the one, or remove them from the "
            "other."
        )
