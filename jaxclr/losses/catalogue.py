"""What every loss is, at a glance: for tables and for choosing. A test holds it against the public functions."""

import inspect
import re
from collections.abc import Callable
from typing import NamedTuple


class Facts(NamedTuple):
    """Of one loss.

    Attributes:
      needs: what it takes beside two views.
      cost: time for value and gradient by the batch B, the width D and what else counts; memory beside the inputs is a tile,
        or D x D where that is in it.
      together: what is computed over the global batch; "nothing" if rows stand alone.
    """

    needs: str
    cost: str
    together: str


_PAIRS = "B²D"
_ROWS = "BD"
_MOMENTS = "BD²"
_ROW_SUMS = "row sums over all columns"

LOSSES: dict[str, Facts] = {
    # UniCLR
    "sim_affinity": Facts("negatives", _PAIRS, "row sums, asymmetry"),
    "sim_trace": Facts("", "BD² + D³", "mean and covariance"),
    "sim_whitening": Facts("negatives", "B²D + D³", "row sums, asymmetry, mean and covariance"),
    "symmetric_loss": Facts("", _MOMENTS, "three Grams"),
    "affinity_loss": Facts("a transform, a readout, a regulariser", "of its parts", "of its parts"),
    # contrastive
    "dcl": Facts("negatives", _PAIRS, _ROW_SUMS),
    "info_nce": Facts("negatives", _PAIRS, _ROW_SUMS),
    "local_contrast": Facts("negatives, embeddings of stages", "UB²D", _ROW_SUMS),
    "nt_xent": Facts("negatives", _PAIRS, _ROW_SUMS),
    "queue_cross_entropy": Facts("a queue, rows as they are", "BKD", "nothing"),
    "queue_info_nce": Facts("a queue", "BKD", "nothing"),
    "dhel": Facts("negatives", _PAIRS, _ROW_SUMS),
    "mio": Facts("negatives", _PAIRS, "two means over pairs"),
    "triplet": Facts("negatives, a random projection", _PAIRS, "means over pairs"),
    "alignment": Facts("", _ROWS, "nothing"),
    "uniformity": Facts("one view", _PAIRS, "one log-mean-exp over pairs"),
    "adaptive_multi_head": Facts("negatives, heads, a temperature function", "HB²(D + its own)", _ROW_SUMS),
    "extrapolate_positives": Facts("a transform, no loss", _ROWS, "nothing"),
    "interpolate_negatives": Facts("a transform, no loss", "KD", "nothing"),
    # attraction and repulsion by weights, consistency of distributions
    "cacr": Facts("negatives, views", "V²B²D", "row means over all columns"),
    "cacr_rbf": Facts("negatives, views", "VB²D", _ROW_SUMS),
    "co2": Facts("negatives or a queue", _PAIRS, "row sums and means over all columns"),
    "hierarchical_consistency": Facts("a queue, views", "VBKD", "nothing"),
    # positives only
    "byol": Facts("predictions, targets", _ROWS, "nothing"),
    "guided_stop_gradient": Facts("predictions, targets, pairs of images", _ROWS, "nothing"),
    "negative_cosine": Facts("predictions, targets", _ROWS, "nothing"),
    "sim_siam": Facts("predictions, targets", _ROWS, "nothing"),
    # second moments
    "barlow_twins": Facts("", _MOMENTS, "moments and cross-correlation"),
    "uni_grad": Facts("targets, a running correlation", _MOMENTS, "nothing"),
    "uni_grad_correlation": Facts("targets; gives the correlation", _MOMENTS, "the correlation"),
    "vicreg": Facts("", _MOMENTS, "means and covariances"),
    "w_mse": Facts("views, permutations", "TVBD²", "covariances of sub-batches"),
    # prototypes
    "pauc": Facts("prototypes, assignments", "K²D + KD²", "means by prototype"),
    "proto_nce": Facts("prototypes, assignments", "B(B + r)D", "which prototypes are present"),
    "sinkhorn": Facts("scores of prototypes; gives assignments", "BK", "sums by prototype"),
    "swav": Facts("scores of prototypes, views", "VBK", "sums by prototype"),
    # more than two views
    "average_nt_xent": Facts("negatives, views", "VB²D", _ROW_SUMS),
    "mv_dhel": Facts("negatives, views", "VB²D", _ROW_SUMS),
    "mv_info_nce": Facts("negatives, views", "V²B²D", _ROW_SUMS),
    "pairwise_nt_xent": Facts("negatives, views", "V²B²D", _ROW_SUMS),
    "poly_view": Facts("negatives, views", "V²B²D", _ROW_SUMS),
    # labels
    "balanced_contrast": Facts("labels, class centres, reliable negatives", _PAIRS, "means by class"),
    "gated_contrast": Facts("labels, gates", _PAIRS, _ROW_SUMS),
    "sep_clr": Facts("labels, two embeddings", _PAIRS, "log-mean-exps over pairs"),
    "sup_con": Facts("labels, views", "V²B²D", _ROW_SUMS),
    # other modalities
    "community_contrast": Facts("assignments to communities", "BKD", "means by community"),
    "community_density": Facts("assignments to communities, edges", "(B + E)K", "densities"),
    "contrast_regularizer": Facts("negatives", _PAIRS, "means over pairs"),
    "cross_model": Facts("negatives, views of two models", "V²B²D", _ROW_SUMS),
    "deep_boosting": Facts("similarities of two branches", "B²", "maxima of columns"),
    "feature_map_contrast": Facts("feature maps", "(P + N)BHWC", "nothing"),
    "region_contrast": Facts("points, segments, foreground", "P²D", _ROW_SUMS),
    "weighted_info_nce": Facts("negatives, weights of pairs", "B²(D + its own)", _ROW_SUMS),
}


def paper(loss: Callable) -> str:
    """The first paper that a loss's docstring refers to: its arXiv number, or "" if it has none."""
    found = re.search(r"arXiv:(\d{4}\.\d{4,5})", inspect.getdoc(loss) or "")
    return found.group(1) if found else ""
