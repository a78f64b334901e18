"""A run that collapses, from its training to its report."""

import dataclasses
import html.parser
import io
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rich.console
from tiny import tiny_config

from jaxclr import cli, training
from jaxclr.affinity import positives, unit_rows
from jaxclr.encoders import Mlp
from jaxclr.evaluation.closing import monitor
from jaxclr.methods import Method, MomentumEncoder, Outputs
from jaxclr.report.page import write_report
from jaxclr.runs.folder import RunFolder
from jaxclr.steps.optimizers import Sgd
from jaxclr.steps.recipe import AXIS
from jaxclr.training.watch import BINS, measure

CURVES = (
    *(
        "loss",
        "knn_20",
        "effective_rank",
        "rank_me",
        "total_variance",
        "collapse_auc",
        "asymmetry",
        "learning_rate",
    ),
    *("momentum", "grad_norm", "update_norm", "images_per_second"),
)
OF_RUN = (
    *("spectrum", "cosines", "map-pca", "map-tsne", "neighbors", "confusion", "views"),
    *("affinity-{}-0", "affinity-{}-44", "affinity-{}-88"),
)
EVALUATION = {
    "test_images": 360,
    "features": {
        "untrained": {"5 labels": {"mean": 0.75, "std": 0.0625}, "kNN 20": {"mean": 0.875}},
        "trained": {"5 labels": {"mean": 0.25, "std": 0.125}, "kNN 20": {"mean": 0.5}},
    },
}
found = lambda *values: {
    "mean": np.mean(values),
    "std": np.std(values, ddof=1) if len(values) > 1 else 0.0,
    "values": values,
}
PROTOCOLS = {
    "linear": {"step": 88, "percent": True, "figures": {"accuracy": found(0.3, 0.29, 0.31)}},
    "clusters npz:x": {
        "step": 44,
        "percent": True,
        "figures": {"NMI": found(0.4), "accuracy": found(0.6)},
    },
    "arc": {"step": 88, "percent": False, "figures": {"ARC": found(0.98765)}},
}


@dataclasses.dataclass(frozen=True)
class Nothing(Method):
    """Negative cosine of two views with a momentum of 0: nothing prevents collapse."""

    target: MomentumEncoder = MomentumEncoder(momentum=0.0, ramp=False)

    def objective(self, out, state, axis_name):
        return -jnp.mean(positives(unit_rows(out.embeddings[0]), unit_rows(out.targets[1])))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """88 steps on one device: its folder, and what the console showed."""
    method = Nothing(projector=Mlp(layers=2, hidden=12, out=8, last_norm=False))
    config = tiny_config(
        method,
        optimizer=Sgd(learning_rate=4.0),
        batch_size=64,
        epochs=4,
        observe_every=20,
        log_every=7,
        evaluate_every=4,
        checkpoint_every=4,
    )
    one = jax.make_mesh(
        (1,), (AXIS,), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:1]
    )
    session = training.open_session(config)._replace(mesh=one)
    run = RunFolder(tmp_path_factory.mktemp("runs") / "collapsing")
    run.create(session.config, overwrite=False)
    console = rich.console.Console(file=io.StringIO(), width=10_000)
    training.train(session, run, console=console, evaluate=monitor)
    run.write_evaluation(EVALUATION)
    for name, record in PROTOCOLS.items():
        run.write_protocol(name, record)
    write_report([run.folder], run.report)
    return run, console.file.getvalue()


