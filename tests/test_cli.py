"""The command line: one sentence and status 2 for a user's mistake, and nothing half-written."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from jaxclr import cli
from jaxclr.runs.experiments import load_experiment
from jaxclr.runs.folder import RunFolder

DIGITS = str(pathlib.Path(__file__).parents[1] / "experiments" / "digits.py")
TINY = [
    *("--epochs", "1", "--warmup-epochs", "0", "--batch-size", "64", "--encoder.widths", "4", "8"),
    *("--observe-every", "0"),
    *("--method.projector.hidden", "12", "--method.projector.out", "8"),
    *("--method.predictor.hidden", "12", "--method.predictor.out", "8"),
]


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def mistake(capsys, *arguments):
    """What a failing command says; it must be one sentence, with nothing written."""
    with pytest.raises(SystemExit) as exit_:
        cli.main([str(a) for a in arguments])
    assert exit_.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1
    assert not pathlib.Path("runs").exists()
    return said


MISTAKES = {
    "no command named 'trian'. Did you mean 'train'": ["trian"],
    "Give an experiment": ["train"],
    "There is no experiment nope.py": ["train", "nope.py"],
    "no method named 'simclrr'. Did you mean 'simclr'": ["train", DIGITS, "--method", "simclrr"],
    "no encoder named 'resnet19'. Did you mean 'resnet18'": ["train", DIGITS, "--encoder=resnet19"],
    "no optimizer named 'adam'. Did you mean 'adamw'": ["train", DIGITS, "--optimizer", "adam"],
    "--method needs a name": ["train", DIGITS, "--method"],
    "no option --method.temprature. Did you mean --method.temperature": [
        *("train", DIGITS, "--method.temprature", "1"),
    ],
    "--epochs must be a whole number, got 'two'": ["train", DIGITS, "--epochs", "two"],
    "--data.mean must be numbers, got 'a b'": ["train", DIGITS, "--data.mean", "a", "b"],
    "--data.exif must be apply or ignore, got 'x'": ["train", DIGITS, "--data.exif=x"],
    "--batch-size needs a value: --batch-size INT": ["train", DIGITS, "--batch-size"],
    "train does not know what to do with 'oops'": ["train", DIGITS, "oops"],
    "Options have no part 'dat'; give --help, --help-run,": ["train", DIGITS, "--help-dat"],
    "--distributed.process-id must be a whole number": [
        *("train", DIGITS, "--distributed.process-id", "x"),
    ],
    "resume needs RUN.": ["resume"],
    "export needs --to {safetensors,stablehlo} and --out PATH": ["export", "run"],
    "temperature must be greater than 0": ["train", DIGITS, "--method.temperature", "0"],
    "--views must be a whole number of at least 1, got 'two'": ["train", DIGITS, "--views", "two"],
    "SimAffinity needs 2 views, the augmentation makes 3": ["train", DIGITS, "--views=3"],
    "SimAffinity needs 2 views, the augmentation makes 6": [
        "train",
        DIGITS,
        "--augmentation",
        "cifar_multi_crop",
    ],
    "batch_size 100 cannot be spread evenly over 8": ["train", DIGITS, "--batch-size", "100"],
    "larger than the 1437 training images": ["train", DIGITS, "--batch-size", "1440"],
    "--profile must be START:STOP, two whole numbers": ["train", DIGITS, "--profile", "7:7"],
    "--profile 5:1321 is past the end of the run, which has 1320": [
        "train",
        DIGITS,
        "--profile",
        "5:1321",
    ],
    "--epochs has no effect on a run of --steps 9": [
        *("train", DIGITS, "--steps", "9", "--epochs", "3"),
    ],
    "The warm-up has 55 steps, and the run 20; set --warmup-steps to 20": [
        *("train", DIGITS, "--steps", "20"),
    ],
    "no data source named 'tfd'. Did you mean 'tfds'": ["train", DIGITS, "--data.source", "tfd:x"],
    "not a run: it has no config.json": ["resume", "nowhere"],
    "no protocol named 'knnn'. Did you mean 'knn'": ["evaluate", "nowhere", "--protocol", "knnn"],
    "Give the folder of a run first: jaxclr evaluate RUN --protocol linear": [
        "evaluate",
        "--protocol",
        "linear",
    ],
    "nowhere is not a run": ["evaluate", "nowhere", "--protocol=knn"],
    "no list named 'method'. Did you mean 'methods'": ["list", "method"],
    r"no list named 'caf\xe9'": ["list", "caf\udce9"],
    "no loss named 'sim_tracee'. Did you mean 'sim_trace', ": ["list", "losses", "sim_tracee"],
    r"no encoder named 'caf\xe9'": ["list", "encoders", "caf\udce9"],
    "Give the kind of 'byol'": ["list", "all", "byol"],
    "list has no option --nope.": ["list", "methods", "--nope", "caf\udce9"],
    "File name too long": ["train", "x" * 300],
    "--out . is a folder": ["report", ".", "--out="],
}


@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistake_is_one_sentence(words, capsys):
    assert words in mistake(capsys, *MISTAKES[words])


def test_bad_image_folders_are_named(capsys, tmp_path):
    train = ("train", DIGITS, "--data.source")
    assert "missing" in mistake(capsys, *train, f"folder:{tmp_path}/missing")
    (tmp_path / "empty").mkdir()
    assert "empty" in mistake(capsys, *train, f"folder:{tmp_path}/empty")
    images = tmp_path / "images"
    images.mkdir()
    for index in range(20):
        pixels = np.full((8, 8, 3), index, np.uint8)
        Image.fromarray(pixels).save(images / f"{index}.png")
    whole = (images / "7.png").read_bytes()
    (images / "7.png").write_bytes(whole[: len(whole) // 2])
    assert "7.png" in mistake(capsys, *train, f"folder:{images}")


def test_train_resume_evaluate(capsys, tmp_path):
    run = tmp_path / "run"
    cli.main(["train", DIGITS, "--out", str(run), *TINY])
    said = capsys.readouterr().out
    assert "22 steps of 64" in said and "untrained" in said and f"{run}" in said
    assert not set("\x1b…│") & set(said)
    before = (run / "metrics.jsonl").read_text()
    record = json.loads((run / "evaluation.json").read_text())
    assert set(record["features"]) == {"raw pixels", "untrained", "trained"}
    assert len(record["features"]["raw pixels"]["5 labels"]["accuracies"]) == 10

    cli.main(["train", DIGITS, "--out", str(run), *TINY])
    assert "and it is finished" in capsys.readouterr().out
    other = mistake(capsys, "train", DIGITS, "--out", run, *TINY, "--seed", "1")
    assert "another configuration: seed: 0 is now 1" in other
    assert (run / "metrics.jsonl").read_text() == before

    (run / "evaluation.json").unlink()
    with RunFolder(run).locked():
        assert "is in use by process" in mistake(capsys, "evaluate", run)
        assert "is in use by process" in mistake(capsys, "train", DIGITS, "--out", run, *TINY)
    evaluated_by_protocols(capsys, run)
    capsys.readouterr()
    cli.main(["evaluate", str(run), "--no-baselines", "--json"])
    record = json.loads((run / "evaluation.json").read_text())
    assert set(record["features"]) == {"trained"}
    assert set(record.pop("protocols")) == {"knn"}
    assert json.loads(capsys.readouterr().out) == record
    by_class = record["by_class"]["classes"]
    assert list(by_class) == list("0123456789")
    right = sum(row["predicted"].get(name, 0) for name, row in by_class.items())
    assert right / 360 == pytest.approx(record["features"]["trained"]["kNN 20"]["mean"])
    for row in by_class.values():
        assert sum(row["predicted"].values()) == row["images"]
    assert (
        by_class["3"]["accuracy"]
        == by_class["3"]["predicted"].get("3", 0) / by_class["3"]["images"]
    )

    text = (run / "config.json").read_text()
    (run / "config.json").write_text(text.replace('"epochs"', '"epoch"'))
    assert "no field 'epoch'. Did you mean 'epochs'" in mistake(capsys, "evaluate", run)
    (run / "config.json").write_text(text)
    for checkpoint in (run / "checkpoints").iterdir():
        checkpoint.rename(run / checkpoint.name)
    assert "has no checkpoint yet" in mistake(capsys, "evaluate", run)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "1.png").touch()
    assert "is not a run" in mistake(capsys, "train", DIGITS, "--out", tmp_path / "photos", *TINY)
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["1.png"]


def evaluated_by_protocols(capsys, run):
    """Protocols of a run: what they tell, keep and refuse."""
    by_protocol = ("evaluate", str(run), "--protocol")
    cli.main([*by_protocol, "knn", "--k", "7"])
    assert "Knn on digits, 1437 training and 360 test images" in capsys.readouterr().out
    found = json.loads((run / "evaluation.json").read_text())["protocols"]["knn"]
    assert found["settings"] == {"k": 7, "temperature": 0.07} and found["seeds"] == [0]
    mistakes = {
        "transfer needs other data than the run's own": ["transfer"],
        "seeds must be at least 1, got 0": ["knn", "--seeds", "0"],
        "temperature must be greater than 0, got -1.0": ["knn", "--temperature", "-1"],
        "no option --temprature. Did you mean --temperature": ["knn", "--temprature", "1"],
    }
    for words, arguments in mistakes.items():
        assert words in mistake(capsys, *by_protocol, *arguments)
    checkpoints = run / "checkpoints"
    checkpoints.rename(run / "elsewhere")
    assert "has no checkpoint yet" in mistake(capsys, *by_protocol, "knn")
    (run / "elsewhere").rename(checkpoints)


HELPED = [
    ["train"],
    ["train", DIGITS],
    ["resume"],
    ["evaluate"],
    ["evaluate", "--protocol", "fewshot"],
    ["report"],
    ["embed"],
    ["export"],
    ["import"],
    ["list"],
    [],
]


def helped(capsys, *arguments):
    """The lines of a help."""
    try:
        cli.main(list(arguments))
    except SystemExit as exit_:
        assert not exit_.code
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("width", (80, 120))
@pytest.mark.parametrize("command", HELPED, ids=" ".join)
def test_help_is_short_and_fits(command, width, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    lines = helped(capsys, *command, "--help")
    assert len(lines) <= 40
    for line in lines if not command else lines + helped(capsys, *command, "--help-all"):
        assert len(line) <= width and not set("\x1b…│") & set(line)


def options_of(part, name=""):
    """The names of the options of a dataclass, and of those in it."""
    for field in dataclasses.fields(part):
        value, path = getattr(part, field.name), f"{name}.{field.name}".removeprefix(".")
        inside = {path: value}
        if isinstance(value, tuple):
            inside = {f"{path}.{index}": one for index, one in enumerate(value)}
        if nested := {key: one for key, one in inside.items() if dataclasses.is_dataclass(one)}:
            for key, one in nested.items():
                yield from options_of(one, key)
        else:
            yield f"--{path.replace('_', '-')}"


def test_every_field_is_in_help_all_and_in_the_help_of_its_part(capsys):
    words = set(" ".join(helped(capsys, "train", DIGITS, "--help-all")).replace(",", "").split())
    fields = {*options_of(load_experiment(pathlib.Path(DIGITS)))} - {"--extensions"}
    assert fields <= words
    short = helped(capsys, "train", DIGITS, "--help")
    parts = [line.split()[0] for line in short if line.startswith("  --help-")]
    assert parts[-1] == "--help-all" and "--help-data" in parts
    shown = [" ".join(helped(capsys, "train", DIGITS, part)).split() for part in parts[:-1]]
    unfolded = {word for words in shown for word in words if word.startswith("--")}
    assert fields <= {word.rstrip(",") for word in unfolded}


def test_help_shows_meanings_and_defaults(capsys):
    shown = {
        "clusters: k-means": ["evaluate", "--help-all"],
        "cosine is stretched": ["resume", "--help-all"],
        "--k INT": ["evaluate", "--protocol", "knn", "--help"],
        "--epochs INT Passes over the training images": ["train", DIGITS, "--help"],
        "Divides the affinities. (default: 0.5)": ["train", DIGITS, "--help-method"],
        "Exit status: 0 on success": ["train", "--help-all"],
    }
    for words, arguments in shown.items():
        assert words in " ".join(" ".join(helped(capsys, *arguments)).split())
