"""Objectives as pure functions of embeddings. Each returns this device's share of the loss of the global batch."""

from jaxclr.losses.compose import affinity_loss as affinity_loss
from jaxclr.losses.contrastive import info_nce as info_nce
from jaxclr.losses.contrastive import nt_xent as nt_xent
from jaxclr.losses.predictive import byol as byol
from jaxclr.losses.predictive import guided_stop_gradient as guided_stop_gradient
from jaxclr.losses.predictive import negative_cosine as negative_cosine
from jaxclr.losses.predictive import sim_siam as sim_siam
from jaxclr.losses.prototypes import pauc as pauc
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
