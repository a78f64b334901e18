"""A run of digits that has taken no step: what leaves it does not depend on what it has learned."""

from typing import NamedTuple

import pytest
from tiny import tiny_config

import jaxclr
from jaxclr.interop import Loaded
from jaxclr.runs.checkpoints import Checkpoints
from jaxclr.runs.folder import RunFolder
from jaxclr.steps.state import State
from jaxclr.training.session import Session, open_session


class Made(NamedTuple):
    run: RunFolder
    session: Session
    state: State
    loaded: Loaded


@pytest.fixture(scope="session")
def digits(tmp_path_factory) -> Made:
    run = RunFolder(tmp_path_factory.mktemp("runs") / "digits")
    session = open_session(tiny_config("sim_trace_plain"))
    state = session.init_state()
    run.create(session.config, overwrite=False)
    with Checkpoints(run.checkpoints) as checkpoints:
        checkpoints.save(state, 3)
    return Made(run, session, state, jaxclr.load(run.folder))
