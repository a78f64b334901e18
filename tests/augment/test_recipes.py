"""Several views, and the recipes by name."""

import jax
import numpy as np
import pytest

from jaxclr.augment import AUGMENTATIONS, Augmentation, DigitView, PhotoView, with_size, with_views
from jaxclr.errors import UserError


def test_views_are_drawn_from_the_key_folded_with_their_place(photos):
    photo = PhotoView(size=16, jitter=0)
    augmentation = Augmentation((photo, DigitView(), photo))
    keys = jax.random.split(jax.random.key(3), 3)
    views = jax.jit(augmentation)(keys, photos)
    assert [view.shape for view in views] == [(3, 16, 16, 3), (3, 90, 120, 3), (3, 16, 16, 3)]
    assert not np.allclose(views[0], views[2])
    folded = jax.vmap(lambda key: jax.random.fold_in(key, 2))(keys)
    np.testing.assert_allclose(views[2], jax.jit(photo)(folded, photos), atol=1e-6)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_recipes_run(name, photos):
    augmentation = with_size(AUGMENTATIONS[name], 32)
    keys = jax.random.split(jax.random.key(0), 3)
    shapes = [view.shape for view in jax.eval_shape(augmentation, keys, photos)]
    small = {"multi_crop": [(3, 14, 14, 3)] * 6, "cifar_multi_crop": [(3, 16, 16, 3)] * 4}
    first = (3, 90, 120, 3) if name == "digits" else (3, 32, 32, 3)
    assert shapes == [first] * 2 + small.get(name, [])


def test_recipes_are_the_published_ones():
    first, second = AUGMENTATIONS["byol"].views
    assert (first.blur, second.blur, first.solarize, second.solarize) == (1.0, 0.1, 0.0, 0.2)
    for name, jitter in {
        "simclr": (0.8, 0.8, 0.8, 0.2),
        "moco": (0.4, 0.4, 0.4, 0.1),
        "byol": (0.4, 0.4, 0.2, 0.1),
        "cifar": (0.4, 0.4, 0.4, 0.1),
    }.items():
        for view in AUGMENTATIONS[name].views:
            assert (view.brightness, view.contrast, view.saturation, view.hue) == jitter
            assert (view.jitter, view.grayscale, view.flip) == (0.8, 0.2, 0.5)
            assert view.size == (32 if name == "cifar" else 224)
            assert view.crop_scale == ((0.08, 1.0) if name in ("simclr", "byol") else (0.2, 1.0))


def test_with_size_leaves_digit_views():
    mixed = Augmentation((PhotoView(size=224), DigitView()))
    assert with_size(mixed, 64) == Augmentation((PhotoView(size=64), DigitView()))


def test_multi_crop_is_swavs():
    views = AUGMENTATIONS["multi_crop"].views
    assert [view.size for view in views] == [224] * 2 + [96] * 6
    assert [view.crop_scale for view in views] == [(0.14, 1.0)] * 2 + [(0.05, 0.14)] * 6
    assert all((view.hue, view.brightness, view.blur) == (0.2, 0.8, 0.5) for view in views)


def test_with_views_cuts_or_starts_over():
    first, _second = views = AUGMENTATIONS["byol"].views
    assert with_views(AUGMENTATIONS["byol"], 5).views == (*views, *views, first)
    assert with_views(AUGMENTATIONS["byol"], 1).views == (first,)
    assert with_views(AUGMENTATIONS["byol"], 2) == AUGMENTATIONS["byol"]


def test_an_augmentation_has_a_view():
    with pytest.raises(UserError, match="at least one view"):
        Augmentation(())
