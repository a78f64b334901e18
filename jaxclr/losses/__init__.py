"""Objectives as pure functions of embeddings. Each returns this device's share of the loss of the global batch."""

from jaxclr.losses.attraction import cacr as cacr
from jaxclr.losses.attraction import cacr_rbf as cacr_rbf
from jaxclr.losses.consistency import co2 as co2
from jaxclr.losses.consistency import hierarchical_consistency as hierarchical_consistency
from jaxclr.losses.contrastive import info_nce as info_nce
from jaxclr.losses.contrastive import nt_xent as nt_xent
from jaxclr.losses.multiview import average_nt_xent as average_nt_xent
from jaxclr.losses.multiview import dhel as dhel
from jaxclr.losses.multiview import mv_dhel as mv_dhel
from jaxclr.losses.multiview import mv_info_nce as mv_info_nce
from jaxclr.losses.multiview import pairwise_nt_xent as pairwise_nt_xent
from jaxclr.losses.multiview import poly_view as poly_view
from jaxclr.losses.pairwise import mio as mio
from jaxclr.losses.pairwise import triplet as triplet
from jaxclr.losses.predictive import byol as byol
from jaxclr.losses.predictive import negative_cosine as negative_cosine
from jaxclr.losses.predictive import sim_siam as sim_siam
from jaxclr.losses.uniclr import sim_affinity as sim_affinity
from jaxclr.losses.uniclr import sim_trace as sim_trace
from jaxclr.losses.uniclr import sim_whitening as sim_whitening
from jaxclr.losses.uniclr import symmetric_loss as symmetric_loss
from jaxclr.losses.uniformity import alignment as alignment
from jaxclr.losses.uniformity import uniformity as uniformity
