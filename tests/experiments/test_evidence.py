"""The evidence: its grid, its search, how rows are run, and the pages made of their results."""

import dataclasses
import importlib
import json
import math
import pathlib

import numpy as np
import pytest

from jaxclr.methods import METHODS

FOLDER = pathlib.Path(__file__).parents[2] / "experiments"
EVERYTHING = lambda *_: {}


@pytest.fixture
def part(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    return lambda name: importlib.import_module(f"evidence.{name}")


def record(study, method, setting, seed, seconds=10.0, changes=None, **figures):
    return {
        "study": study,
        "method": method,
        "setting": setting,
        "data": "digits",
        "seed": seed,
        "devices": 1,
        "changes": changes or {},
        "machine": "a toy",
        "versions": {"jax": "1"},
        "figures": figures,
        "curves": {},
        "seconds": seconds,
        "training_seconds": seconds / 2,
    }


def test_the_grid_is_that_of_the_studies(part):
    made = {name: study(EVERYTHING) for name, study in part("studies").STUDIES.items()}
    assert {name: len(rows) for name, rows in made.items()} == {
        "digits-search": 5 * len(METHODS),
        "digits": 1 + 5 * (2 + len(METHODS)),
        "symmetry": 2 * 5 * 5,
        "collapse": (1 + 6 + 1 + 2 * 2 + 2 * 5) * 3,
        "devices": 4 * 2 * 3,
        "gsg": 3 * 2 * 4 * 3,
        "views": 5 * 2 * 3,
        "cifar10-search": 5 * 12,
        "cifar10": 1 + 3 * (2 + 12),
    }
    rows = [row for rows in made.values() for row in rows]
    assert len({row.key for row in rows}) == len({row.name for row in rows}) == len(rows)
    for rows in made.values():
        seeds = [row.seed for row in rows]
        assert seeds == sorted(seeds)  # everything once before anything twice


def test_rows_are_plain_data_and_stand_for_configurations(part):
    grid, studies = part("grid"), part("studies")
    for study in studies.STUDIES.values():
        for row in study(EVERYTHING):
            if row.seed not in (0, 1000):
                continue
            assert grid.Row(**json.loads(json.dumps(dataclasses.asdict(row)))) == row
            whole = dataclasses.replace(row, data=row.data.removesuffix(grid.VALIDATION))
            config = grid.config(whole)
            for path, value in row.changes.items():
                if path not in ("views", "local", "method.target"):
                    assert grid.value_at(config, path) == value
            assert len(config.augmentation.views) == row.changes.get("views", config.method.views)
            assert type(config.method).__name__.startswith("Local") == row.changes.get(
                "local", False
            )


def test_trials_are_of_training_images_alone(part):
    grid = part("grid")
    held_out, whole = grid.data_of("digits-validation", None), grid.load(grid.Data("digits"))
    assert len(held_out.test) == round(0.2 * whole.train.size)
    both = np.concatenate([held_out.train, held_out.test]).reshape(whole.train.size, -1)
    images = whole.train.examples.reshape(whole.train.size, -1)
    np.testing.assert_array_equal(np.sort(both, axis=0), np.sort(images, axis=0))


def test_every_method_has_the_same_trials_and_the_best_is_taken(part):
    search, studies = part("search"), part("studies")
    for method in METHODS:
        trials = studies.digits_search((method,))
        assert len({tuple(row.changes.items()) for row in trials}) == len(search.POINTS)
        assert {row.seed for row in trials} == {search.SEED}
    results = {row.key: {"figures": {"5 labels": 0.5}} for row in trials[:-1]}
    assert search.best(trials, results, "5 labels") is None
    results[trials[-1].key] = {"figures": {}, "failed": "not finite"}
    assert search.best(trials, results, "5 labels") == trials[0].changes
    results[trials[3].key] = {"figures": {"5 labels": 0.6}}
    assert search.best(trials, results, "5 labels") == trials[3].changes
    chosen = studies.chosen_from(lambda study: results if study == "digits-search" else {})
    assert chosen("digits", trials[0].method) == trials[3].changes
    assert chosen("digits", "simclr") is None and chosen("digits", "untrained") == {}
    names = {row.method for row in studies.digits(chosen)}
    assert names == {"raw pixels", "untrained", "supervised", trials[0].method}


def test_a_momentum_is_scaled_by_what_is_left_to_one(part):
    scaled = part("search").scaled
    assert scaled("method.target.momentum", 0.99, 2) == 0.98
    assert scaled("method.temperature", 0.5, 0.5) == 0.25
    assert scaled("method.predictor.hidden", 128, 0.5) == 64


class Fake:
    """A row that takes no time; the third that starts is interrupted."""

    def __init__(self, row, started, stops_at=math.inf):
        started.append(row.name)
        self.row, self.stopped, self.interrupts = row, False, len(started) == stops_at

    def poll(self):
        if self.interrupts:
            raise KeyboardInterrupt
        return 0

    def record(self):
        return {**record(**key_fields(self.row), knn=0.5), "changes": self.row.changes}

    def stop(self):
        self.stopped = True


def key_fields(row):
    return {name: getattr(row, name) for name in ("study", "method", "setting", "seed")}


def test_an_interrupted_study_goes_on_with_what_is_left(part, tmp_path):
    running, results = part("running"), part("results").Results(tmp_path)
    rows = part("studies").views(EVERYTHING)[:5]
    how = {"places": [0], "say": lambda _: None}
    started, tasks = [], []

    def start(row, core):
        tasks.append(Fake(row, started, stops_at=3))
        return tasks[-1]

    with pytest.raises(KeyboardInterrupt):
        running.run_all(rows, start, results, **how)
    assert [task.stopped for task in tasks] == [False, False, True]
    (estimate,) = running.plan({"views": rows}, results, budget=1e9, workers=1)
    assert (estimate.finished, estimate.rows) == (2, rows[2:])
    again = []
    running.run_all(estimate.rows, lambda row, core: Fake(row, again), results, **how)
    assert again == [row.name for row in rows[2:]]
    assert sorted(results.of("views")) == list(results.of("views"))  # the file is sorted
    other = dataclasses.replace(rows[0], changes={"views": 7})
    assert results.finished(rows[0]) and not results.finished(other)


def test_a_budget_is_filled_with_the_nearest_measured_rows(part, tmp_path):
    running, results = part("running"), part("results").Results(tmp_path)
    rows = part("studies").views(EVERYTHING)  # two methods in turn
    for seconds, setting in ((1800, "2 views"), (5400, "3 views")):
        results.write(record("views", "mv_dhel", setting, 0, seconds))
    known = list(results.of("views").values())
    assert running.estimate_seconds(rows[10], known) == 1800  # of the setting
    assert running.estimate_seconds(rows[4], known) == 3600  # of the method
    assert running.estimate_seconds(rows[1], known) == 3600  # of the data
    assert running.estimate_seconds(rows[1], []) == running.GUESS["digits"]
    (estimate,) = running.plan({"views": rows}, results, budget=2, workers=2)
    assert len(estimate.rows) == 4 and estimate.hours == 4


def test_the_bootstrap_is_that_of_random_resamples(part):
    statistics = part("statistics")
    values = np.array([1.0, 2.5, 2.0, -1.0, 4.0])
    draws = np.random.default_rng(0).multinomial(5, np.full(5, 0.2), size=200_000) / 5
    wanted = np.quantile(draws @ values, [0.025, 0.975], method="inverted_cdf")
    np.testing.assert_allclose(statistics.bootstrap(values), wanted, atol=0.05)
    found = statistics.paired({0: 3.0, 1: 5.0, 2: 9.0}, {1: 4.0, 2: 6.0, 3: 0.0})
    assert found.mean == 2.0 and (found.low, found.high) == (1.0, 3.0) and found.sign == 1
    assert statistics.paired({0: 1.0}, {1: 1.0}) is None
    assert statistics.paired({0: 1.0}, {0: 2.0}).sign == 0  # one seed decides nothing


def test_a_page_is_made_of_the_results_alone(part, tmp_path):
    pages, results = part("pages"), part("results").Results(tmp_path / "evidence")
    for seed, (one, other) in enumerate([(0.80, 0.90), (0.84, 0.90), (0.82, 0.91)]):
        results.write(record("digits", "sim_trace", "", seed, **{"5 labels": one}))
        results.write(record("digits", "simclr", "", seed, **{"5 labels": other}))
    results.write({**record("digits", "vicreg", "", 0), "failed": "not finite"})
    curves = {"epoch": [5, 10], "knn_20": [0.8, 0.96], "step": [1, 50], "effective_rank": [3, 9]}
    results.write({**record("views", "mv_dhel", "2 views", 0), "curves": curves})
    pages.write(results, tmp_path)
    text = (tmp_path / "evidence.md").read_text()
    assert "digits: FAILS" in text
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    shown = {row[0]: row for row in rows if len(row) > 3}
    assert shown["sim_trace"][2:5] == ["3", "–", "82.0 ± 2.0"]
    assert shown["sim_trace"][-1].startswith("-8.3 [-10.0, -6.0]")
    assert shown["vicreg"][2] == "1, 1 diverged"
    assert "gains by more views: not run yet" in text and "29 rows of this study" in text
    claims = part("claims")
    reached = [claims.figure_of({"curves": curves}, f"epochs to {x}") for x in (80, 95, 99)]
    assert reached == [5, 10, 10] and math.isnan(claims.figure_of({"curves": {}}, "mean kNN"))
    first = (tmp_path / "evidence" / "digits.svg").read_bytes()
    pages.write(results, tmp_path)
    assert (tmp_path / "evidence" / "digits.svg").read_bytes() == first


@pytest.mark.full
def test_a_row_is_measured_twice_to_the_same_bits(part, tmp_path):
    grid, worker = part("grid"), part("worker")
    short = {"epochs": 1, "warmup_epochs": 0.0, "evaluate_every": 1.0}
    row = grid.Row("digits", "simclr", changes=short)
    one, other = (worker.measure(row, tmp_path / name) for name in ("one", "other"))
    for part_ in ("figures", "curves"):
        assert one[part_] == other[part_]
    assert 0 < one["figures"]["5 labels"] < 1 and one["curves"]["epoch"] == [1]
