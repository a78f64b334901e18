"""How good cached features are: nearest neighbors, linear probes, and signs of collapse."""

from jaxclr.evaluation.few_labels import ALPHAS, FewLabelProbe, few_label_probe
from jaxclr.evaluation.knn import knn_accuracy, knn_predict
from jaxclr.evaluation.linear import (
    L2_GRID,
    LinearFit,
    LinearProbe,
    Scale,
    feature_scale,
    fit_linear,
    linear_logits,
    linear_probe,
)
from jaxclr.evaluation.metrics import (
    alignment,
    augmentation_confusion_ratio,
    average_relative_confusion,
    collapse_auc,
    effective_rank,
    feature_std,
    rank_me,
    spectrum,
    total_variance,
    uniformity,
)

__all__ = (
    "ALPHAS",
    "FewLabelProbe",
    "L2_GRID",
    "LinearFit",
    "LinearProbe",
    "Scale",
    "alignment",
    "augmentation_confusion_ratio",
    "average_relative_confusion",
    "collapse_auc",
    "effective_rank",
    "feature_scale",
    "feature_std",
    "few_label_probe",
    "fit_linear",
    "knn_accuracy",
    "knn_predict",
    "linear_logits",
    "linear_probe",
    "rank_me",
    "spectrum",
    "total_variance",
    "uniformity",
)
