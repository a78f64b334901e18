"""Every method's objective against its losses, or its equation, written out by hand.

ROWS has one row for each method. Values and gradients are compared in float64, on one device and,
of methods without a state of their own, on two; of the others test_global_batch.py holds eight
equal to one. No hyper-parameter of a row has its default.
"""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from distributed import mesh
from jax.sharding import PartitionSpec as P
from tiny import carries

from jaxclr import losses, methods
from jaxclr.affinity.clustering import Clusters
from jaxclr.encoders import Mlp
from jaxclr.methods import METHODS, MomentumEncoder, Outputs, Sizes, StopGradient

BATCH, WIDTH, IMAGES, CLASSES, STEP, EPOCH = 8, 4, 40, 3, 3, 2
LABELS = np.array([0, 1, 2, 0, 1, 1, 0, 2])
# Of three patches in two views of each image; the first image has no masked patch.
MASKS = np.random.default_rng(1).random((BATCH, 6)) < np.linspace(0, 0.9, BATCH)[:, None]
QUEUE = {"queue_size": 2 * BATCH, "temperature": 0.3}
CLUSTERS = {"clusters": (3, 5), "negatives": 2, "warmup_epochs": EPOCH, "iterations": 7, **QUEUE}
DINO = {
    "prototypes": 5,
    "temperature": 0.5,
    "teacher_temperature": 0.4,
    "first_teacher_temperature": 0.2,
    "warmup_epochs": 5,
    "center_momentum": 0.7,
    "freeze_prototypes": STEP,
    "koleo_weight": 0.2,
    "target": MomentumEncoder(momentum=0.9, update="after_update"),
}
# Fields that no objective reads.
ELSEWHERE = ("projector", "predictor", "target", "decoder_blocks")

unit = lambda rows: rows / jnp.linalg.norm(rows, axis=-1, keepdims=True)
lse = jax.scipy.special.logsumexp
both_ways = lambda loss, o: loss(o.q[0], o.k[1]) + loss(o.q[1], o.k[0])


def amcl(o):
    """Two heads, one after the other; the temperature of a pair from the layers of phi."""
    hidden, out = o.params["hidden"], o.params["out"]

    def of_head(z):
        phi = jax.nn.relu(z @ hidden["kernel"] + hidden["bias"]) @ out["kernel"] + out["bias"]
        tau = 0.2 + 1.3 / (1 + jnp.exp(phi @ phi.T))
        others = ~np.eye(2 * BATCH, dtype=bool)
        logits = z @ z.T / tau
        positives = logits[np.arange(2 * BATCH), np.roll(np.arange(2 * BATCH), BATCH)]
        spread = lse(jnp.where(others, logits, -jnp.inf), axis=1)
        penalty = (WIDTH / 2 * jnp.log(tau) + 1 / tau)[others]
        return jnp.mean(spread - positives) + 0.1 * jnp.mean(penalty)

    stacked = jnp.concatenate(o.z)
    return sum(of_head(unit(stacked[:, h * WIDTH : (h + 1) * WIDTH])) for h in range(2))


def clustered(o, revised=lambda o, found: 0.0):
    """InfoNCE with the queue, and ProtoNCE for each clustering."""
    terms = []
    keys = jax.random.split(o.key, 2)
    for found, key, count in zip(o.state["clusterings"], keys, (3, 5), strict=True):
        drawn = jax.random.permutation(key, count)[:2]
        own = found.assignments[o.indices]
        terms.append(losses.proto_nce(o.z[0], found.prototypes, own, found.concentrations, drawn))
        terms[-1] += revised(o, found)
    return queued(o, o.state["queue"].rows) + sum(terms) / 2


def root(matrix):
    """The symmetric root, constant."""
    values, vectors = jnp.linalg.eigh(matrix)
    return vectors @ jnp.diag(jnp.sqrt(values)) @ vectors.T


def directly(o, predictor):
    """BYOL's loss of predictions by a function of the running correlation, this batch included."""
    rows = jax.lax.stop_gradient(jnp.concatenate(o.z))
    matrix = predictor(0.7 * o.state + 0.3 * rows.T @ rows / len(rows))
    squares = ((unit(z @ matrix) - unit(k)) ** 2 for z, k in zip(o.z, o.k[::-1], strict=True))
    return jnp.mean(jnp.sum(sum(squares), axis=1))


