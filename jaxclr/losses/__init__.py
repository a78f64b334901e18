"""Losses as pure functions of embeddings.

Each returns this device's share of the loss: the mean of the shares over devices is the loss of the
global batch, and the mean of their gradients is its gradient. `affinity_loss` composes new losses
from the parts in `compose`.
"""

from jaxclr.losses import compose as compose
from jaxclr.losses.adaptive import adaptive_multi_head as adaptive_multi_head
from jaxclr.losses.attraction import cacr as cacr
from jaxclr.losses.attraction import cacr_rbf as cacr_rbf
from jaxclr.losses.batch_prototypes import pauc as pauc
from jaxclr.losses.compose import affinity_loss as affinity_loss
from jaxclr.losses.consistency import co2 as co2
from jaxclr.losses.consistency import hierarchical_consistency as hierarchical_consistency
from jaxclr.losses.contrastive import dcl as dcl
from jaxclr.losses.contrastive import info_nce as info_nce
from jaxclr.losses.contrastive import local_contrast as local_contrast
from jaxclr.losses.contrastive import nt_xent as nt_xent
from jaxclr.losses.contrastive import queue_cross_entropy as queue_cross_entropy
from jaxclr.losses.contrastive import queue_info_nce as queue_info_nce
from jaxclr.losses.contrib.eeg import cross_model as cross_model
from jaxclr.losses.contrib.point_clouds import region_contrast as region_contrast
from jaxclr.losses.contrib.recommenders import contrast_regularizer as contrast_regularizer
from jaxclr.losses.contrib.super_resolution import feature_map_contrast as feature_map_contrast
from jaxclr.losses.contrib.text_to_image import deep_boosting as deep_boosting
from jaxclr.losses.feature_transform import extrapolate_positives as extrapolate_positives
from jaxclr.losses.feature_transform import interpolate_negatives as interpolate_negatives
from jaxclr.losses.gated import gated_contrast as gated_contrast
from jaxclr.losses.graphs import community_contrast as community_contrast
from jaxclr.losses.graphs import community_density as community_density
from jaxclr.losses.graphs import weighted_info_nce as weighted_info_nce
from jaxclr.losses.imbalance import balanced_contrast as balanced_contrast
from jaxclr.losses.labeled import sep_clr as sep_clr
from jaxclr.losses.labeled import sup_con as sup_con
from jaxclr.losses.multiview import average_nt_xent as average_nt_xent
from jaxclr.losses.multiview import dhel as dhel
from jaxclr.losses.multiview import mv_dhel as mv_dhel
from jaxclr.losses.multiview import mv_info_nce as mv_info_nce
from jaxclr.losses.multiview import pairwise_nt_xent as pairwise_nt_xent
from jaxclr.losses.multiview import poly_view as poly_view
from jaxclr.losses.pairwise import mio as mio
from jaxclr.losses.pairwise import triplet as triplet
from jaxclr.losses.predictive import byol as byol
from jaxclr.losses.predictive import guided_stop_gradient as guided_stop_gradient
from jaxclr.losses.predictive import negative_cosine as negative_cosine
from jaxclr.losses.predictive import sim_siam as sim_siam
from jaxclr.losses.prototypes import proto_nce as proto_nce
from jaxclr.losses.prototypes import sinkhorn as sinkhorn
from jaxclr.losses.prototypes import swav as swav
from jaxclr.losses.redundancy import barlow_twins as barlow_twins
from jaxclr.losses.redundancy import uni_grad as uni_grad
from jaxclr.losses.redundancy import uni_grad_correlation as uni_grad_correlation
from jaxclr.losses.redundancy import vicreg as vicreg
from jaxclr.losses.redundancy import w_mse as w_mse
from jaxclr.losses.uniclr import sim_affinity as sim_affinity
from jaxclr.losses.uniclr import sim_trace as sim_trace
from jaxclr.losses.uniclr import sim_whitening as sim_whitening
from jaxclr.losses.uniclr import symmetric_loss as symmetric_loss
from jaxclr.losses.uniformity import alignment as alignment
from jaxclr.losses.uniformity import uniformity as uniformity