class Page(html.parser.HTMLParser):
    """What a page holds: ids, classes, figures, words; its tags must close each other."""

    VOID = ("meta", "link", "img", "br", "hr", "input")

    def __init__(self, text):
        super().__init__()
        self.ids, self.labels, self.words, self.open, self.tags, self.rows = [], [], "", [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.handle_startendtag(tag, attributes)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append((tag, attributes))
        if tag == "tr":
            self.rows.append([])
        if "id" in attributes:
            self.ids.append(attributes["id"])
        if tag == "img":
            assert attributes["alt"]
        if tag == "svg" and "aria-hidden" not in attributes:
            assert attributes["role"] == "img" and attributes["aria-label"]
            self.labels.append(attributes["aria-label"])
        for name in ("src", "href"):
            assert attributes.get(name, "#").startswith(("#", "data:")), attributes

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        data = data.replace("\N{NO-BREAK SPACE}", " ")
        self.words += data
        if "tr" in self.open and data.strip():
            self.rows[-1].append(data.strip())


def page_of(path):
    text = path.read_text()
    assert "http:" not in text and "https:" not in text and "@import" not in text
    page = Page(text)
    assert len(set(page.ids)) == len(page.ids)
    referred = {a["href"][1:] for _, a in page.tags if a.get("href", "").startswith("#")}
    assert referred <= set(page.ids)
    return page


def lines_of(run):
    return [json.loads(line) for line in run.metrics.read_text().splitlines()]


def test_a_collapse_is_called_out(run):
    run, said = run
    warned = [line for line in lines_of(run) if "warning" in line]
    assert len(warned) == 1 and warned[0]["step"] in (20, 40, 60, 80, 88)
    assert (
        f"WARNING, step {warned[0]['step']}: the embeddings" in said
        and "What usually helps" in said
    )
    page = page_of(run.report)
    assert warned[0]["warning"] in page.words
    assert page.words.index("Warning, collapsing.") < page.words.index("Curves")


def test_the_embeddings_are_measured_on_the_way(run):
    measured = [line for line in lines_of(run[0]) if "spectrum" in line]
    assert [line["step"] for line in measured] == [1, 20, 40, 60, 80, 88]
    for line in measured:
        assert len(line["spectrum"]) == 8
        assert sum(line["spectrum"]) == pytest.approx(line["total_variance"], rel=1e-3)
        assert sum(line["positive_cosines"]) == pytest.approx(1, abs=1e-3)
        assert len(line["negative_cosines"]) == BINS
    steps = [line["step"] for line in lines_of(run[0])]
    assert steps == sorted(steps)


def test_every_figure_is_there_and_needs_nothing_else(run):
    page = page_of(run[0].report)
    figures = [a["id"] for tag, a in page.tags if tag == "figure"]
    names = [f"curve-{name}" for name in CURVES] + ["plane"]
    names += [name.format(1) if "{" in name else f"{name}-1" for name in OF_RUN]
    assert sorted(figures) == sorted(names)
    assert not any(attributes.get("class") == "missing" for _, attributes in page.tags)


def test_what_evaluation_found_is_on_top(run):
    page = page_of(run[0].report)
    for row in (
        ["linear, 5 labels a class", "25.0 ± 12.5 %", "untrained 75.0"],
        ["kNN 20", "50.0 %", "untrained 87.5"],
        ["linear", "30.0 ± 1.0 %", "3 draws"],
        ["clusters npz:x, NMI", "40.0 %", "step 44"],
        ["clusters npz:x, accuracy", "60.0 %", "step 44"],
        ["arc", "0.988"],
    ):
        assert row in page.rows
    assert page.words.index("kNN 20") < page.words.index("By protocol") < page.words.index("Curves")


def test_runs_side_by_side_with_what_they_have(run, tmp_path, capsys):
    whole, _ = run
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(whole.folder / "config.json", bare)
    plain = tmp_path / "unlabelled"
    shutil.copytree(
        whole.folder, plain, ignore=shutil.ignore_patterns("checkpoints", "evaluation.json")
    )
    (plain / "snapshots" / "labels.npz").unlink()
    with (plain / "metrics.jsonl").open("a") as file:
        file.write('{"step": 89, "lo')
    out = tmp_path / "new" / "report.html"
    cli.main(["report", str(plain), str(bare), "--out", str(out)])
    assert f"{out}" in capsys.readouterr().out
    page = page_of(out)
    figures = {a["id"] for tag, a in page.tags if tag == "figure"}
    assert {"map-tsne-1", "neighbors-1", "views-1", "curve-loss"} < figures
    assert "confusion-1" not in figures and "map-pca-2" not in figures
    assert "By protocol" not in page.words
    buttons = [a["data-run"] for tag, a in page.tags if tag == "button"]
    assert buttons == ["run1", "run2"]
    with pytest.raises(SystemExit):
        cli.main(["report", str(tmp_path / "nowhere")])
    assert "is not a run: it has no config.json" in " ".join(capsys.readouterr().err.split())


def test_data_that_are_not_images_are_shown_without_pictures(run, tmp_path):
    """A folder as a run on a table of numbers would leave it: snapshots, labels, no images.npz."""
    rng = np.random.default_rng(0)
    unit = lambda *shape: unit_rows(jnp.asarray(rng.normal(size=shape), jnp.float32))
    half = lambda *shape: np.asarray(unit(*shape), np.float16)
    shutil.copy(run[0].folder / "config.json", tmp_path)
    (tmp_path / "metrics.jsonl").write_text(
        json.dumps({"step": 1, "loss": 2.0, "spectrum": [3.0, 1.0]}) + "\n"
    )
    (tmp_path / "snapshots").mkdir()
    for step in (0, 8):
        arrays = {
            "gallery": half(30, 5),
            "queries": half(12, 5),
            "rows": half(9, 4),
            "columns": half(9, 4),
        }
        np.savez(tmp_path / "snapshots" / f"{step}.npz", **arrays)
    labels = {
        "gallery_labels": np.arange(30) % 3,
        "query_labels": np.arange(12) % 3,
        "classes": np.array(["a", "b", "c"]),
    }
    np.savez(tmp_path / "snapshots" / "labels.npz", **labels)
    figures = {
        "affinity-1-0",
        "affinity-1-8",
        "map-pca-1",
        "map-tsne-1",
        "confusion-1",
        "spectrum-1",
        "curve-loss",
    }
    for unlabelled in (False, True):
        if unlabelled:
            (tmp_path / "snapshots" / "labels.npz").unlink()
            figures.remove("confusion-1")
        write_report([tmp_path], tmp_path / "report.html")
        page = page_of(tmp_path / "report.html")
        assert {a["id"] for tag, a in page.tags if tag == "figure"} == figures
        assert not any(tag == "img" for tag, _ in page.tags)
        assert page.words.count("because the data are not images") == 1
        points = [json.loads(a["data-points"]) for _, a in page.tags if "data-points" in a]
        assert points == [{"names": [] if unlabelled else ["a", "b", "c"] * 4}]


def test_what_is_measured_equals_its_definition():
    rng = np.random.default_rng(0)
    z1, z2, q, k = (rng.normal(size=(24, 6)).astype(np.float32) for _ in range(4))
    out = Outputs((z1, z2), (q, q), (z2, k), (z1, z2), *[None] * 7)
    found = jax.device_get(jax.jit(lambda out: measure(out, None))(jax.tree.map(jnp.asarray, out)))
    unit = lambda z: z.astype(np.float64) / np.linalg.norm(z, axis=1, keepdims=True)
    u, affinity = unit(z1), unit(q) @ unit(k).T
    values = np.linalg.eigvalsh(np.cov(u.T, bias=True))[::-1]
    share = values / values.sum()
    off = affinity[~np.eye(24, dtype=bool)]
    edges = np.linspace(-1, 1, BINS + 1)
    expected = {
        "spectrum": values,
        "effective_rank": np.exp(-np.sum(share * np.log(share))),
        "total_variance": values.sum(),
        "alignment": np.mean(np.sum((u - unit(z2)) ** 2, axis=1)),
        "asymmetry": np.linalg.norm(affinity - affinity.T) / np.linalg.norm(affinity),
        "positive_cosines": np.histogram(np.diag(affinity), edges)[0] / 24,
        "negative_cosines": np.histogram(off, edges)[0] / len(off),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-6, err_msg=name)
