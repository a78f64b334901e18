"""The network of a run and data to evaluate it on, without what only training needs."""

import functools
from collections.abc import Callable

from jaxclr.encoders.custom import build_encoder, towers_of
from jaxclr.evaluation.subject import Evaluated, Subject, compile_represent
from jaxclr.processes import runtime
from jaxclr.runs.checkpoints import read_variables
from jaxclr.runs.config import Config
from jaxclr.runs.folder import RunFolder
from jaxclr.steps.recipe import AXIS
from jaxclr.steps.state import network_state, untrained_network
from jaxclr.training.session import example_shapes, make_recipe

NETWORK = ("encoder", "projector", "predictor")


def open_subject(
    config: Config, run: RunFolder, evaluated: Evaluated, say: Callable[[str], None]
) -> Subject:
    """The newest network of a run, with data to evaluate it on.

    The batch need not fit data and devices, and other data need not be the run's own.

    Args:
      config: of the run.
      run: its folder.
      evaluated: the data; see `load_like`.
      say: called with a sentence on each damaged checkpoint.

    Raises:
      UserError: there is no undamaged checkpoint.
    """
    step, variables = read_variables(run, NETWORK, say=say)
    # Of a recipe, the network, the views and normalization are used, which do not depend on data.
    recipe = make_recipe(config, images=config.batch_size, classes=0)
    shapes = example_shapes(evaluated.dataset.train, config, 1)
    mesh = runtime.device_mesh(AXIS)
    return Subject(
        recipe=recipe,
        encoder=build_encoder(towers_of(config.encoder)[0], AXIS),
        embed=compile_represent(recipe, mesh),
        state=network_state(step, variables["params"], variables.get("batch_stats", {})),
        init_state=functools.partial(untrained_network, recipe, shapes),
        mesh=mesh,
        **evaluated._asdict(),
    )
