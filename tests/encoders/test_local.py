"""Gradients of local units are local, and those of units computed one by one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxclr.encoders import Mlp, ResNet, SmallConv, ViT
from jaxclr.errors import UserError
from jaxclr.methods import Loco, Outputs

UNITS, WIDTH, ROWS = 3, 3, 4
METHOD = Loco(temperature=0.3, projector=Mlp(hidden=4, out=WIDTH))
ENCODER = SmallConv(widths=(3, 4, 4, 4))  # four stages


def outputs(embeddings):
    return Outputs(tuple(embeddings), *[None] * (len(Outputs._fields) - 1))


@pytest.fixture(scope="module")
def found():
    """Gradients of the losses of units, and of their sum, by `Loco` and unit by unit, in float64.

    They are compared with the representation and statistics of the encoder alone on the way.
    """
    network = METHOD.network(ENCODER, None)
    draw = np.random.default_rng(0).normal
    rows, others = np.arange(2 * ROWS), ~np.eye(2 * ROWS, dtype=bool)

    def apply(module, variables, *args, **options):
        return module.apply(variables, *args, mutable=["batch_stats"], **options)

    def loss_of(pair):
        z = jnp.concatenate(pair)
        z = z / jnp.linalg.norm(z, axis=1, keepdims=True)
        logits = jnp.where(others, z @ z.T / 0.3, -jnp.inf)
        return jnp.mean(jax.nn.logsumexp(logits, axis=1) - logits[rows, np.roll(rows, ROWS)])

    def by_hand(params, stats, views):
        of = lambda name: {"params": params[name], "batch_stats": stats[name]}
        stage = lambda i, x: apply(network.encoder, of("encoder"), i, x, True, method="stage")[0]

        def embeddings(below):
            units = []
            for unit in range(UNITS):
                bottom = stage(unit, below)
                units.append(stage(unit + 1, bottom))
                below = jax.lax.stop_gradient(bottom)
            z, _ = apply(network.projector, of("projector"), tuple(units), True)
            return jnp.split(z, UNITS, axis=1)

        pairs = zip(*map(embeddings, views), strict=True)
        return jnp.stack(list(map(loss_of, pairs)))

    def ours(params, stats, views):
        before, seen = stats, []
        for x in views:  # one after the other, as in a step
            seen.append(apply(network, {"params": params, "batch_stats": before}, x, True))
            before = seen[-1][1]["batch_stats"]
        z = [branch.embedding for branch, _ in seen]
        of_unit = lambda u: [rows[:, u * WIDTH : (u + 1) * WIDTH] for rows in z]
        each = [METHOD.objective(outputs(rows), {}, None) for rows in (*map(of_unit, range(3)), z)]
        (branch, updates), _ = seen
        return jnp.stack(each), (branch.representation, updates["batch_stats"]["encoder"])

    @jax.jit
    def compute(views, moves):
        init = lambda: network.init(jax.random.key(0), (views[0],), method=network.init_views)
        shapes = jax.eval_shape(init)["params"]
        noise = iter(jnp.split(moves, np.cumsum([leaf.size for leaf in jax.tree.leaves(shapes)])))
        # Also scales that are initially zero.
        moved = lambda leaf: leaf + 0.3 * next(noise).reshape(leaf.shape)
        variables = init()
        params, stats = jax.tree.map(moved, variables["params"]), variables["batch_stats"]
        losses, pull, aux = jax.vjp(lambda p: ours(p, stats, views), params, has_aux=True)
        wanted, wanted_pull = jax.vjp(lambda p: by_hand(p, stats, views), params)
        of_encoder = {"params": params["encoder"], "batch_stats": stats["encoder"]}
        plain, updates = apply(network.encoder, of_encoder, views[0], True)
        gradients = [jax.vmap(f)(jnp.eye(n))[0] for f, n in ((pull, 4), (wanted_pull, 3))]
        return gradients, ((losses, *aux), (wanted, plain, updates["batch_stats"]))

    with jax.enable_x64(True):
        done = compute(draw(size=(2, ROWS, 8, 8, 1)), draw(size=2000))
        (of_units, wanted), (values, wanted_values) = jax.device_get(done)
    losses = np.append(wanted_values[0], wanted_values[0].sum())
    jax.tree.map(near, values, (losses, *wanted_values[1:]))
    return of_units, wanted


def near(one, other):
    np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)


def test_gradients_are_those_of_units_one_by_one(found):
    whole = lambda wanted: np.concatenate([wanted, wanted.sum(0, keepdims=True)])
    jax.tree.map(near, found[0], jax.tree.map(whole, found[1]))


def test_the_gradient_of_a_unit_is_zero_outside_of_its_stages_and_decoder(found):
    of_units, _ = found
    for part in ("encoder", "projector"):
        for name, tree in of_units[part].items():
            leaves = jax.tree.leaves(tree)
            sizes = np.max([np.abs(leaf).reshape(len(leaf), -1).max(1) for leaf in leaves], axis=0)
            number = int(name.split("_")[-1] if part == "encoder" else name[4])
            own = {number - 1, number} if part == "encoder" else {number}
            for unit in range(UNITS):
                assert (sizes[unit] > 0) == (unit in own), (name, unit)


@pytest.mark.parametrize(
    "encoder, words",
    [
        (ViT(), "got ViT"),
        (SmallConv(widths=(4,)), "got SmallConv"),
        ((ResNet(), ResNet()), "got tuple"),
    ],
)
def test_other_encoders_are_refused(encoder, words):
    with pytest.raises(UserError, match=f"at least two stages, a ResNet or a SmallConv, {words}"):
        Loco().network(encoder, None)