def ft(o):
    """MoCo v2 of positives that move apart, and of negatives mixed with others."""
    keys = jax.random.split(o.key, 3)
    apart, mixed = (
        jax.random.beta(key, both, both) for key, both in zip(keys[:2], (3.0, 1.2), strict=True)
    )
    order = jax.random.permutation(keys[2], 2 * BATCH)
    q, k, queue = unit(o.z[0]), unit(o.k[0]), o.state.rows
    return cross_entropy(
        q + apart * (q - k), k + apart * (k - q), mixed * queue + (1 - mixed) * queue[order], 0.3
    )


def guided(o):
    """The two images of a pair are an image and a random partner of it."""
    partners = jax.random.permutation(o.key, BATCH)
    both = lambda views: (*views, *(rows[partners] for rows in views))
    return losses.guided_stop_gradient(*both(o.q), *both(o.k))


def hydra(o):
    """Contrast in the features of a gate, whose two layers follow norms over the batch."""

    def normed(x, norm):
        x = jax.nn.relu(x)
        return (x - x.mean(0)) / jnp.sqrt(x.var(0) + 1e-5) * norm["scale"] + norm["bias"]

    labels = jnp.asarray(LABELS)
    partners = labels[jax.random.permutation(o.key, BATCH)]
    embedded = o.params["classes"]["embedding"]
    x = (embedded[labels] + embedded[partners]) / 2
    for norm, layer in (("BatchNorm_0", "hidden"), ("BatchNorm_1", "out")):
        x = normed(x, o.params[norm]) @ o.params[layer]["kernel"] + o.params[layer]["bias"]
    gate, (z,) = jax.nn.sigmoid(x), o.z
    logits = jnp.einsum("id,ijd->ij", unit(z * gate), unit(z * gate[:, None])) / 0.3
    same = labels == partners[:, None]
    others = (labels != labels[:, None]) & ~same
    negatives = jnp.sum(jnp.where(others, jnp.exp(logits), 0), axis=1, keepdims=True)
    terms = jnp.log(jnp.exp(logits) + negatives) - logits
    return jnp.sum(jnp.where(same, terms, 0)) / jnp.sum(same)


def local(o):
    """Two units, one after the other: cross-entropies of all pairs of rows of both views."""

    def of_unit(*views):
        z = unit(jnp.concatenate(views))
        logits = jnp.where(np.eye(2 * BATCH, dtype=bool), -jnp.inf, z @ z.T / 0.3)
        positives = jnp.sum(z * jnp.roll(z, BATCH, axis=0), axis=1) / 0.3
        return jnp.mean(lse(logits, axis=1) - positives)

    return sum(of_unit(*(z[:, u * WIDTH : (u + 1) * WIDTH] for z in o.z)) for u in range(2))


def separated(o):
    """Rows of label 1 are the background images, those of labels 0 and 2 targets."""
    (c1, s1), (c2, s2) = (jnp.split(z, [WIDTH], axis=1) for z in o.z)
    return losses.sep_clr(
        c1,
        c2,
        s1,
        s2,
        np.array([1, 0, 1, 1, 0, 0, 1, 1]),
        salient_weight=3.0,
        background_weight=4.0,
        joint_entropy_weight=5.0,
    )


def cross_entropy(q, k, queue, temperature):
    logits = jnp.concatenate([jnp.sum(q * k, 1, keepdims=True), q @ queue.T], axis=1) / temperature
    return jnp.mean(lse(logits, axis=1) - logits[:, 0])


def queued(o, queue):
    return cross_entropy(unit(o.z[0]), unit(o.k[0]), unit(queue), 0.3)


def consistency(o):
    """The symmetric divergence of how query and key see the queue."""
    q, k = (jax.nn.log_softmax(unit(rows) @ o.state.rows.T / 0.2) for rows in (o.z[0], o.k[0]))
    return jnp.mean(jnp.sum((jnp.exp(k) - jnp.exp(q)) * (k - q), axis=1)) / 2


def running(o, memory, eps, of_affinity):
    """A function of the affinities that running moments whiten, in both directions."""
    (q1, q2), (k1, k2) = map(unit, o.q), map(unit, o.k)
    rows = jax.lax.stop_gradient(jnp.concatenate([q1, k2]))
    seen = memory * STEP
    mean = (seen * o.state.mean + rows.mean(0)) / (seen + 1)
    covariance = (seen * o.state.covariance + jnp.cov(rows.T)) / (seen + 1)
    inverse = jnp.linalg.inv(covariance + eps * jnp.eye(WIDTH))
    return sum(of_affinity((q - mean) @ inverse @ (k - mean).T) for q, k in ((q1, k2), (q2, k1)))


