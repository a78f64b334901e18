"""A run of digits that has taken no step: what leaves it does not depend on what it has learned."""

from typing import NamedTuple

import pytest
from tiny import tiny_config

import jaxclr
from jaxclr.interop import Loaded
from jaxclr.training import Run, Session, State
from jaxclr.training.checkpoints import Checkpoints
from jaxclr.training.session import open_session


class Made(NamedTuple):
    run: Run
    session: Session
    state: State
    loaded: Loaded


@pytest.fixture(scope="session")
def digits(tmp_path_factory) -> Made:
    run = Run(tmp_path_factory.mktemp("runs") / "digits")
    session = open_session(tiny_config("sim_trace_plain"))
    state = session.init_state()
    run.create(session.config, overwrite=False)
    with Checkpoints(run.checkpoints) as checkpoints:
        checkpoints.save(state, 3)
    return Made(run, session, state, jaxclr.load(run.folder))
