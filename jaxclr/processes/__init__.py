"""Several processes that train one model: joining them, agreeing, stop signals, and the supervisor.

`runtime` is what programs call. `launch` starts and supervises processes and does not import JAX.
"""
