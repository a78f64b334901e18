"""Methods: heads, a target and an objective; and the names they go by."""

from jaxclr.methods.base import Branch as Branch
from jaxclr.methods.base import Method as Method
from jaxclr.methods.base import MomentumEncoder as MomentumEncoder
from jaxclr.methods.base import Network as Network
from jaxclr.methods.base import Outputs as Outputs
from jaxclr.methods.base import Shared as Shared
from jaxclr.methods.base import Sizes as Sizes
from jaxclr.methods.base import StopGradient as StopGradient
from jaxclr.methods.base import Target as Target
from jaxclr.methods.contrastive import MocoV3 as MocoV3
from jaxclr.methods.contrastive import SimClr as SimClr
from jaxclr.methods.predictive import Byol as Byol
from jaxclr.methods.predictive import SimSiam as SimSiam
from jaxclr.methods.uniclr import SimAffinity as SimAffinity
from jaxclr.methods.uniclr import SimTrace as SimTrace
from jaxclr.methods.uniclr import SimTracePlain as SimTracePlain
from jaxclr.methods.uniclr import SimWhitening as SimWhitening

METHODS: dict[str, type[Method]] = {
    "byol": Byol,
    "moco_v3": MocoV3,
    "sim_affinity": SimAffinity,
    "sim_siam": SimSiam,
    "sim_trace": SimTrace,
    "sim_trace_plain": SimTracePlain,
    "sim_whitening": SimWhitening,
    "simclr": SimClr,
}
