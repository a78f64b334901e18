"""Objectives as pure functions of embeddings. Each returns this device's share of the loss of the global batch."""

from jaxclr.losses.adaptive import adaptive_multi_head as adaptive_multi_head
from jaxclr.losses.contrastive import dcl as dcl
from jaxclr.losses.contrastive import info_nce as info_nce
from jaxclr.losses.contrastive import local_contrast as local_contrast
from jaxclr.losses.contrastive import nt_xent as nt_xent
from jaxclr.losses.contrastive import queue_cross_entropy as queue_cross_entropy
from jaxclr.losses.contrastive import queue_info_nce as queue_info_nce
from jaxclr.losses.feature_transform import extrapolate_positives as extrapolate_positives
from jaxclr.losses.feature_transform import interpolate_negatives as interpolate_negatives
from jaxclr.losses.gated import gated_contrast as gated_contrast
from jaxclr.losses.labelled import sep_clr as sep_clr
from jaxclr.losses.labelled import sup_con as sup_con
from jaxclr.losses.predictive import byol as byol
from jaxclr.losses.predictive import negative_cosine as negative_cosine
from jaxclr.losses.predictive import sim_siam as sim_siam
from jaxclr.losses.uniclr import sim_affinity as sim_affinity
from jaxclr.losses.uniclr import sim_trace as sim_trace
from jaxclr.losses.uniclr import sim_whitening as sim_whitening
from jaxclr.losses.uniclr import symmetric_loss as symmetric_loss