def dino(o):
    """Each teacher's centered assignment, by averaged prototypes, predicted from other views."""
    kept = 1 - (1 - 0.9) * (1 + np.cos(np.pi * 0.5)) / 2
    mixed = jax.lax.stop_gradient(
        kept * o.state["prototypes"] + (1 - kept) * o.params["prototypes"]
    )
    score = lambda rows, prototypes: unit(rows) @ unit(prototypes).T
    # Epoch 2 of 5: half the way from 0.2 to 0.4.
    teachers = [jax.nn.softmax((score(k, mixed) - o.state["center"]) / 0.3) for k in o.k]
    students = [jax.nn.log_softmax(score(z, o.params["prototypes"]) / 0.5) for z in o.z]
    terms = [
        -jnp.mean(jnp.sum(teacher * student, axis=1))
        for t, teacher in enumerate(teachers)
        for v, student in enumerate(students)
        if v != t
    ]
    return sum(terms) / len(terms) + 0.2 * (losses.koleo(o.z[0]) + losses.koleo(o.z[1]))


def ibot(o):
    """And the assignments of masked patches of both first views, by the same prototypes."""
    kept = 1 - (1 - 0.9) * (1 + np.cos(np.pi * 0.5)) / 2
    mixed = jax.lax.stop_gradient(
        kept * o.state["prototypes"] + (1 - kept) * o.params["prototypes"]
    )
    total = 0
    for patches, seen, mask in zip(o.patches, o.target_patches, o.masks, strict=True):
        teacher = jax.nn.softmax((unit(seen) @ unit(mixed).T - o.state["patch_center"]) / 0.3)
        student = jax.nn.log_softmax(unit(patches) @ unit(o.params["prototypes"]).T / 0.5)
        terms = -jnp.sum(teacher * student, axis=2)
        of_image = [terms[i][mask[i]].mean() if mask[i].any() else 0 for i in range(BATCH)]
        total += sum(of_image) / BATCH
    return dino(o) + 0.7 * total / 2


def nearest(rows, queue):
    return queue[jnp.argmax(unit(rows) @ queue.T, axis=1)]


def nnclr(o):
    """Neighbors of one view and the other's predictions, in both directions."""

    def loss(p, z):
        logits = nearest(z, o.state.rows) @ unit(p).T / 0.3
        return jnp.mean(lse(logits, axis=1) - jnp.diag(logits)) / 2

    return both_ways(loss, o)


def related(o):
    """Cross-entropy of how key and query see the queue."""
    log_q = jax.nn.log_softmax(unit(o.z[0]) @ o.state.rows.T / 0.3)
    p = jax.nn.softmax(unit(o.k[0]) @ o.state.rows.T / 0.2)
    return -jnp.mean(jnp.sum(p * log_q, axis=1))


def clip(o):
    logits = jnp.exp(o.params["log_scale"]) * unit(o.z[0]) @ unit(o.z[1]).T
    return jnp.mean(lse(logits, axis=1) + lse(logits, axis=0) - 2 * jnp.diag(logits)) / 2


def siglip(o):
    logits = jnp.exp(o.params["log_scale"]) * unit(o.z[0]) @ unit(o.z[1]).T + o.params["bias"]
    return -jnp.sum(jax.nn.log_sigmoid((2 * np.eye(BATCH) - 1) * logits)) / BATCH


def swav(o):
    """Every crop's score of a crop's assignment, balanced together with the queue of that crop."""
    prototypes = unit(o.params["prototypes"])
    score = lambda rows: unit(rows) @ prototypes.T
    return losses.swav(
        [score(z) for z in o.z],
        earlier=[score(queue.rows) for queue in o.state],
        temperature=0.2,
        epsilon=0.1,
        iterations=2,
    )


def small_views_too(o):
    """Of both keys the views that are not theirs are queries, the small third one of both."""
    (q1, q2, q3), (k1, k2) = o.q, o.k
    of_key = lambda queries, key: losses.cacr_rbf(queries, key, temperature=0.3)
    return (of_key([q2, q3], k1) + of_key([q1, q3], k2)) / 2


