"""The studies: what each of them runs.

A study is a function of `chosen`, which returns the hyper-parameters that the search found for a
method, or None while it is not complete; rows of such methods are left out until then. Rows are in
the order in which they are most informative: seed 0 of everything before seed 1.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from jaxclr.methods import METHODS

from . import search
from .grid import BASELINES, RAW, SUPERVISED, UNTRAINED, Row, recipe

Chosen = Callable[[str, str], dict[str, Any] | None]  # of data and method
Setting = tuple[str, str, dict[str, Any]]  # method, name of the setting, changes

CIFAR = (
    *("sim_affinity", "sim_whitening", "sim_trace", "sim_trace_plain", "simclr", "moco_v3"),
    *("byol", "sim_siam", "barlow_twins", "vicreg", "w_mse", "co2"),
)
UNICLR = CIFAR[:4]


def digits_search(methods: Iterable[str] = METHODS) -> list[Row]:
    """Five trials of each method, on held-out training digits."""
    return search.trials("digits-search", "digits", methods)


def digits(chosen: Chosen) -> list[Row]:
    """All methods, and the baselines."""
    names = (RAW, UNTRAINED, SUPERVISED, *METHODS)
    return rows("digits", "digits", [(name, "", {}) for name in names], 5, chosen)


def cifar10_search(methods: Iterable[str] = CIFAR) -> list[Row]:
    """Five trials of each method, shorter than the runs, on held-out training images."""
    short = {"epochs": 4, "warmup_epochs": 0.5, "evaluate_every": 4.0}
    return search.trials("cifar10-search", "cifar10", methods, short)


def cifar10(chosen: Chosen) -> list[Row]:
    """UniCLR's four methods and eight others."""
    names = (RAW, UNTRAINED, SUPERVISED, *CIFAR)
    return rows("cifar10", "cifar10", [(name, "", {}) for name in names], 3, chosen)


def symmetry(chosen: Chosen) -> list[Row]:
    """The weight of the symmetric loss, as a multiple of that of the recipe."""
    settings = []
    for factor in (0, 0.5, 1, 2, 4):
        for method in ("sim_affinity", "sim_whitening"):
            weight = recipe("digits", method).method.symmetry_weight * factor
            changes = {"method.symmetry_weight": weight, "evaluate_every": 1.0}
            settings.append((method, f"weight x{factor:g}", changes))
    return rows("symmetry", "digits", settings, 5, chosen)


def collapse(chosen: Chosen) -> list[Row]:
    """SimTrace with each asymmetry added and removed, over learning rates and batch sizes."""
    settings: list[Setting] = [("sim_trace_plain", "", {})]
    for target in ("shared", "stop_gradient", "momentum"):
        for name, predictor in (("predictor", {}), ("no predictor", {"method.predictor": None})):
            changes = {"method.target": target, **predictor}
            settings.append(("sim_trace", f"{target}, {name}", changes))
    # What collapse looks like in these figures: SimSiam without its predictor.
    settings.append(("sim_siam", "no predictor", {"method.predictor": None}))
    for rate in (0.03, 0.3):
        settings += [
            (method, f"rate {rate}", {search.RATE: rate})
            for method in ("sim_trace_plain", "sim_trace")
        ]
    for batch in (32, 64, 256, 512, 1024):
        settings += [
            (method, f"batch {batch}", {"batch_size": batch})
            for method in ("sim_trace_plain", "sim_trace")
        ]
    return rows("collapse", "digits", settings, 3, chosen)


def devices(chosen: Chosen) -> list[Row]:
    """Losses of the global batch against losses of each device: 256 images, 8 devices of 32."""
    settings = [
        (method, name, {"batch_size": 256, "local": name == "local"})
        for method in ("simclr", "sim_affinity", "sim_whitening", "sim_trace_plain")
        for name in ("global", "local")
    ]
    made = rows("devices", "digits", settings, 3, chosen)
    return [dataclasses.replace(row, devices=8) for row in made]


def gsg(chosen: Chosen) -> list[Row]:
    """Guided stop-gradient against its bases, with small batches and without predictor."""
    settings = [
        (method, f"batch {batch}, {name}", {"batch_size": batch, **changes})
        for batch in (16, 32, 128)
        for name, changes in (("predictor", {}), ("no predictor", {"method.predictor": None}))
        for method in ("sim_siam", "sim_siam_gsg", "byol", "byol_gsg")
    ]
    return rows("gsg", "digits", settings, 3, chosen)


def views(chosen: Chosen) -> list[Row]:
    """Objectives of several views, with 2 to 6 of them."""
    settings = [
        (method, f"{count} views", {"views": count})
        for count in range(2, 7)
        for method in ("mv_dhel", "mv_info_nce")
    ]
    return rows("views", "digits", settings, 3, chosen)


def rows(
    study: str, data: str, settings: Iterable[Setting], seeds: int, chosen: Chosen
) -> list[Row]:
    """The rows of these settings; changes of a setting come after what the search chose."""
    settings = list(settings)
    return [
        Row(study, method, setting, data, seed, changes={**found, **changes})
        for seed in range(seeds)
        for method, setting, changes in settings
        if (found := chosen(data, method)) is not None
        and not (method == RAW and seed > 0)  # the same for every seed
    ]


STUDIES: dict[str, Callable[[Chosen], list[Row]]] = {
    "digits-search": lambda _: digits_search(),
    "digits": digits,
    "symmetry": symmetry,
    "collapse": collapse,
    "devices": devices,
    "gsg": gsg,
    "views": views,
    "cifar10-search": lambda _: cifar10_search(),
    "cifar10": cifar10,
}

SEARCHES = {"digits": digits_search, "cifar10": cifar10_search}

# The figure by which a search chooses, and by which rows are compared.
JUDGED = {"digits": "5 labels", "cifar10": "kNN 200"}


def chosen_from(records: Callable[[str], Mapping[Any, Any]]) -> Chosen:
    """What the searches chose, given a study's records by the key of their row."""
    known = functools.cache(records)

    @functools.cache
    def chosen(data: str, method: str) -> dict[str, Any] | None:
        if method in (*BASELINES, SUPERVISED):
            return {}
        return search.best(SEARCHES[data]((method,)), known(f"{data}-search"), JUDGED[data])

    return chosen
