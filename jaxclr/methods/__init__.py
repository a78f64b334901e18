"""Methods: heads, a target and an objective. METHODS maps names to methods."""

from jaxclr.methods.adaptive_temperature import Amcl as Amcl
from jaxclr.methods.base import Branch as Branch
from jaxclr.methods.base import Method as Method
from jaxclr.methods.base import MomentumEncoder as MomentumEncoder
from jaxclr.methods.base import Network as Network
from jaxclr.methods.base import Outputs as Outputs
from jaxclr.methods.base import Predictive as Predictive
from jaxclr.methods.base import Shared as Shared
from jaxclr.methods.base import Sizes as Sizes
from jaxclr.methods.base import StopGradient as StopGradient
from jaxclr.methods.base import Target as Target
from jaxclr.methods.common_salient import SepClr as SepClr
from jaxclr.methods.contrastive import Dcl as Dcl
from jaxclr.methods.contrastive import Dclw as Dclw
from jaxclr.methods.contrastive import MocoV3 as MocoV3
from jaxclr.methods.contrastive import SimClr as SimClr
from jaxclr.methods.image_text import Clip as Clip
from jaxclr.methods.image_text import SigLip as SigLip
from jaxclr.methods.imported import Imported as Imported
from jaxclr.methods.kmeans_prototypes import Pauc as Pauc
from jaxclr.methods.kmeans_prototypes import Pcl as Pcl
from jaxclr.methods.local import Loco as Loco
from jaxclr.methods.moco_v2 import Co2 as Co2
from jaxclr.methods.moco_v2 import Ft as Ft
from jaxclr.methods.moco_v2 import MocoV2 as MocoV2
from jaxclr.methods.moco_v2 import ReSsl as ReSsl
from jaxclr.methods.multiview import Cacr as Cacr
from jaxclr.methods.multiview import CacrMocoV3 as CacrMocoV3
from jaxclr.methods.multiview import MvDhel as MvDhel
from jaxclr.methods.multiview import MvInfoNce as MvInfoNce
from jaxclr.methods.neighbors import NnByol as NnByol
from jaxclr.methods.neighbors import NnClr as NnClr
from jaxclr.methods.pairwise import Mio as Mio
from jaxclr.methods.pairwise import Trip as Trip
from jaxclr.methods.pairwise import TripRoma as TripRoma
from jaxclr.methods.patches import PatchNetwork as PatchNetwork
from jaxclr.methods.prototypes import SwAv as SwAv
from jaxclr.methods.redundancy import BarlowTwins as BarlowTwins
from jaxclr.methods.redundancy import FroSsl as FroSsl
from jaxclr.methods.redundancy import LeJepa as LeJepa
from jaxclr.methods.redundancy import Mmcr as Mmcr
from jaxclr.methods.redundancy import TiCo as TiCo
from jaxclr.methods.redundancy import UniGrad as UniGrad
from jaxclr.methods.redundancy import VibcReg as VibcReg
from jaxclr.methods.redundancy import VicReg as VicReg
from jaxclr.methods.redundancy import WMse as WMse
from jaxclr.methods.self_distillation import Byol as Byol
from jaxclr.methods.self_distillation import ByolGsg as ByolGsg
from jaxclr.methods.self_distillation import Dino as Dino
from jaxclr.methods.self_distillation import DirectCopy as DirectCopy
from jaxclr.methods.self_distillation import DirectPred as DirectPred
from jaxclr.methods.self_distillation import Ibot as Ibot
from jaxclr.methods.self_distillation import SimSiam as SimSiam
from jaxclr.methods.self_distillation import SimSiamGsg as SimSiamGsg
from jaxclr.methods.supervised import Hydra as Hydra
from jaxclr.methods.supervised import SupCon as SupCon
from jaxclr.methods.uniclr import SimAffinity as SimAffinity
from jaxclr.methods.uniclr import SimTrace as SimTrace
from jaxclr.methods.uniclr import SimTracePlain as SimTracePlain
from jaxclr.methods.uniclr import SimWhitening as SimWhitening
from jaxclr.methods.uniclr_running import SimTraceRunning as SimTraceRunning
from jaxclr.methods.uniclr_running import SimWhiteningRunning as SimWhiteningRunning
from jaxclr.methods.uniformity import AlignUniform as AlignUniform

METHODS: dict[str, type[Method]] = {
    "align_uniform": AlignUniform,
    "amcl": Amcl,
    "barlow_twins": BarlowTwins,
    "byol": Byol,
    "byol_gsg": ByolGsg,
    "cacr": Cacr,
    "cacr_moco_v3": CacrMocoV3,
    "clip": Clip,
    "co2": Co2,
    "dcl": Dcl,
    "dclw": Dclw,
    "dino": Dino,
    "direct_copy": DirectCopy,
    "direct_pred": DirectPred,
    "frossl": FroSsl,
    "ft": Ft,
    "hydra": Hydra,
    "ibot": Ibot,
    "lejepa": LeJepa,
    "loco": Loco,
    "mio": Mio,
    "mmcr": Mmcr,
    "moco_v2": MocoV2,
    "moco_v3": MocoV3,
    "mv_dhel": MvDhel,
    "mv_info_nce": MvInfoNce,
    "nnbyol": NnByol,
    "nnclr": NnClr,
    "pauc": Pauc,
    "pcl": Pcl,
    "ressl": ReSsl,
    "sep_clr": SepClr,
    "siglip": SigLip,
    "sim_affinity": SimAffinity,
    "sim_siam": SimSiam,
    "sim_siam_gsg": SimSiamGsg,
    "sim_trace": SimTrace,
    "sim_trace_plain": SimTracePlain,
    "sim_trace_running": SimTraceRunning,
    "sim_whitening": SimWhitening,
    "sim_whitening_running": SimWhiteningRunning,
    "simclr": SimClr,
    "sup_con": SupCon,
    "swav": SwAv,
    "tico": TiCo,
    "trip": Trip,
    "trip_roma": TripRoma,
    "uni_grad": UniGrad,
    "vibcreg": VibcReg,
    "vicreg": VicReg,
    "w_mse": WMse,
}
"""The methods by the names that `--method` takes."""
