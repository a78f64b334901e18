"""Losses of feature maps, for the restoration of images."""

import jax
import jax.numpy as jnp

from jaxclr.affinity import AxisName, check_floats, unit_rows

Array = jax.Array


def feature_map_contrast(
    anchor: Array, positives: Array, negatives: Array, *, axis_name: AxisName = None
) -> Array:
    r"""Cross-entropy of sharp against blurred maps, by cosine with the restored map (PCL-SR).

    .. math:: \frac{1}{PB} \sum_{p,i} \Big[ \log \Big( e^{s_{pi}} + \sum_n e^{t_{ni}} \Big)
       - s_{pi} \Big], \qquad
       s_{pi} = \frac{1}{HW} \sum_{xy} \cos(a_{ixy}, u_{pixy})

    and t likewise of the negatives. There is no temperature. One layer's maps: average the losses
    of several layers. Gradients reach the anchor, which the official generator step, run without
    gradient, leaves out by mistake.

    Needs: feature maps.
    Cost: (P + N)BHWC.
    Global batch: nothing.

    >>> maps = jax.random.normal(jax.random.key(0), (3, 2, 4, 4, 3))
    >>> round(float(losses.feature_map_contrast(maps[0], maps[1:2], maps[2:])), 2)
    0.7

    Args:
      anchor: a, maps of the restored images, [b, H, W, C], any float dtype; channels are normalized
        here at every pixel.
      positives: u, maps of sharp versions of the same images, [P, b, H, W, C]; gradients reach them
        unless the caller stops them.
      negatives: maps of blurred versions, [N, b, H, W, C]; those of other images of the batch can
        be added to them.
      axis_name: mapped axis over which the batch is spread; the share is of this device's images
        either way.

    Returns:
      This device's share of the loss.

    Raises:
      TypeError: an input is not an array of floats.
      ValueError: shapes do not fit.

    References:
      Wu et al., A Practical Contrastive Learning Framework for Single-Image Super-Resolution, 2021
      (arXiv:2111.13924).
    """
    del axis_name  # images are independent
    anchor, positives, negatives = check_floats(
        anchor=(anchor, "b H W C"),
        positives=(positives, "P b H W C"),
        negatives=(negatives, "N b H W C"),
    )
    unit = unit_rows(anchor)[None]
    to = lambda maps: jnp.mean(jnp.sum(unit * unit_rows(maps), axis=-1), axis=(2, 3))
    against = jax.nn.logsumexp(to(negatives), axis=0, keepdims=True)
    return jnp.mean(jax.nn.softplus(against - to(positives)))
