"""Training: the configuration of a run, its session and loop, and the steps that they compile.

Gathered here from `runs.config`, `steps` and `training`:

- `Config`; the optimizers `AdamW`, `Lars` and `Sgd`, by name in `OPTIMIZERS`;
- `open_session`, which turns a configuration into a `Session`, and `train`, which runs it;
- `Recipe`, `State`, `Batch`, `init_state`, `train_step` and `map_step`: a step and its data;
- `Logger`, the protocol of further destinations of metrics, and `Wandb`;
- `compile_steps` and `epoch_indices`: many steps as one program.
"""

from jaxclr.runs.config import Config as Config
from jaxclr.runs.loggers import Logger as Logger
from jaxclr.runs.loggers import Wandb as Wandb
from jaxclr.steps.batches import Batch as Batch
from jaxclr.steps.optimizers import OPTIMIZERS as OPTIMIZERS
from jaxclr.steps.optimizers import AdamW as AdamW
from jaxclr.steps.optimizers import Lars as Lars
from jaxclr.steps.optimizers import Sgd as Sgd
from jaxclr.steps.recipe import Recipe as Recipe
from jaxclr.steps.scanned import compile_steps as compile_steps
from jaxclr.steps.scanned import epoch_indices as epoch_indices
from jaxclr.steps.state import State as State
from jaxclr.steps.state import init_state as init_state
from jaxclr.steps.step import map_step as map_step
from jaxclr.steps.step import train_step as train_step
from jaxclr.training.loop import train as train
from jaxclr.training.session import Session as Session
from jaxclr.training.session import open_session as open_session
