"""How good cached features are: nearest neighbours, linear probes, and signs of collapse."""

from jaxclr.evaluation.knn import knn_accuracy, knn_predict
from jaxclr.evaluation.linear import LinearFit, fit_linear, linear_logits, standardize
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
from jaxclr.evaluation.probe import (
    L2_GRID,
    FewLabelProbe,
    LinearProbe,
    few_label_probe,
    linear_probe,
)

__all__ = (
    "FewLabelProbe",
    "L2_GRID",
    "LinearFit",
    "LinearProbe",
    "alignment",
    "augmentation_confusion_ratio",
    "average_relative_confusion",
    "collapse_auc",
    "effective_rank",
    "feature_std",
    "few_label_probe",
    "fit_linear",
    "knn_accuracy",
    "knn_predict",
    "linear_logits",
    "linear_probe",
    "rank_me",
    "spectrum",
    "standardize",
    "total_variance",
    "uniformity",
)