def tico(o):
    """The energy of queries in their running covariance, this batch included."""
    q, k = unit(o.z[0]), unit(o.k[0])
    covariance = 0.7 * o.state + 0.3 * q.T @ q / len(q)
    energy = jnp.mean(jnp.einsum("id,de,ie->i", q, covariance, q))
    return 1 - jnp.mean(jnp.sum(q * k, axis=1)) + 3 * energy


def trip(o, projection=None):
    return losses.triplet(
        *o.z, projection, margin=0.7, pairwise_weight=3.0, pairwise_temperature=0.4
    )


def mapped(o):
    """Trip after the mapping of the second period of one epoch."""
    key = jax.random.fold_in(jax.random.wrap_key_data(o.state), EPOCH // 2)
    return trip(o, jax.random.normal(key, (WIDTH, WIDTH)))


def sub_batches(o):
    draws = [jax.random.permutation(key, BATCH) for key in jax.random.split(o.key, 2)]
    return losses.w_mse(o.z, jnp.stack(draws), whitening_size=4, eps=0.3)


def whitened(a):
    """Cross-entropy at temperature 0.5 and divisor 3, plus 0.4 times the asymmetry."""
    a = a / (0.5 * 3)
    return jnp.mean(lse(a, axis=1) - jnp.diag(a)) + 0.4 * jnp.linalg.norm(a - a.T) / BATCH


# Methods, and their objectives of embeddings o.z, predictions o.q, targets o.k and more.
ROWS = {
    "align_uniform": (
        methods.AlignUniform(alignment=3.0, uniformity=0.7, alpha=1.5, t=1.3),
        lambda o: (
            3 * losses.alignment(*o.z, alpha=1.5)
            + 0.7 * (losses.uniformity(o.z[0], t=1.3) + losses.uniformity(o.z[1], t=1.3)) / 2
        ),
    ),
    "amcl": (
        methods.Amcl(
            heads=2, penalty=0.1, least_temperature=0.2, most_temperature=1.5, temperature_hidden=5
        ),
        amcl,
    ),
    "barlow_twins": (
        methods.BarlowTwins(off_diagonal=0.2),
        lambda o: losses.barlow_twins(*o.z, off_diagonal=0.2),
    ),
    "byol": (
        methods.Byol(),
        lambda o: 4 + 2 * both_ways(losses.negative_cosine, o),
    ),
    "byol_gsg": (methods.ByolGsg(), guided),
    "cacr": (
        methods.Cacr(attraction=2.0, repulsion=0.7, t_positive=0.6, t_negative=0.8, debias=0.1),
        lambda o: losses.cacr(o.z, alpha=2.0, beta=0.7, t_positive=0.6, t_negative=0.8, debias=0.1),
    ),
    "cacr_moco_v3": (methods.CacrMocoV3(temperature=0.3), small_views_too),
    "clip": (methods.Clip(temperature=0.3, largest_scale=4.0), clip),
    "co2": (
        methods.Co2(consistency_weight=0.7, consistency_temperature=0.2, **QUEUE),
        lambda o: queued(o, o.state.rows) + 0.7 * consistency(o),
    ),
    "dcl": (
        methods.Dcl(temperature=0.3),
        lambda o: losses.dcl(*o.z, temperature=0.3) + losses.dcl(*o.z[::-1], temperature=0.3),
    ),
    "dclw": (
        methods.Dclw(temperature=0.3, sigma=0.7),
        lambda o: sum(
            losses.dcl(*views, temperature=0.3, weighting="von_mises_fisher", sigma=0.7)
            for views in (o.z, o.z[::-1])
        ),
    ),
    "dino": (methods.Dino(**DINO), dino),
    "direct_copy": (
        methods.DirectCopy(eps=0.2, correlation_momentum=0.7),
        lambda o: directly(o, lambda f: f + 0.2 * jnp.eye(WIDTH)),
    ),
    "direct_pred": (
        methods.DirectPred(eps=0.2, correlation_momentum=0.7),
        lambda o: directly(o, lambda f: root(f / jnp.linalg.norm(f, 2)) + 0.2 * jnp.eye(WIDTH)),
    ),
    "frossl": (
        methods.FroSsl(invariance=1.4),
        lambda o: losses.frossl(o.z, invariance=1.4),
    ),
    "ft": (methods.Ft(extrapolation=3.0, interpolation=1.2, **QUEUE), ft),
    "hydra": (methods.Hydra(temperature=0.3, gate_embedding=5, gate_hidden=7), hydra),
    "ibot": (
        methods.Ibot(**DINO, patch_weight=0.7, mask_probability=0.4, mask_ratio=(0.2, 0.6)),
        ibot,
    ),
    "lejepa": (
        methods.LeJepa(weight=0.3, slices=7, knots=9, t_max=2.0),
        lambda o: losses.lejepa(
            o.z, jax.random.normal(o.key, (7, WIDTH)), weight=0.3, knots=9, t_max=2.0
        ),
    ),
    "loco": (
        methods.Loco(temperature=0.3, projector=Mlp(out=WIDTH)),
        local,
    ),
    "mio": (
        methods.Mio(temperature_positive=0.3, temperature_negative=0.7, mse_weight=0.4, bound=True),
        lambda o: losses.mio(
            *o.z, temperature_positive=0.3, temperature_negative=0.7, mse_weight=0.4, bound=True
        ),
    ),
    "mmcr": (
        methods.Mmcr(),
        lambda o: -jnp.linalg.norm(sum(map(unit, (*o.z, *o.k))) / 6, "nuc"),
    ),
    "moco_v2": (methods.MocoV2(**QUEUE), lambda o: queued(o, o.state.rows)),
    "moco_v3": (
        methods.MocoV3(temperature=0.3),
        lambda o: 0.6 * both_ways(lambda q, k: losses.info_nce(q, k, temperature=0.3), o),
    ),
    "mv_dhel": (methods.MvDhel(temperature=0.3), lambda o: losses.mv_dhel(o.z, temperature=0.3)),
    "mv_info_nce": (
        methods.MvInfoNce(temperature=0.3),
        lambda o: losses.mv_info_nce(o.z, temperature=0.3),
    ),
    "nnbyol": (
        methods.NnByol(queue_size=2 * BATCH),
        lambda o: (
            4 + 2 * both_ways(lambda p, k: losses.negative_cosine(p, nearest(k, o.state.rows)), o)
        ),
    ),
    "nnclr": (methods.NnClr(**QUEUE), nnclr),
    "pauc": (
        methods.Pauc(
            alignment=0.4, uniformity=0.6, correlation=0.3, t=1.4, off_diagonal=0.2, **CLUSTERS
        ),
        lambda o: clustered(
            o,
            lambda o, found: losses.pauc(
                *o.z,
                found.prototypes,
                found.assignments[o.indices],
                alignment=0.4,
                uniformity=0.6,
                correlation=0.3,
                t=1.4,
                off_diagonal=0.2,
            ),
        ),
    ),
    "pcl": (methods.Pcl(**CLUSTERS), clustered),
    "ressl": (methods.ReSsl(teacher_temperature=0.2, **QUEUE), related),
    "sep_clr": (
        methods.SepClr(
            background=1, salient_weight=3.0, background_weight=4.0, joint_entropy_weight=5.0
        ),
        separated,
    ),
    "siglip": (methods.SigLip(temperature=0.3, bias=-1.5), siglip),
    "sim_affinity": (
        methods.SimAffinity(temperature=0.3, symmetry_weight=0.2, symmetry_scale="per_sample"),
        lambda o: both_ways(
            lambda q, k: losses.sim_affinity(
                q, k, temperature=0.3, symmetry_weight=0.2, symmetry_scale="per_sample"
            ),
            o,
        ),
    ),
    "sim_siam": (methods.SimSiam(), lambda o: both_ways(losses.negative_cosine, o) / 2),
    "sim_siam_gsg": (methods.SimSiamGsg(), guided),
    "sim_trace": (
        methods.SimTrace(eps=0.1),
        lambda o: both_ways(lambda q, k: losses.sim_trace(q, k, eps=0.1), o),
    ),
    "sim_trace_plain": (
        methods.SimTracePlain(eps=0.1),
        lambda o: losses.sim_trace(*o.z, eps=0.1, stop_statistics=False),
    ),
    "sim_trace_running": (
        methods.SimTraceRunning(eps=0.1),
        lambda o: running(o, 1.0, 0.1, lambda a: -jnp.trace(a) / BATCH),
    ),
    "sim_whitening": (
        methods.SimWhitening(
            temperature=0.5,
            symmetry_weight=0.2,
            symmetry_scale="per_sample",
            eps=0.1,
            logit_divisor=3.0,
        ),
        lambda o: both_ways(
            lambda q, k: losses.sim_whitening(
                q,
                k,
                temperature=0.5,
                symmetry_weight=0.2,
                symmetry_scale="per_sample",
                eps=0.1,
                logit_divisor=3.0,
            ),
            o,
        ),
    ),
    "sim_whitening_running": (
        methods.SimWhiteningRunning(
            temperature=0.5,
            symmetry_weight=0.4,
            symmetry_scale="per_sample",
            eps=0.1,
            logit_divisor=3.0,
        ),
        lambda o: running(o, 0.1, 0.1, whitened),
    ),
    "simclr": (methods.SimClr(temperature=0.3), lambda o: losses.nt_xent(*o.z, temperature=0.3)),
    "sup_con": (
        methods.SupCon(temperature=0.3, base_temperature=0.2),
        lambda o: losses.sup_con(o.z, LABELS, temperature=0.3, base_temperature=0.2),
    ),
    "swav": (
        methods.SwAv(
            prototypes=5,
            temperature=0.2,
            epsilon=0.1,
            iterations=2,
            freeze_prototypes=STEP,
            queue_size=2 * BATCH,
            queue_from=EPOCH,
        ),
        swav,
    ),
    "tico": (methods.TiCo(covariance_weight=3.0, covariance_momentum=0.7), tico),
    "trip": (methods.Trip(margin=0.7, pairwise_weight=3.0, pairwise_temperature=0.4), trip),
    "trip_roma": (
        methods.TripRoma(margin=0.7, pairwise_weight=3.0, pairwise_temperature=0.4, renew_every=2),
        mapped,
    ),
    "uni_grad": (
        methods.UniGrad(correlation_weight=3.0, correlation_momentum=0.7),
        lambda o: losses.uni_grad(
            *o.z, *o.k, 0.7 * o.state + 0.3 * losses.uni_grad_correlation(*o.k), weight=3.0
        ),
    ),
    "vibcreg": (
        methods.VibcReg(invariance=2.0, variance=3.0, covariance=4.0),
        lambda o: losses.vibcreg(*o.z, invariance=2.0, variance=3.0, covariance=4.0),
    ),
    "vicreg": (
        methods.VicReg(invariance=2.0, variance=3.0, covariance=4.0),
        lambda o: losses.vicreg(*o.z, invariance=2.0, variance=3.0, covariance=4.0),
    ),
    "w_mse": (methods.WMse(whitening_size=4, whitening_iterations=2, shrinkage=0.3), sub_batches),
}


def test_every_method_has_a_row():
    assert ROWS.keys() == METHODS.keys()
    for name, kind in METHODS.items():
        method = ROWS[name][0]
        assert type(method) is kind
        for field in dataclasses.fields(method):
            if field.name not in ELSEWHERE:
                assert getattr(method, field.name) != field.default, f"{name}.{field.name}"


def drawn(method):
    """What a step would hand an objective: what has a gradient, the other rows, and the state."""
    generator = np.random.default_rng(0)
    side_by_side = isinstance(method, methods.Loco | methods.SepClr)
    width = WIDTH * (2 if side_by_side else getattr(method, "heads", 1))
    common = generator.normal(size=(BATCH, width))
    rows = lambda: jnp.asarray(common + generator.normal(size=(BATCH, width)))
    views = range(3 if method.more_views else method.views)
    sizes = Sizes(images=IMAGES, classes=CLASSES, batch=BATCH, representation=5, embedding=width)
    online, seen = views[method.online_views], views[method.target_views]
    float64 = lambda tree: jax.tree.map(
        lambda leaf: leaf.astype(jnp.float64) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf,
        tree,
    )
    trained = {
        "embeddings": tuple(rows() for _ in online),
        "predictions": tuple(rows() for _ in online) if method.predictor else (),
        "params": float64(method.init_params(jax.random.key(1), sizes)),
    }
    targets = tuple(rows() for _ in seen) if isinstance(method.target, MomentumEncoder) else ()
    patches = lambda: tuple(jnp.stack([rows() for _ in range(3)], 1) for _ in seen)
    trained["patches"] = patches() if isinstance(method, methods.Ibot) else ()
    indices = jnp.asarray(generator.permutation(IMAGES)[:BATCH], jnp.int32)
    rest = {"targets": targets, "labels": jnp.asarray(LABELS, jnp.int32), "indices": indices}
    rest |= {
        "target_patches": patches() if trained["patches"] else (),
        "masks": tuple(
            MASKS[:, 3 * view : 3 * view + 3] for view, _ in enumerate(trained["patches"])
        ),
    }
    return trained, rest, float64(somewhere(method.init_state(jax.random.key(2), sizes), generator))


def somewhere(state, generator):
    """The state, its moments other than zero, its clusters with temperatures of their own."""
    if isinstance(state, dict) and "clusterings" in state:
        uneven = lambda found: Clusters(*found[:2], jnp.linspace(0.1, 0.5, len(found.prototypes)))
        return {**state, "clusterings": tuple(map(uneven, state["clusterings"]))}
    if isinstance(state, dict) and "center" in state:
        return jax.tree.map(lambda leaf: jnp.asarray(generator.normal(size=leaf.shape)), state)
    leaves = jax.tree.leaves(state)
    if not leaves or any(leaf.any() for leaf in leaves):
        return state

    def moved(leaf):  # means [1, D], covariances [D, D]
        draw = generator.normal(size=(leaf.shape[1], leaf.shape[0]))
        return leaf + 0.1 * (draw.T @ draw if len(leaf) > 1 else draw.T)

    return jax.tree.map(moved, state)


def observed(method, trained, rest):
    """The outputs of a step, from what `drawn` drew."""
    targets = rest["targets"] or trained["embeddings"]
    if isinstance(method.target, MomentumEncoder | StopGradient):
        targets = jax.lax.stop_gradient(targets)
    return Outputs(
        embeddings=trained["embeddings"],
        predictions=trained["predictions"] or trained["embeddings"],
        targets=targets,
        representations=trained["embeddings"],
        labels=rest["labels"],
        indices=rest["indices"],
        params=trained["params"],
        key=jax.random.key(5),
        step=jnp.int32(STEP),
        epoch=jnp.int32(EPOCH),
        progress=jnp.asarray(0.5),
        patches=trained["patches"],
        target_patches=jax.lax.stop_gradient(rest["target_patches"]),
        masks=rest["masks"],
    )


def on_two_devices(method, trained, rest, state):
    """Value and gradients of the objective, with the batch on two devices."""

    def on_each(trained, rest, state):
        share = lambda trained: method.objective(observed(method, trained, rest), state, "batch")
        value, gradients = jax.value_and_grad(share)(trained)
        gradients = {
            **jax.tree.map(lambda g: g / 2, gradients),
            "params": jax.lax.pmean(gradients["params"], "batch"),
        }
        return jax.lax.pmean(value, "batch"), gradients

    spread = dict.fromkeys(("embeddings", "predictions", "patches"), P("batch")) | {"params": P()}
    mapped = jax.shard_map(
        on_each,
        mesh=mesh(2),
        in_specs=(spread, P("batch"), P()),
        out_specs=(P(), spread),
        check_vma=False,
    )
    return jax.jit(mapped)(trained, rest, state)


@pytest.mark.parametrize("name", ROWS)
def test_objective_is_what_is_written(name):
    method, expected = ROWS[name]
    with jax.enable_x64(True):
        trained, rest, state = drawn(method)

        def ours(trained):
            return method.objective(observed(method, trained, rest), state, None)

        def by_hand(trained):
            out = observed(method, trained, rest)
            seen = {
                "z": out.embeddings,
                "q": out.predictions,
                "k": out.targets,
                "params": out.params,
            }
            seen |= {"state": state, "key": out.key, "indices": out.indices}
            seen |= {
                "patches": out.patches,
                "target_patches": out.target_patches,
                "masks": (MASKS[:, :3], MASKS[:, 3:]),
            }
            with jax.numpy_rank_promotion("allow"):
                return expected(types.SimpleNamespace(**seen))

        found, want = jax.jit(
            lambda t: tuple(map(lambda f: jax.value_and_grad(f)(t), (ours, by_hand)))
        )(trained)
        near = lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-7, atol=1e-9)
        jax.tree.map(near, found, want)
        if not carries(METHODS[name]):
            jax.tree.map(near, on_two_devices(method, trained, rest, state), want)
    assert np.isfinite(want[0]) and any(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(want[1]))
