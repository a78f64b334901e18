"""Training: state, step, loop, checkpoints, and the evaluation of a run."""

from jaxclr.training.batches import Batch as Batch
from jaxclr.training.config import Config as Config
from jaxclr.training.evaluate import evaluate as evaluate
from jaxclr.training.loop import train as train
from jaxclr.training.optimizers import OPTIMIZERS as OPTIMIZERS
from jaxclr.training.optimizers import AdamW as AdamW
from jaxclr.training.optimizers import Lars as Lars
from jaxclr.training.optimizers import Sgd as Sgd
from jaxclr.training.run import Run as Run
from jaxclr.training.scanned import compile_knn as compile_knn
from jaxclr.training.scanned import compile_steps as compile_steps
from jaxclr.training.scanned import epoch_places as epoch_places
from jaxclr.training.scanned import representations as representations
from jaxclr.training.session import Session as Session
from jaxclr.training.session import open_session as open_session
from jaxclr.training.state import Recipe as Recipe
from jaxclr.training.state import State as State
from jaxclr.training.state import init_state as init_state
from jaxclr.training.step import map_step as map_step
from jaxclr.training.step import train_step as train_step
