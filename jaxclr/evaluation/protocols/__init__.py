"""Protocols by which a run is judged, by the name that the command line gives them."""

from jaxclr.evaluation.protocols.arc import Arc as Arc
from jaxclr.evaluation.protocols.base import Features as Features
from jaxclr.evaluation.protocols.base import Protocol as Protocol
from jaxclr.evaluation.protocols.base import Result as Result
from jaxclr.evaluation.protocols.base import Subject as Subject
from jaxclr.evaluation.protocols.clusters import ClusterAgreement as ClusterAgreement
from jaxclr.evaluation.protocols.fewshot import FewShot as FewShot
from jaxclr.evaluation.protocols.finetune import FineTune as FineTune
from jaxclr.evaluation.protocols.finetune import Semi as Semi
from jaxclr.evaluation.protocols.knn import Knn as Knn
from jaxclr.evaluation.protocols.linear import Linear as Linear
from jaxclr.evaluation.protocols.linear import Transfer as Transfer

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
