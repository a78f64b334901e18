"""A Sphinx extension: the pages that are made from definitions, and links of names in text.

Losses, methods and the API reference are written from docstrings, signatures and recipes; a public
name without a docstring stops the build. Pages that a person writes take tables from here too:
`{include} generated/tables/NAME.md`.
"""

import ast
import dataclasses
import functools
import hashlib
import importlib
import inspect
import itertools
import pathlib
import re
import shutil
from typing import Any

import docutils.nodes
import gradients
import latex2mathml.converter
import sphinx.addnodes
import sphinx.transforms.post_transforms
from sphinx.errors import ExtensionError

import jaxclr
from jaxclr import losses
from jaxclr.cli import definitions
from jaxclr.methods import METHODS

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent
OUT = HERE / "generated"
EXPERIMENTS = ("digits", "cifar10", "imagenet", "imagenet_vit_small")
ROOMS = (
    *(name for name in jaxclr.__all__ if inspect.ismodule(getattr(jaxclr, name))),
    "losses.compose",
)
FAMILIES = (  # title, and what the module and the needs of a loss have: the first that fits
    ("UniCLR", r"losses\.uniclr"),
    ("Parts of losses", r"gives|no loss|a transform"),
    ("Graphs, point clouds, text and other data", r"contrib|losses\.(graphs|compactness)"),
    ("With labels", r"labels"),
    ("With a queue", r": (negatives or )?a queue"),
    ("With prototypes", r"prototypes|a teacher"),
    ("Predicting targets, without negatives", r"targets"),
    ("Views alone, without negatives", r"^((?!negatives).)*$"),
    ("Contrast in the batch", r""),
)
ARXIV = re.compile(r"arXiv:(\d{4}\.\d{4,5})")
PAPER = r"`arXiv:\1 <https://arxiv.org/abs/\1>`__"
FACTS = re.compile(r"^(Needs|Cost|Global batch): .*$")


