"""When features count as collapsed, and what usually helps."""

LEAST_RANK = 4.0
LEAST_VARIANCE = 0.05

_POINT = (
    "the embeddings are contracting to a point: total variance of their unit rows {variance:.3g}, "
    "bound {bound:g}. What usually helps: something that keeps them apart (negatives, whitening, a "
    "variance term), or for objectives of positives alone a predictor with stop-gradient or a "
    "momentum encoder; a norm after the projector's last layer; a lower learning rate or a longer "
    "warm-up."
)
_FEW = (
    "the embeddings use few directions: effective rank of their centered covariance {rank:.3g} "
    "of at most {width}, bound {bound:g}. What usually helps: whitening or a covariance term "
    "(sim_whitening, sim_trace, vicreg, barlow_twins), a lower temperature, weaker augmentation, a "
    "larger batch, a deeper or wider projector, a lower learning rate or a longer warm-up."
)


def collapse_warning(*, effective_rank: float, total_variance: float, width: int) -> str | None:
    """What is wrong with features and what usually helps, or None if nothing is.

    Rounding noise around a point has a high rank, so the variance is checked first.

    Args:
      effective_rank: of the centered covariance of unit rows, `metrics.effective_rank`.
      total_variance: of unit rows, `metrics.total_variance`; below LEAST_VARIANCE they are a point.
      width: the highest rank that there can be; below LEAST_RANK, or an eighth of the width if
        that is less, features use few directions.
    """
    if total_variance < LEAST_VARIANCE:
        return _POINT.format(variance=total_variance, bound=LEAST_VARIANCE)
    least = min(LEAST_RANK, max(width / 8, 1.1))
    if effective_rank < least:
        return _FEW.format(rank=effective_rank, width=width, bound=least)
    return None
