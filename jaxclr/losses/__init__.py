"""Objectives as pure functions of embeddings. Each returns this device's share of the loss of the global batch."""

from jaxclr.losses.contrastive import info_nce as info_nce
from jaxclr.losses.contrastive import nt_xent as nt_xent
from jaxclr.losses.feature_maps import feature_map_contrast as feature_map_contrast
from jaxclr.losses.graphs import community_contrast as community_contrast
from jaxclr.losses.graphs import community_density as community_density
from jaxclr.losses.graphs import weighted_info_nce as weighted_info_nce
from jaxclr.losses.imbalance import balanced_contrast as balanced_contrast
from jaxclr.losses.points import region_contrast as region_contrast
from jaxclr.losses.predictive import byol as byol
from jaxclr.losses.predictive import negative_cosine as negative_cosine
from jaxclr.losses.predictive import sim_siam as sim_siam
from jaxclr.losses.retrieval import deep_boosting as deep_boosting
from jaxclr.losses.sequences import contrast_regularizer as contrast_regularizer
from jaxclr.losses.signals import cross_model as cross_model
from jaxclr.losses.uniclr import sim_affinity as sim_affinity
from jaxclr.losses.uniclr import sim_trace as sim_trace
from jaxclr.losses.uniclr import sim_whitening as sim_whitening
from jaxclr.losses.uniclr import symmetric_loss as symmetric_loss
