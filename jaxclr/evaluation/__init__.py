"""How good cached features are: nearest neighbours, linear probes, and signs of collapse."""

from jaxclr.evaluation.knn import knn_accuracy
from jaxclr.evaluation.knn import knn_predict
from jaxclr.evaluation.linear import LinearFit
from jaxclr.evaluation.linear import fit_linear
from jaxclr.evaluation.linear import linear_logits
from jaxclr.evaluation.linear import standardize
from jaxclr.evaluation.metrics import alignment
from jaxclr.evaluation.metrics import augmentation_confusion_ratio
from jaxclr.evaluation.metrics import average_relative_confusion
from jaxclr.evaluation.metrics import collapse_auc
from jaxclr.evaluation.metrics import effective_rank
from jaxclr.evaluation.metrics import feature_std
from jaxclr.evaluation.metrics import rank_me
from jaxclr.evaluation.metrics import spectrum
from jaxclr.evaluation.metrics import total_variance
from jaxclr.evaluation.metrics import uniformity
from jaxclr.evaluation.probe import FewLabelProbe
from jaxclr.evaluation.probe import L2_GRID
from jaxclr.evaluation.probe import LinearProbe
from jaxclr.evaluation.probe import few_label_probe
from jaxclr.evaluation.probe import linear_probe

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
