"""A network that also embeds patch tokens, some of them masked."""

from typing import Any

import jax.numpy as jnp

from jaxclr.augment import block_masks
from jaxclr.encoders.custom import PerView, towers_of
from jaxclr.errors import UserError
from jaxclr.methods.base import Branch, Network, Tree


class PatchNetwork(Network):
    """A network that also embeds the patch tokens of the first views, by the same projector.

    With a key "mask" among the rngs, patches are masked; the step gives it to the online network.

    Attributes:
      views: the number of these views.
      probability: that an image is masked.
      ratio: least and largest share of its masked patches.
    """

    views: int = 2
    probability: float = 0.5
    ratio: tuple[float, float] = (0.1, 0.5)

    def __call__(self, x: Tree, train: bool, view: int = 0) -> Branch:
        if view >= self.views:
            return super().__call__(x, train, view)
        encoder, projector = (
            part.modules[view] if isinstance(part, PerView) else part
            for part in (self.encoder, self.projector)
        )
        images, (rows, columns) = len(x), (side // encoder.patch for side in x.shape[1:3])
        masks = None
        if self.has_rng("mask"):
            masks = block_masks(
                self.make_rng("mask"),
                images,
                (rows, columns),
                probability=self.probability,
                ratio=self.ratio,
            )
        representation, patches = encoder.tokens(x, train, masks)
        width = representation.shape[-1]
        if patches.shape != (images, rows, columns, width):
            raise UserError(
                f"encoder.tokens gives patch tokens {[*patches.shape]} and representations "
                f"{[*representation.shape]} for {images} images of {rows} x {columns} patches; it "
                f"must give patch tokens {[images, rows, columns, width]}."
            )
        tokens = jnp.concatenate(
            [representation[:, None], patches.reshape(images, -1, width)], axis=1
        )
        embedded = projector(tokens.reshape(-1, width), train).reshape(
            images, 1 + rows * columns, -1
        )
        return Branch(
            representation,
            embedded[:, 0],
            embedded[:, 0],
            embedded[:, 1:],
            None if masks is None else masks.reshape(images, -1),
        )


def check_gives_patches(method: str, encoder: Any, network: Network) -> None:
    """Raises UserError unless the encoder's modules have `patch` and `tokens`."""
    modules = network.encoder.modules if isinstance(network.encoder, PerView) else [network.encoder]
    for tower, module in zip(towers_of(encoder), modules, strict=True):
        if not (callable(getattr(module, "tokens", None)) and hasattr(module, "patch")):
            raise UserError(
                f"{method} needs patch tokens, which the encoder {type(tower).__name__} does not "
                "give; choose a ViT, or a Linen module with a field `patch` and a method "
                "`tokens(images, train, mask)`."
            )
