"""The map of images holds what it was given, in little room."""

import base64
import csv
import io
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from contrastive.report.explorer import COLUMNS, LARGEST_HTML, MOST, ROWS, explore, inert_cell, sheets
from contrastive.settings import UserError


def unpacked(text, kind):
    return np.frombuffer(base64.b64decode(text), kind).tolist()


def cut(told, i):
    """Thumbnail i of the sheets, uint8 3 x H x W."""
    page, place = divmod(i, COLUMNS * ROWS)
    sheet = np.array(Image.open(io.BytesIO(base64.b64decode(told["src"][page]))).convert("RGB"))
    x, y = place % COLUMNS * told["cell"][0], place // COLUMNS * told["cell"][1]
    return torch.from_numpy(sheet[y : y + told["height"], x : x + told["width"]]).permute(2, 0, 1)


@pytest.mark.parametrize("shape", [(7, 1, 28, 28), (1100, 3, 20, 10), (3, 1, 100, 50), (40, 3, 64, 48), (1, 1, 1, 300)])
def test_thumbnails_are_the_images(shape):
    images = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0)).byte()
    told = sheets(images, room=10**7)
    assert max(told["width"], told["height"]) <= 48
    assert told["width"] / told["height"] == pytest.approx(shape[3] / shape[2]) or min(shape[2:]) == 1
    assert len(told["src"]) == -(-shape[0] // (COLUMNS * ROWS))
    for i in {0, shape[0] // 2, shape[0] - 1}:
        thumbnail = cut(told, i)
        if max(shape[2:]) <= 48:
            assert torch.equal(thumbnail, images[i].expand(3, -1, -1))
        else:
            assert thumbnail.float().mean() == pytest.approx(images[i].float().mean(), abs=3)


@pytest.mark.parametrize(("room", "side"), [(600_000, 48), (100_000, 32), (1000, 16)])
def test_thumbnails_are_as_good_as_there_is_room_for(room, side):
    """Smooth pictures, of which little is lost."""
    ramp = torch.linspace(0, 255, 96)
    images = torch.stack([(ramp[:, None] * (i % 5) / 4 + ramp[None] * (4 - i % 5) / 4) for i in range(800)])
    noise = 30 * torch.randn(800, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    images = (images[:, None] * 0.8 + 20 + noise).clamp(0, 255).byte()
    told = sheets(images, room)
    assert max(told["width"], told["height"]) == side
    if room > 1000:  # which is too little for anything
        assert 0.3 * room < sum(map(len, told["src"])) <= room
    for i in (0, 799):
        shown = cut(told, i).float()
        truth = torch.nn.functional.interpolate(images[i : i + 1].float(), (side, side), mode="area")[0]
        assert (shown - truth).abs().mean() < 12


def test_ten_thousand_of_the_worst_images_take_no_more_than_they_may():
    images = torch.randint(0, 256, (MOST, 3, 48, 48), generator=torch.Generator().manual_seed(0)).byte()
    points = np.random.default_rng(0).normal(size=(3, MOST, 2))
    labels, near = torch.arange(MOST) % 10, (np.arange(MOST)[:, None] + np.arange(1, 7)) % MOST
    probabilities = torch.rand(MOST, 10, generator=torch.Generator().manual_seed(0)).softmax(1)
    names = [f"some_folder/of_another_folder/image_{i:05}.png" for i in range(MOST)]
    spaces = dict(zip(("random", "ImageNet", "own"), points, strict=True))
    shown = explore(images, spaces, labels, probabilities, list("abcdefghij"), near.tolist(), groups=names, names=names)
    size = len(shown.html().encode())
    assert 0.6 * LARGEST_HTML < size <= LARGEST_HTML
    assert len(shown.data["sheets"]["src"]) == -(-MOST // (COLUMNS * ROWS))


@pytest.mark.parametrize("n", [0, MOST + 1])
def test_too_many_images_are_refused(n):
    with pytest.raises(UserError, match=rf"a map of {n:,} images .* at most 10,000"):
        explore(torch.zeros(n, 1, 1, 1, dtype=torch.uint8), np.zeros((n, 2)), None, None, [])


def test_a_map_holds_what_it_was_given():
    images, points = torch.zeros(4, 1, 8, 8, dtype=torch.uint8), np.array([[0.0, 0], [1, 0], [0, 2], [1, 2]])
    probabilities = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.5, 0.5]])
    shown = explore(images, points, torch.tensor([0, 0, 1, 1]), probabilities, ["a", "</script>"], [[1], [0], [3], [2]])
    data, most = shown.data, 65535
    assert unpacked(data["predicted"], "<i2") == [0, 1, 1, 0]
    assert unpacked(data["label"], "<i2") == [0, 0, 1, 1]
    assert unpacked(data["sure"], "u1") == [90, 80, 60, 50]
    # x and y of each image; y grows downwards there
    assert unpacked(data["spaces"][0]["at"], "<u2") == [0, most, most, most, 0, 0, most, 0]
    assert (data["neighbours"]["of_each"], unpacked(data["neighbours"]["at"], "<u2")) == (1, [1, 0, 3, 2])
    assert "the 2 that the linear probe gets wrong" in shown.alt
    html = shown._repr_mimebundle_()["text/html"]
    assert html.count("</script>") == 2  # a name cannot end it
    told = re.search(r'<script type="application/json">(.*?)</script>', html)[1]
    assert json.loads(told) == data


def test_what_is_missing_is_left_out():
    images, points = torch.zeros(5, 3, 8, 8, dtype=torch.uint8), np.random.default_rng(0).normal(size=(5, 2))
    nothing = explore(images, {"one": points, "two": -points}, None, None, [])
    assert [space["name"] for space in nothing.data["spaces"]] == ["one", "two"]
    for part in ("label", "predicted", "sure", "neighbours", "groups", "names"):
        assert nothing.data[part] is None
    probabilities = torch.tensor([[0.3, 0.7]] * 4 + [[torch.nan, torch.nan]])
    labels, near = torch.tensor([-1, 1, 0, -1, -1]), [[1, 2], [0], [], [4, 0], [1]]
    groups = ["b", "a", "b", "", "c"]
    some = explore(images, points, labels, probabilities, ["x", "y"], near, groups=groups)
    assert unpacked(some.data["label"], "<i2") == [-1, 1, 0, -1, -1]
    assert unpacked(some.data["predicted"], "<i2") == [1, 1, 1, 1, -1]  # the last was not judged
    assert unpacked(some.data["sure"], "u1") == [70, 70, 70, 70, 0]
    assert unpacked(some.data["neighbours"]["at"], "<u2") == [1, 2, 0, 65535, 65535, 65535, 4, 0, 1, 65535]
    assert some.data["groups"]["names"] == ["b", "a", "c"]  # the largest first
    assert unpacked(some.data["groups"]["of"], "<u2") == [0, 1, 0, 65535, 2]


@pytest.mark.parametrize("name", ["=1+1", "+x", "-x", "@x", "\tx", "\rx", "\nx", "＝1", "＋1", "－1", "＠x"])
def test_cells_are_no_formulas(name):
    assert inert_cell(name) == f"'{name}"
    assert inert_cell(name, "./") == f"./{name}"
    assert inert_cell(f"a{name}") == f"a{name}"


def test_the_picture_without_scripts_has_a_table():
    images, points = torch.zeros(3, 1, 8, 8, dtype=torch.uint8), np.eye(3)[:, :2]
    probabilities, names = torch.tensor([[0.25, 0.75]] * 3), ["=a,b.png", 'b".png', "c\udcff.png"]
    shown = explore(
        images, points, torch.tensor([0, 1, -1]), probabilities, ["-x", "y"], groups=["p", "+q", ""], names=names
    )
    link = re.search(r"data:text/csv;base64,([^\"]+)", shown.static)[1]
    rows = list(csv.reader(io.StringIO(base64.b64decode(link).decode())))
    assert rows == [
        ["file", "label", "prediction", "certainty", "group"],
        ["./=a,b.png", "'-x", "y", "0.75", "p"],
        ['b".png', "y", "y", "0.75", "'+q"],
        ["c?.png", "", "y", "0.75", ""],
    ]