def setup(app: Any) -> dict[str, bool]:
    app.connect("config-inited", lambda *_: write_all())
    app.connect("autodoc-process-docstring", prepare, priority=400)  # before napoleon
    app.connect("build-finished", lambda app, error: error or copy_report(pathlib.Path(app.outdir)))
    app.add_post_transform(LinkNames)
    app.add_html_math_renderer("mathml", (inline_math, None), (displayed_math, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def inline_math(translator: Any, node: docutils.nodes.math) -> None:
    """Formulas as MathML, which browsers show without a script or a network."""
    translator.body.append(latex2mathml.converter.convert(node.astext()))
    raise docutils.nodes.SkipNode


def displayed_math(translator: Any, node: docutils.nodes.math_block) -> None:
    made = latex2mathml.converter.convert(node.astext(), display="block")
    translator.body.append(f'<div class="math">{made}</div>')
    raise docutils.nodes.SkipNode


def write_all() -> None:
    """Writes every generated page; files that are the same as before stay untouched."""
    check_documented()
    (OUT / "static").mkdir(parents=True, exist_ok=True)
    pictures = write_pictures()
    pages = {"losses/index.md": losses_index(pictures), "methods/index.md": methods_index()}
    pages |= {f"losses/{name}.md": loss_page(name, pictures) for name in public_losses()}
    pages |= {f"methods/{name}.md": method_page(name) for name in METHODS}
    pages |= {f"api/{room}.md": room_page(room) for room in ROOMS if room not in GALLERIES}
    pages |= {"api/jaxclr.md": top_page(), "api/index.md": api_index()}
    pages |= {f"tables/{name}.md": table() for name, table in TABLES.items()}
    notebook = (ROOT / "experiments" / "notebook.ipynb").read_text()
    pages["notebook.ipynb"] = notebook
    for name, text in pages.items():
        path = OUT / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
    for folder in ("losses", "methods", "api", "tables"):
        for path in (OUT / folder).glob("*.md"):
            if f"{folder}/{path.name}" not in pages:
                path.unlink()


def copy_report(out: pathlib.Path) -> None:
    """The report of the notebook's run, for the page that shows it."""
    made = OUT / "runs" / "first" / "report.html"
    if made.exists() and (out / "_static").is_dir():
        shutil.copy(made, out / "_static" / "report.html")


# Names


@functools.cache
def public(room: str) -> dict[str, Any]:
    """The public names of a room: its `__all__`, or what its `__init__` re-exports and assigns."""
    module = importlib.import_module(f"jaxclr.{room}")
    names = list(getattr(module, "__all__", ()))
    for node in () if names else ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.ImportFrom) and room != "losses.compose":
            names += [alias.name for alias in node.names if alias.asname == alias.name]
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            names += [ast.unparse(target)]
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            names += [node.name]
    values = {name: getattr(module, name) for name in names if not name.startswith("_")}
    own = lambda value: getattr(value, "__module__", module.__name__) == module.__name__
    if room == "losses.compose":
        values = {n: v for n, v in values.items() if own(v) and callable(v)}
    return {name: value for name, value in values.items() if not inspect.ismodule(value)}


@functools.cache
def names() -> dict[str, str]:
    """From each qualified public name to the one under which it is documented."""
    found = {f"jaxclr.{name}": f"jaxclr.{name}" for name in top_names()}
    first = {id(getattr(jaxclr, name)): f"jaxclr.{name}" for name in top_names()}
    for room in ROOMS:
        found[f"jaxclr.{room}"] = f"jaxclr.{room}"
        for name, value in public(room).items():
            target = f"jaxclr.{room}.{name}"
            if callable(value):
                target = first.setdefault(id(value), target)
            found[f"jaxclr.{room}.{name}"] = target
            if inspect.isclass(value):
                found |= {f"jaxclr.{room}.{name}.{m}": f"{target}.{m}" for m in members(value)}
    for name in top_names():
        value = getattr(jaxclr, name)
        for member in members(value) if inspect.isclass(value) else ():
            found[f"jaxclr.{name}.{member}"] = f"jaxclr.{name}.{member}"
    return found


def top_names() -> list[str]:
    return [n for n in jaxclr.__all__ if callable(getattr(jaxclr, n))]


def members(kind: type) -> dict[str, Any]:
    """The public methods and properties that a class defines itself."""
    wrappers = property | classmethod | staticmethod
    return {
        name: value
        for name, value in vars(kind).items()
        if not name.startswith("_") and (inspect.isfunction(value) or isinstance(value, wrappers))
    }


def check_documented() -> None:
    """Every public function, class, method and constant has a docstring."""
    missing = []
    for room in ROOMS:
        for name, value in public(room).items():
            qualified = f"jaxclr.{room}.{name}"
            if inspect.isfunction(value) or inspect.isclass(value):
                said = {qualified: inspect.getdoc(value)}
            else:
                said = {qualified: constant_doc(room, name)}
            for member in members(value) if inspect.isclass(value) else ():
                said[f"{qualified}.{member}"] = inspect.getdoc(getattr(value, member))
            missing += [each for each, doc in said.items() if not doc]
    if missing:
        raise ExtensionError(f"public names without a docstring: {', '.join(missing)}")


def constant_doc(room: str, name: str) -> str:
    """The string below the assignment of a constant, in the module that assigns it."""
    module = importlib.import_module(f"jaxclr.{room}")
    body = ast.parse(inspect.getsource(module)).body
    for node in body:
        if isinstance(node, ast.ImportFrom) and name in [alias.name for alias in node.names]:
            body = ast.parse(inspect.getsource(importlib.import_module(node.module or ""))).body
            break
    for node, following in itertools.pairwise(body):
        if isinstance(node, ast.Assign | ast.AnnAssign):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            said = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
            if ast.unparse(target) == name and said:
                return inspect.cleandoc(ast.literal_eval(following.value))
    return ""


class LinkNames(sphinx.transforms.post_transforms.SphinxPostTransform):
    """Links `jaxclr.room.name`, `room.name`, and in docstrings the names of their own room."""

    default_priority = 5  # before references are resolved

    def run(self, **_: Any) -> None:
        for literal in list(self.document.findall(docutils.nodes.literal)):
            text = literal.astext().removesuffix("()")
            if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", text) or inside_link(literal):
                continue
            room, own = place(literal)
            for name in (text, f"jaxclr.{text}" if "." in text else "", f"{room}.{text}"):
                if name in names() and names()[name] != own:
                    link(literal, names()[name])
                    break
            else:
                if text.startswith("jaxclr.") and not exists(text):
                    link(literal, text)  # which fails as a broken reference


def inside_link(node: docutils.nodes.Node) -> bool:
    links = docutils.nodes.reference, sphinx.addnodes.pending_xref, docutils.nodes.title
    while node.parent is not None:
        node = node.parent
        if isinstance(node, links):
            return True
    return False


def place(node: docutils.nodes.Node) -> tuple[str, str]:
    """The room and the qualified name of the definition whose docstring holds a node."""
    while node is not None:
        if isinstance(node, sphinx.addnodes.desc) and node["domain"] == "py":
            signature = node[0]
            module = signature.get("module") or ""
            return module, f"{module}.{signature.get('fullname')}"
        node = node.parent
    return "", ""


def link(literal: docutils.nodes.literal, target: str) -> None:
    reference = sphinx.addnodes.pending_xref(
        "", refdomain="py", reftype="obj", reftarget=target, refexplicit=True, refwarn=True
    )
    literal.replace_self(reference)
    reference += literal


def exists(name: str) -> bool:
    """Whether a dotted name is a module or an attribute, public or not."""
    head, *rest = name.split(".")
    value: Any = importlib.import_module(head)
    for index, part in enumerate(rest):
        try:
            value = getattr(value, part)
        except AttributeError:
            try:
                value = importlib.import_module(".".join([head, *rest[: index + 1]]))
            except ImportError:
                return False
    return True


def prepare(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Makes reStructuredText of a docstring.

    Asterisks and bars are taken as they are, tables of Markdown become tables, the share of a loss
    is linked to its page, and the facts that the page of a loss shows are left out.
    """
    if name.startswith("jaxclr.losses."):
        lines[:1] = []  # the page begins with it
    if what == "attribute" and lines:  # napoleon takes words before a colon for a type
        first, _, rest = lines[0].partition(" ")
        lines[:1] = [first, rest]
    made: list[str] = []
    verbatim = None  # indentation of the line that starts a block of code or mathematics
    for line in lines:
        indentation = len(line) - len(line.lstrip())
        if verbatim is not None and line.strip() and indentation <= verbatim:
            verbatim = None
        if verbatim is not None or line.lstrip().startswith((">>> ", "... ")):
            made.append(line)
        elif line.lstrip().startswith("|"):
            cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
            pad = " " * indentation
            if not made or not made[-1].lstrip().startswith(("* - ", "- ")):
                made += [f"{pad}.. list-table::", f"{pad}   :header-rows: 1", ""]
            if not set("".join(cells)) <= set("-: "):
                made.append(f"{pad}   * - {cells[0]}")
                made += [f"{pad}     - {cell}" for cell in cells[1:]]
        elif not (name.startswith("jaxclr.losses.") and FACTS.match(line)):
            parts = re.split(r"(`[^`]*`)", line)
            parts[::2] = [re.sub(r"(?<!\\)([*|])", r"\\\1", part) for part in parts[::2]]
            parts[::2] = [
                ARXIV.sub(r"`arXiv:\1 <https://arxiv.org/abs/\1>`__", p) for p in parts[::2]
            ]
            made.append("".join(parts))
            if line.rstrip().endswith("::") or line.lstrip().startswith(".. math::"):
                verbatim = indentation
    linked = "This device's :doc:`share </shares>`"
    lines[:] = [line.replace("This device's share", linked) for line in made]


# Losses


@functools.cache
def public_losses() -> dict[str, str]:
    return definitions.public_losses()


def write_pictures() -> set[str]:
    """PNGs of the matrix and its change for every loss; made again when code of losses changes."""
    sources = [HERE / "gradients.py"]
    for folder in ("jaxclr/losses", "jaxclr/affinity", "tests/losses"):
        sources += sorted((ROOT / folder).rglob("*.py"))
    stamp = hashlib.sha256("".join(map(code, sources)).encode()).hexdigest()
    folder = OUT / "static" / "losses"
    if not (folder / "stamp").exists() or (folder / "stamp").read_text() != stamp:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name, picture in gradients.all_pictures().items():
            (folder / f"{name}-before.png").write_bytes(gradients.png(picture.affinity))
            (folder / f"{name}.png").write_bytes(gradients.png(picture.change))
        (OUT / "static" / "descent.js").write_text(gradients.descents())
        (folder / "stamp").write_text(stamp)
    return {path.stem for path in folder.glob("*.png")}


def code(path: pathlib.Path) -> str:
    """A module without comments, docstrings and other strings that are statements."""
    tree = ast.parse(path.read_bytes())
    for node in ast.walk(tree):
        if isinstance(body := getattr(node, "body", None), list):
            said = lambda each: isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant)
            node.body = [each for each in body if not said(each)]
    return ast.dump(tree)


def paper_link(number: str) -> str:
    return f"[arXiv:{number}](https://arxiv.org/abs/{number})" if number else ""


def first_line(text: str) -> str:
    """The first line of a docstring, as MyST: formulas in dollars."""
    return re.sub(r":math:`([^`]*)`", r"$\1$", text.partition("\n")[0])


@functools.cache
def families() -> dict[str, list[str]]:
    """The names of losses by what they need."""
    first, *others = (title for title, _ in FAMILIES)
    found: dict[str, list[str]] = {title: [] for title in (first, *reversed(others))}
    for name in public_losses():
        needs = definitions.loss_facts(public_losses()[name]).needs
        facts = f"{getattr(losses, name).__module__}: {needs}"
        found[next(title for title, words in FAMILIES if re.search(words, facts))].append(name)
    return found


def losses_index(pictures: set[str]) -> str:
    lines = [
        f"# Losses: a gallery of {len(public_losses())}",
        "",
        "Each loss is a pure function of embeddings `[b, D]` that needs JAX only. It has the same",
        "value and gradient on any number of devices ([shares](../../shares.md)).",
        "",
        "The pictures show what one gradient step does to the affinity matrix of a fixed batch:",
        "the cosines of 16 images in four groups, first view down, second view across.",
        "Red cosines rise, blue cosines fall, white ones stay. The diagonal has the positives.",
        "Each picture is scaled by its largest changes.",
        "",
        "Examples begin with these lines, and the tests run them:",
        "",
        "```python",
        "import jax",
        "import jax.numpy as jnp",
        "",
        "from jaxclr import losses",
        "```",
        "",
        "- [Which loss needs no negatives](../../negatives.md)",
        "- [Combine a loss of your own](../../own/loss.md)",
        "",
    ]
    for title, of_family in families().items():
        lines += [f"## {title}", "", "::::{container} gallery", ""]
        for name in of_family:
            facts = definitions.loss_facts(public_losses()[name])
            shown = f"![]({picture_path(name)})" if name in pictures else ""
            lines += [
                ":::{container} card",
                f"{shown}",
                "",
                f"[**{name}**]({name}.md)",
                "",
                first_line(public_losses()[name]),
                "",
                f"Needs: {facts.needs}. Cost: {facts.cost}.",
                ":::",
                "",
            ]
        lines += ["::::", ""]
    lines += ["```{toctree}", ":hidden:", "", *itertools.chain(*families().values()), "```", ""]
    return "\n".join(lines)


def picture_path(name: str, suffix: str = "") -> str:
    return f"../static/losses/{name}{suffix}.png"


def loss_page(name: str, pictures: set[str]) -> str:
    docstring = public_losses()[name]
    facts = definitions.loss_facts(docstring)
    used = methods_with(name)
    lines = [
        f"# {name}",
        "",
        first_line(docstring),
        "",
        "| | |",
        "|---|---|",
        f"| Needs | {facts.needs} |",
        f"| Cost of value and gradient | {facts.cost} |",
        f"| Computed over the global batch | {facts.global_batch} |",
        "| Devices | any number, with the same value ([shares](../../shares.md)) |",
        f"| Paper | {paper_link(facts.paper)} |",
    ]
    if used:
        links = ", ".join(f"[{method}](../methods/{method}.md)" for method in used)
        lines += [f"| Methods that train with it | {links} |"]
    lines += [""]
    if name in pictures:
        lines += [
            "::::{container} pair",
            f"![The affinity matrix of the batch.]({picture_path(name, '-before')})",
            f"![How a gradient step changes it.]({picture_path(name)})",
            "::::",
            "",
            "Left: the cosines of a batch of 16 images in four groups. Right: how a gradient step",
            f"on `{name}` changes them. Red is above zero, blue below.",
            "",
        ]
    lines += ["```{eval-rst}", f".. autofunction:: jaxclr.losses.{name}", "```", ""]
    return "\n".join(lines)


@functools.cache
def methods_with(loss: str) -> list[str]:
    """Methods whose class calls the loss by name."""
    pattern = re.compile(rf"\blosses\.{loss}\b")
    return [
        name
        for name, kind in METHODS.items()
        if any(pattern.search(source(base)) for base in kind.__mro__[:-1])
    ]


@functools.cache
def source(kind: type) -> str:
    return inspect.getsource(kind) if kind.__module__.startswith("jaxclr.methods") else ""


# Methods


def needs_of(kind: type) -> str:
    more = " or more" if kind.more_views else ""
    labels = ", labels" if kind.needs_labels else ""
    return f"{kind.views}{more} view{'s' if kind.views > 1 or more else ''}{labels}"


def methods_index() -> str:
    lines = [
        f"# Methods: {len(METHODS)} by name",
        "",
        "A method is a loss with its heads, its target and its settings. Train one by name:",
        "",
        "```bash",
        "jaxclr train experiments/digits.py --method sim_affinity",
        "```",
        "",
        "Methods that predict targets (`methods.Predictive`) have the fields `predictor` and",
        "`target`. `make methods` trains each method for 30 steps on digits and prints its loss",
        "and statistics of its embeddings.",
        "",
        "## By family",
        "",
        "```{include} ../../families.md",
        "```",
        "",
        "## By name",
        "",
        "| method | what it is | needs |",
        "|---|---|---|",
    ]
    for name, kind in METHODS.items():
        lines.append(f"| [{name}]({name}.md) | {summary_of(kind)} | {needs_of(kind)} |")
    lines += ["", "```{toctree}", ":hidden:", "", *METHODS, "```", ""]
    return "\n".join(lines)


def summary_of(kind: type) -> str:
    return first_line(inspect.getdoc(kind) or "").replace("|", r"\|")


@functools.cache
def recipes() -> dict[str, Any]:
    return {name: importlib.import_module(name) for name in EXPERIMENTS}


def method_page(name: str) -> str:
    kind = METHODS[name]
    used = [loss for loss in public_losses() if name in methods_with(loss)]
    links = ", ".join(f"[{loss}](../losses/{loss}.md)" for loss in used)
    papers = ARXIV.findall(inspect.getdoc(kind) or "")
    lines = [
        f"# {name}",
        "",
        summary_of(kind),
        "",
        "| | |",
        "|---|---|",
        f"| Needs | {needs_of(kind)} |",
        f"| Loss | {links or 'its own'} |",
        f"| Paper | {', '.join(map(paper_link, dict.fromkeys(papers))) or 'see its loss'} |",
        "",
        "```bash",
        f"jaxclr train experiments/digits.py --method {name}",
        "```",
        "",
        "## Recipes",
        "",
        "Figures were measured as the file of the recipe says; `not run yet` was not measured.",
        "",
        "| file | optimizer | epochs, batch | time | accuracy, % |",
        "|---|---|---|---|---|",
    ]
    for file, module in recipes().items():
        if name in module.RECIPES:
            made = module.config(name)
            recipe = module.RECIPES[name]
            rate = f"{type(made.optimizer).__name__}, {made.optimizer.learning_rate:g}"
            sizes = f"{made.epochs}, {made.batch_size:,}"
            measured = f"{recipe.time} | {recipe.accuracy}"
            lines.append(f"| `experiments/{file}.py` | {rate} | {sizes} | {measured} |")
    lines += ["", "Hyper-parameters of these files that differ from the defaults:", ""]
    for file, module in recipes().items():
        if name in module.RECIPES:
            changed = differences(module.RECIPES[name].method, kind())
            lines.append(f"- `{file}`: {', '.join(f'`{each}`' for each in changed) or 'none'}")
    lines += ["", "```{eval-rst}", *autoclass(f"jaxclr.methods.{kind.__name__}", kind), "```", ""]
    return "\n".join(lines)


def differences(made: Any, default: Any) -> list[str]:
    return [
        f"{field.name}={getattr(made, field.name)!r}"
        for field in dataclasses.fields(made)
        if getattr(made, field.name) != getattr(default, field.name)
    ]


# The reference


GALLERIES = ("losses",)


def autoclass(name: str, kind: type) -> list[str]:
    return [f".. autoclass:: {name}", "   :members:", ""]


def entry(room: str, name: str, value: Any) -> list[str]:
    """The directive that documents a public name."""
    qualified = f"jaxclr.{room}.{name}"
    if names()[qualified] != qualified and callable(value):
        return [f"`{qualified}` is :py:obj:`{names()[qualified]}`.", ""]
    if inspect.isclass(value):
        return autoclass(qualified, value)
    if inspect.isfunction(value):
        return [f".. autofunction:: {qualified}", ""]
    doc = [f"   {line}" for line in constant_doc(room, name).splitlines()]
    shown = [f"   :value: {value!r}"] if isinstance(value, int | float | tuple) else []
    return [f".. py:data:: {name}", f"   :module: jaxclr.{room}", *shown, "", *doc, ""]


def summary(room: str, name: str, value: Any) -> str:
    doc = inspect.getdoc(value) if inspect.isfunction(value) or inspect.isclass(value) else None
    return first_line(doc or constant_doc(room, name)).replace("|", r"\|")


def room_page(room: str) -> str:
    of_room = public(room)
    lines = [
        f"# jaxclr.{room}",
        "",
        "```{eval-rst}",
        f".. automodule:: jaxclr.{room}",
        "   :no-members:",
        "```",
        "",
    ]
    if room == "methods":
        taken = set(METHODS.values())
        of_room = {n: v for n, v in of_room.items() if not inspect.isclass(v) or v not in taken}
        lines += ["Each method by name is in the [gallery](../methods/index.md).", ""]
    if of_room:
        lines += ["| name | what it is |", "|---|---|"]
        lines += [
            f"| {{py:obj}}`~{names()[f'jaxclr.{room}.{n}']}` | {summary(room, n, v)} |"
            for n, v in of_room.items()
        ]
    lines += ["", "```{eval-rst}"]
    for name, value in of_room.items():
        lines += entry(room, name, value)
    lines += ["```", ""]
    return "\n".join(lines)


def top_page() -> str:
    lines = ["# jaxclr", "", "```{eval-rst}", ".. automodule:: jaxclr", "   :no-members:", ""]
    for name in top_names():
        value = getattr(jaxclr, name)
        qualified = f"jaxclr.{name}"
        lines += (
            autoclass(qualified, value)
            if inspect.isclass(value)
            else [f".. autofunction:: {qualified}", ""]
        )
    return "\n".join([*lines, "```", ""])


def api_index() -> str:
    rooms = [room for room in ROOMS if room not in GALLERIES]
    lines = [
        "# API reference",
        "",
        "Every public name, from its docstring. The functions of `jaxclr.losses` are in the",
        "[gallery of losses](../losses/index.md), the methods by name in the",
        "[gallery of methods](../methods/index.md).",
        "",
        "```{toctree}",
        "",
        "jaxclr",
        *rooms,
        "```",
        "",
        "```{eval-rst}",
        ".. automodule:: jaxclr.losses",
        "   :no-members:",
        "```",
        "",
    ]
    return "\n".join(lines)


# Tables of written pages


def without_negatives() -> str:
    """Losses of two or more views that do not name negatives, queues or labels."""
    lines = ["| loss | what it is | needs |", "|---|---|---|"]
    for name, docstring in public_losses().items():
        needs = definitions.loss_facts(docstring).needs
        taken = re.search(r"view|predictions|targets|a teacher|scores of prototypes", needs)
        if taken and not re.search(r"negative|queue|labels|gives|models|one view", needs):
            lines.append(
                f"| [{name}](generated/losses/{name}.md) | {first_line(docstring)} | {needs} |"
            )
    return "\n".join([*lines, ""])


TABLES = {"without_negatives": without_negatives}
