"""Judging a run by a protocol, on its own data or on others."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import rich.box
import rich.table

from jaxclr.augment import Augmentation, DigitView, PhotoView, with_views
from jaxclr.data import Data, Stream, load
from jaxclr.errors import UserError
from jaxclr.evaluation.evaluate import labelled_splits, represent
from jaxclr.evaluation.protocols import Protocol, Subject
from jaxclr.steps.state import State
from jaxclr.steps.views import normalize, plain_view
from jaxclr.training.session import Session

Array = jax.Array


def on_data(session: Session, data: Data) -> Session:
    """The session with other data to judge on, which the network sees as it saw its own.

    Raises:
      UserError: the data cannot be had, or has other channels than the encoder takes.
    """
    own = session.config.data
    if (data.mean, data.std) not in ((None, None), (own.mean, own.std)):
        raise UserError("Images are normalised as the run's own were; leave --data.mean and --data.std out.")
    data = dataclasses.replace(data, mean=own.mean, std=own.std)
    if data == own:
        return session
    dataset = load(dataclasses.replace(data, mean=None, std=None))
    wanted, got = session.dataset.train.channels, dataset.train.channels
    if got != wanted:
        channels = {1: "gray", 3: "rgb"}.get(wanted)
        remedy = f"set --data.channels {channels}" if channels else "take other data"
        raise UserError(f"'{data.source}' has images of {got} channel(s), the encoder takes {wanted}; {remedy}.")
    other = session._replace(dataset=dataset, config=dataclasses.replace(session.config, data=data))
    if isinstance(dataset.train, Stream) and other.plain_size is None:
        raise UserError(f"'{data.source}' is streamed, and the run does not tell its size; set --data.image-size.")
    return other


def judge(session: Session, state: State, protocol: Protocol, *, seeds: int = 1) -> dict[str, Any]:
    """What a protocol finds.

    Args:
      session: the run's, perhaps `on_data` that is not its own.
      state: its last state.
      protocol: what to do.
      seeds: how often, with seeds from 0; a protocol that draws nothing is run once.

    Returns:
      A record: settings; mean, deviation (n - 1) and values of each figure; what was chosen for each seed.

    Raises:
      UserError: protocol, data and encoder do not fit each other.
    """
    _check_finite(state)
    subject = _subject(session, state, labelled=protocol.needs_labels)
    tried = list(range(seeds if protocol.is_random else 1))
    results = [protocol.run(subject, seed) for seed in tried]
    values = {name: [v for result in results for v in result.figures[name]] for name in results[0].figures}
    return {
        "protocol": type(protocol).__name__,
        "settings": dataclasses.asdict(protocol),
        "data": dataclasses.asdict(session.config.data),
        "step": int(state.step),
        "seeds": tried,
        "train_images": subject.train.size,
        "test_images": 0 if subject.test is None else subject.test.size,
        "percent": protocol.percent,
        "figures": {name: _summary(some) for name, some in values.items()},
        "chosen": [result.chosen for result in results],
    }


def protocol_table(record: dict[str, Any]) -> rich.table.Table:
    """The record as a table: a line for each figure, mean and deviation over draws."""
    where = f"{record['data']['source']}, {record['train_images']} training and {record['test_images']} test images"
    title = f"{record['protocol']} on {where}{', in %' * record['percent']}"
    result = rich.table.Table(title=title, title_justify="left", box=rich.box.SIMPLE_HEAD)
    for column in ("", "mean ± std", "draws", "chosen on training data"):
        result.add_column(column, no_wrap=True, justify="left" if column in ("", "chosen on training data") else "right")
    for name, figure in record["figures"].items():
        scale, digits = (100, 1) if record["percent"] else (1, 4)
        told = f"{scale * figure['mean']:.{digits}f}"
        if len(figure["values"]) > 1:
            told += f" ± {scale * figure['std']:.{digits}f}"
        result.add_row(name, told, str(len(figure["values"])), _choices(record["chosen"], name))
    return result


def _check_finite(state: State) -> None:
    """Refuses parameters that are not finite; features may hide it, for XLA's fast maximum on CPUs takes ReLU(NaN) as 0."""
    leaves = jax.tree.leaves(jax.device_get((state.params, state.batch_stats)))
    if not all(np.isfinite(leaf).all() for leaf in leaves):
        raise UserError(
            f"The parameters or statistics of step {int(state.step)} are not finite (NaN), so there is nothing to judge. "
            "Train again with a lower learning rate, or with --clip-norm."
        )


def _summary(values: list[float]) -> dict[str, Any]:
    std = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return {"mean": float(np.mean(values)), "std": std, "values": values}


def _choices(chosen: list[dict[str, Any]], figure: str) -> str:
    """What was chosen for a figure, each value once."""
    seen: dict[str, list[Any]] = {}
    for choice in chosen:
        for name, value in choice.get(figure, {}).items():
            seen.setdefault(name, []).append(value)
    return "; ".join(f"{name} {', '.join(f'{v:g}' for v in sorted(set(values)))}" for name, values in seen.items())


def _subject(session: Session, state: State, *, labelled: bool) -> Subject:
    recipe, dataset = session.recipe, session.dataset
    train, test = labelled_splits(dataset) if labelled else (dataset.train, dataset.test)
    light = Augmentation((_light(recipe.augmentation.views[0]),))
    return Subject(
        train=train,
        test=test,
        classes=dataset.classes,
        size=session.plain_size,
        represent=functools.partial(represent, session, state),
        encoder=session.config.encoder.build(None),
        variables=_on_one(
            {"params": state.params["encoder"], "batch_stats": state.batch_stats.get("encoder", {})}
        ),
        plain=lambda images: plain_view(images, recipe),
        augmented=lambda keys, images: normalize(light(keys, images)[0], recipe.mean, recipe.std),
        embed_views=_embed_views(session, state),
    )


def _on_one(tree: Any) -> Any:
    """On one device, as evaluation runs: norms of fine-tuning see its rows alone."""
    return jax.device_put(jax.device_get(tree), jax.devices()[0])


def _embed_views(session: Session, state: State) -> Callable[[Array, Array, int], tuple[Array, Array]]:
    recipe = session.recipe
    first, *rest = recipe.augmentation.views
    size = lambda view: getattr(view, "size", None)
    alike = Augmentation((first, *(view for view in rest if size(view) == size(first))))
    variables = lambda state: _on_one({"params": state.params, "batch_stats": state.batch_stats})

    @functools.cache
    def both() -> tuple[Any, Any]:
        return variables(state), variables(session.init_state())

    @functools.partial(jax.jit, static_argnames="count")
    def embed(variables: Any, keys: Array, images: Array, count: int) -> Array:
        views = jnp.stack(with_views(alike, count)(keys, images))
        of_one = lambda view: recipe.network.apply(
            variables, normalize(view, recipe.mean, recipe.std), train=False
        )
        return jax.lax.map(lambda view: of_one(view).embedding.astype(jnp.float32), views)

    return lambda keys, images, count: tuple(embed(one, keys, images, count) for one in both())


def _light(view: PhotoView | DigitView) -> PhotoView | DigitView:
    """Where a view moves pixels, without what it does to their colours."""
    if isinstance(view, PhotoView):
        return dataclasses.replace(view, jitter=0.0, grayscale=0.0, blur=0.0, solarize=0.0)
    return dataclasses.replace(view, erase=0.0, noise=0.0)
