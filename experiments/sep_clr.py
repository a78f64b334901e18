"""Two data sets: photographs, and photographs under digits. SepCLR separates the two.

    jaxclr train experiments/sep_clr.py
    python experiments/sep_clr.py               trains SepCLR and SimCLR, and prints the table
    python experiments/sep_clr.py SOURCE [DIR]  the same on photographs of your own, with labels:
                                                tfds:cifar10 and its --data.dir, or folder:PATH

Background images are patches of scikit-learn's two sample photographs, and target images other
patches with one of its digits on top, as in the paper's CIFAR-10 with MNIST. The place of a patch
is common to both data sets, the digit is salient. Training knows only to which of the two an image
belongs. A linear classifier then predicts place (16) and digit (10) of held-out target images from
each half of the representation.

Two folders of your own need no program:

    jaxclr train --method sep_clr --data.source folder:PATH    with PATH/background, PATH/target

Seed 0, 264 steps, in percent (two cores of an Intel Xeon, JAX 0.10.2); a guess gives 7.8 and 12.8:

    features                 place   digit
    pixels                    19.7    94.4
    SimCLR                    23.3    95.0
    SepCLR                    26.1    89.4
    SepCLR, common half       22.5    89.2
    SepCLR, salient half      22.2    79.2

So few steps do not separate the two: the salient half should know the digit best, and the common
half should not know it.
"""

import sys

import numpy as np
from sklearn.datasets import load_digits, load_sample_images
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import jaxclr
from jaxclr import methods
from jaxclr.augment import Augmentation, PhotoView
from jaxclr.data import Arrays, Data
from jaxclr.encoders import Copies, SmallConv
from jaxclr.methods import Method
from jaxclr.training import AdamW, Config

SIDE, ROWS, COLUMNS = 16, 2, 4  # of patches in pixels, and of places in each photograph
TRAIN, TEST = 1437, 360  # images of each data set

# Pixels, places and digits of images; -1 for background images.
Images = tuple[np.ndarray, np.ndarray, np.ndarray]


def photographs(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Patches and places for training, and from other parts of the places for testing."""
    patches, places = [[], []], [[], []]
    for number, photo in enumerate(load_sample_images().images):
        # Half the resolution, so that a patch shows more.
        small = photo[: 2 * (len(photo) // 2)].reshape(len(photo) // 2, 2, -1, 2, 3).mean((1, 3))
        height, width = len(small) // ROWS, small.shape[1] // COLUMNS
        for row in range(ROWS):
            for column in range(COLUMNS):
                place = small[row * height :, column * width :][:height, :width]
                parts = place[:, : 3 * width // 4], place[:, 3 * width // 4 :]
                for split, (part, count) in enumerate(zip(parts, (TRAIN, TEST), strict=True)):
                    each = -(-count // (ROWS * COLUMNS))
                    tops = rng.integers(0, part.shape[0] - SIDE + 1, each)
                    lefts = rng.integers(0, part.shape[1] - SIDE + 1, each)
                    for top, left in zip(tops, lefts, strict=True):
                        patches[split].append(part[top : top + SIDE, left : left + SIDE])
                    places[split] += [(number * ROWS + row) * COLUMNS + column] * each
    return tuple(map(np.asarray, (patches[0], places[0], patches[1], places[1])))


def of_source(source: str, folder: str | None = None) -> tuple[np.ndarray, ...]:
    """Images and labels for training and for testing, as of `photographs`, of a named source."""
    dataset = jaxclr.data.load(Data(source, dir=folder, streaming="never"))
    train, test = dataset.train, dataset.test
    return train.examples, train.labels, test.examples, test.labels


def problem(photos: tuple[np.ndarray, ...] | None = None, seed: int = 0) -> tuple[Images, Images]:
    """The images for training and for testing, background images first."""
    rng = np.random.default_rng(seed)
    train, train_places, test, test_places = photos or photographs(rng)
    pixels, digits = load_digits(return_X_y=True)
    order = rng.permutation(len(digits))
    pixels, digits = pixels[order].reshape(-1, 8, 8) * (255 / 16), digits[order]
    of = lambda photos, places, part: _under(photos, places, pixels[part], digits[part], rng)
    return of(train, train_places, slice(TRAIN)), of(test, test_places, slice(TRAIN, TRAIN + TEST))


def _under(
    photos: np.ndarray,
    places: np.ndarray,
    pixels: np.ndarray,
    digits: np.ndarray,
    rng: np.random.Generator,
) -> Images:
    """As many background as target images: half of each pixel is the photograph's."""
    count = len(digits)
    chosen = rng.permutation(len(photos))[: 2 * count]
    drawn = np.zeros((2 * count, *photos.shape[1:3], 1))
    drawn[count:] = np.kron(pixels, np.ones([side // 8 for side in photos.shape[1:3]]))[..., None]
    images = np.round((photos[chosen] + drawn) / 2).astype(np.uint8)
    return images, places[chosen], np.concatenate([np.full(count, -1), digits])


def config(method: Method | None = None, images: tuple[Images, Images] | None = None) -> Config:
    (train, _, digits), (test, _, test_digits) = images or problem()
    view = PhotoView(size=train.shape[1], crop_scale=(0.5, 1.0), flip=0.0)
    return Config(
        method=method or methods.SepClr(),
        encoder=Copies(SmallConv()),
        data=Arrays(
            train,
            (digits >= 0).astype(int),
            test,
            (test_digits >= 0).astype(int),
            classes=("background", "target"),
        ),
        augmentation=Augmentation((view, view)),
        optimizer=AdamW(learning_rate=4e-3, weight_decay=1e-4),
        epochs=12,
        batch_size=128,
        warmup_epochs=1.0,
        clip_norm=1.0,
    )


def accuracies(features: tuple[np.ndarray, np.ndarray], images: tuple[Images, Images]) -> list:
    """Of linear classifiers of place and digit, on held-out target images, in percent."""
    targets = [found >= 0 for _, _, found in images]
    found = []
    for attribute in (1, 2):
        (x, y), (test_x, test_y) = (
            (rows[target], split[attribute][target])
            for rows, split, target in zip(features, images, targets, strict=True)
        )
        classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
        found.append(100 * classifier.fit(x, y).score(test_x, test_y))
    return found


def main(*source: str) -> None:
    images = problem(of_source(*source) if source else None)
    rows = {"pixels": tuple(split[0].reshape(len(split[0]), -1) / 255 for split in images)}
    for name, method in (("SepCLR", methods.SepClr()), ("SimCLR", methods.SimClr(temperature=0.5))):
        run = jaxclr.train(config(method, images), out=f"runs/sep_clr-{name}", overwrite=True)
        encode = run.load().encode
        found = tuple(np.asarray(encode(split[0])) for split in images)
        rows[name] = found
        if name == "SepCLR":
            half = found[0].shape[1] // 2
            rows["SepCLR, common half"] = tuple(rows[:, :half] for rows in found)
            rows["SepCLR, salient half"] = tuple(rows[:, half:] for rows in found)
    print(f"{'accuracy of a linear classifier, %':36}{'place':>8}{'digit':>8}")
    for name, features in rows.items():
        print(f"{name:36}" + "".join(f"{found:8.1f}" for found in accuracies(features, images)))
    _, places, digits = images[1]
    largest = [100 * np.bincount(split[digits >= 0]).max() / TEST for split in (places, digits)]
    print(f"{'the most frequent class':36}" + "".join(f"{found:8.1f}" for found in largest))


if __name__ == "__main__":
    main(*sys.argv[1:])
