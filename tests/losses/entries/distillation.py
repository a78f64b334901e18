"""Losses of a student's scores and a teacher's."""

import numpy as np
from battery import ROWS, Entry, softmax

from jaxclr import losses


def scores(generator, rows, width):
    """Scores of four views by the student, of two by the teacher, and a center."""
    common = generator.normal(size=(rows, width))
    draw = lambda count: common + 0.5 * generator.normal(size=(count, rows, width))
    return draw(4), draw(2), generator.normal(size=width)


def dino(student, teacher, center, temperature, teacher_temperature):
    terms = [
        -np.sum(softmax((t - center) / teacher_temperature) * np.log(softmax(s / temperature)))
        for i, t in enumerate(teacher)
        for j, s in enumerate(student)
        if i != j
    ]
    return np.mean(terms) / student.shape[1]


def centered(student, teacher, axis_name=None, **settings):
    """With the center of the batch."""
    center = losses.dino_center(teacher, axis_name=axis_name)
    return losses.dino(student, teacher, center, **settings, axis_name=axis_name)


def patch_scores(generator, rows, width):
    """Scores of five patches by student and teacher, a mask without the first image, a center."""
    common = generator.normal(size=(rows, 5, width))
    draw = lambda: common + 0.5 * generator.normal(size=common.shape)
    mask = generator.random((rows, 5)) < 0.5
    mask[0] = False
    return draw(), draw(), mask, generator.normal(size=width)


def ibot_patch(student, teacher, mask, center, temperature, teacher_temperature):
    of_images = []
    for s, t, masked in zip(student, teacher, mask, strict=True):
        shares = softmax((t - center) / teacher_temperature)
        terms = -np.sum(shares * np.log(softmax(s / temperature)), axis=1)
        of_images.append(terms[masked].mean() if masked.any() else 0)
    return np.mean(of_images)


SETTINGS = {"temperature": 0.7, "teacher_temperature": 0.3}
AS_THEY_ARE = {"scaling": "scores are taken as they are"}
ENTRIES = (
    Entry(
        "dino",
        losses.dino,
        lambda *arrays: dino(*arrays, **SETTINGS),
        SETTINGS,
        make=scores,
        spread=(1, 1, None),
        stopped=(1, 2),
        exempt=AS_THEY_ARE,
        positive=tuple(SETTINGS),
    ),
    Entry(
        "dino-centered",
        centered,
        lambda student, teacher: dino(student, teacher, teacher.mean(axis=(0, 1)), **SETTINGS),
        SETTINGS,
        make=lambda *sizes: scores(*sizes)[:2],
        spread=(1, 1),
        stopped=(1,),
        exempt=AS_THEY_ARE,
        positive=tuple(SETTINGS),
    ),
    Entry(
        "ibot_patch",
        losses.ibot_patch,
        lambda *arrays: ibot_patch(*arrays, **SETTINGS),
        SETTINGS,
        make=patch_scores,
        spread=(0, 0, 0, None),
        stopped=(1, 3),
        exempt=AS_THEY_ARE,
        positive=tuple(SETTINGS),
        rows=(ROWS, 7, 2),
    ),
)
