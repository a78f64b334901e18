"""Protocols by which a run is evaluated, by the name that the command line gives them."""

from jaxclr.evaluation.protocols.arc import Arc as Arc
from jaxclr.evaluation.protocols.clusters import ClusterAgreement as ClusterAgreement
from jaxclr.evaluation.protocols.fine_tuning import FineTune as FineTune
from jaxclr.evaluation.protocols.fine_tuning import Semi as Semi
from jaxclr.evaluation.protocols.frozen import FewShot as FewShot
from jaxclr.evaluation.protocols.frozen import Knn as Knn
from jaxclr.evaluation.protocols.frozen import Linear as Linear
from jaxclr.evaluation.protocols.frozen import Transfer as Transfer
from jaxclr.evaluation.protocols.protocol import Protocol as Protocol
from jaxclr.evaluation.protocols.protocol import Result as Result

PROTOCOLS: dict[str, type[Protocol]] = {
    "knn": Knn,
    "linear": Linear,
    "transfer": Transfer,
    "fewshot": FewShot,
    "semi": Semi,
    "finetune": FineTune,
    "clusters": ClusterAgreement,
    "arc": Arc,
}
