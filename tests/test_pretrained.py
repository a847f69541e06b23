"""The encoders that come with the project."""

import json

import pytest
import torch

from contrastive import load_encoder, load_images
from contrastive.evaluation.probes import accuracy_percent, embed, knn_predict
from contrastive.settings import PRESETS, checkout
from contrastive.storage.tensors import hash_tensors

from .conftest import HAVE_MNIST

FOLDERS = sorted((checkout() / "reports/published/mnist-digits/encoders").iterdir())


def test_there_is_one_for_each_seed():
    stored = [json.loads((folder / "settings.json").read_text()) for folder in FOLDERS]
    assert [settings["seed"] for settings in stored] == list(range(PRESETS["digits"]["n_seeds"]))
    weights = [hash_tensors(load_encoder(folder).state_dict()) for folder in FOLDERS]
    assert len(set(weights)) == len(FOLDERS)


@pytest.mark.skipif(not HAVE_MNIST, reason="needs MNIST")
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_its_features_put_like_beside_like(folder):
    images, encoder = load_images("mnist"), load_encoder(folder)
    assert not any(weights.requires_grad for weights in encoder.parameters())
    n = 2000
    with torch.no_grad():
        bank, test = embed(encoder, images.train[:n]), embed(encoder, images.test[:n])
    found = knn_predict(bank, images.train_labels[:n], test, 10, 20)
    pixels = [part.flatten(1).float() for part in (images.train[:n], images.test[:n])]
    plain = knn_predict(pixels[0], images.train_labels[:n], pixels[1], 10, 20)
    right = accuracy_percent(found, images.test_labels[:n])
    assert right > 97
    assert right > accuracy_percent(plain, images.test_labels[:n]) + 5
