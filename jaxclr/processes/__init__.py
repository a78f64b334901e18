"""Several processes that train one model: joining them, agreeing, stop signals, and the supervisor.

Programs call `runtime`. `launch` starts and supervises processes and does not import JAX.
"""
