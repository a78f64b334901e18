"""Objectives as pure functions of embeddings. Each returns this device's share of the loss of the global batch."""

from jaxclr.losses.compose import affinity_loss as affinity_loss
from jaxclr.losses.contrastive import info_nce as info_nce
from jaxclr.losses.contrastive import nt_xent as nt_xent
from jaxclr.losses.predictive import byol as byol
from jaxclr.losses.predictive import negative_cosine as negative_cosine
from jaxclr.losses.predictive import sim_siam as sim_siam
from jaxclr.losses.uniclr import sim_affinity as sim_affinity
from jaxclr.losses.uniclr import sim_trace as sim_trace
from jaxclr.losses.uniclr import sim_whitening as sim_whitening
from jaxclr.losses.uniclr import symmetric_loss as symmetric_loss
