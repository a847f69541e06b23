"""Small data sets, made of noise."""

import dataclasses

import numpy as np
import torch

from contrastive.data.images import make_images


def images_of(n_train=60, side=28, n_classes=2, labelled=None, groups=None, validation=()):
    """Random images, of which the first `labelled` of those to train on have a label."""
    rng = np.random.default_rng(0)
    pixels = [rng.integers(0, 256, (n, 1, side, side), np.uint8) for n in (n_train, 40)]
    labels = [np.arange(n) % n_classes for n in (n_train, 40)]
    images = make_images("mine", [pixels[0], labels[0], pixels[1], labels[1]])
    train_labels = images.train_labels.clone()
    train_labels[labelled if labelled is not None else n_train :] = -1
    return dataclasses.replace(
        images,
        train_labels=train_labels,
        classes=images.classes if labelled != 0 else (),
        groups=torch.as_tensor([] if groups is None else groups, dtype=torch.int64),
        validation=torch.as_tensor(validation, dtype=torch.int64),
    )


def without_test(n_train=60, **options):
    """Such images, of which none is to test on: those with a label are cross-validated."""
    images = images_of(n_train, **options)
    return dataclasses.replace(images, test=images.test[:0], test_labels=images.test_labels[:0])
