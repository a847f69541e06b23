"""The map of images: it holds what it was given, and works by mouse, keyboard and finger, in Chromium."""

import base64
import io
import re

import numpy as np
import pytest
import torch
from PIL import Image

from contrastive.report.explorer import COLUMNS, explore, thumbnails


@pytest.mark.parametrize("shape", [(7, 1, 28, 28), (45, 3, 20, 10), (3, 1, 100, 50)])
def test_thumbnails_are_the_images(shape):
    images = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0)).byte()
    uri, (width, height) = thumbnails(images)
    sheet = torch.from_numpy(np.array(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))))
    sheet = sheet.reshape(*sheet.shape[:2], -1)
    assert max(width, height) <= 48
    if shape[-1] * 2 == shape[-2]:
        assert width * 2 == height
    for i in (0, len(images) - 1):
        x, y = i % COLUMNS * width, i // COLUMNS * height
        cut = sheet[y : y + height, x : x + width].permute(2, 0, 1)
        if shape[-2] <= 48:
            assert torch.equal(cut, images[i])
        else:
            assert cut.float().mean() == pytest.approx(images[i].float().mean(), abs=1)


def test_a_map_holds_what_it_was_given():
    images, points = torch.zeros(4, 1, 8, 8, dtype=torch.uint8), np.array([[0.0, 0], [1, 0], [0, 2], [1, 2]])
    probabilities = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.5, 0.5]])
    shown = explore(images, points, torch.tensor([0, 0, 1, 1]), probabilities, ["a", "</script>"], [[1], [0], [3], [2]])
    assert shown.data["predicted"] == [0, 1, 1, 0]
    assert shown.data["sure"] == [90, 80, 60, 50]
    assert (shown.data["x"], shown.data["y"]) == ([0, 1000, 0, 1000], [1000, 1000, 0, 0])  # y grows downwards there
    assert "the 2 that the linear probe gets wrong" in shown.alt
    assert shown._repr_mimebundle_()["text/html"].count("</script>") == 2  # a name cannot end it


def test_the_map_by_mouse_and_keyboard(opened, report):
    page = opened(report[0] / "02_linear_eval.html")
    explorer, svg = page.locator(".explorer"), page.locator(".explorer svg")
    assert not explorer.locator(".static").is_visible()
    svg.scroll_into_view_if_needed()
    mark = explorer.locator("path.right").nth(5).bounding_box()
    page.mouse.move(mark["x"] + mark["width"] / 2, mark["y"] + mark["height"] / 2)
    assert re.match(r"Test image \d+: label \d", explorer.locator(".tip").inner_text())
    page.mouse.down()
    page.mouse.up()
    assert re.search(r"\d of its 6 nearest neighbours share", explorer.locator(".panel").inner_text())
    assert explorer.locator(".panel li").count() == explorer.locator(".links line").count() == 6

    svg.focus()
    page.keyboard.press("Escape")
    assert explorer.locator(".panel li").count() == 0
    said = set()
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "ArrowLeft"):
        page.keyboard.press(key)
        said.add(explorer.locator(".spoken").inner_text())
    assert len(said) >= 3
    page.keyboard.press("Enter")
    assert explorer.locator(".panel li").count() == 6
    neighbour = explorer.locator(".panel li button").first
    number = re.search(r"\d+", neighbour.get_attribute("aria-label"))[0]
    neighbour.focus()
    page.keyboard.press("Enter")
    assert f"Test image {number}:" in explorer.locator(".panel .chosen").inner_text()
    assert page.evaluate("document.activeElement.closest('.panel') !== null")  # so that Tab goes on from there

    shown = explorer.locator("path:visible").count()
    before = explorer.locator("path.right").first.get_attribute("transform")
    svg.focus()
    page.keyboard.press("Control+0")  # the browser's own
    page.keyboard.press("ArrowRight")
    page.keyboard.press("+")
    page.wait_for_function(
        "before => document.querySelector('.explorer path.right').getAttribute('transform') !== before", arg=before
    )
    for key in ("+", "+", *["ArrowLeft", "ArrowUp"] * 10):
        page.keyboard.press(key)
    page.wait_for_timeout(500)
    frame, ring = (explorer.locator(name).bounding_box() for name in ("svg", ".ring"))
    assert frame["x"] <= ring["x"] + 9 <= frame["x"] + frame["width"]
    assert frame["y"] <= ring["y"] + 9 <= frame["y"] + frame["height"]
    page.keyboard.press("Escape")
    explorer.get_by_role("button", name="Mistakes only").click()
    wrong = explorer.locator("path.wrong").count()
    assert 0 < wrong < shown
    assert f"{wrong} of them mistakes" in explorer.locator(".count").inner_text()
    assert explorer.locator('path:not([style*="display: none"])').count() == wrong


def test_the_maps_pictures_and_words_belong_together(opened, report):
    """What the map says of an image is what the notebook's data say, and the picture is that image."""
    from contrastive import load_images

    images = load_images("digits")
    page = opened(report[0] / "02_linear_eval.html")
    svg = page.locator(".explorer svg")
    svg.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    said = page.locator(".explorer .chosen p").inner_text()
    number, label = map(int, re.match(r"Test image (\d+): label (\d)", said).groups())
    assert images.classes[images.test_labels[number]] == str(label)
    thumbnail = page.locator(".explorer .chosen .thumbnail")
    thumbnail.scroll_into_view_if_needed()
    seen = Image.open(io.BytesIO(thumbnail.screenshot())).convert("L").resize((28, 28), Image.Resampling.BOX)
    truth = Image.fromarray(images.test[number, 0].numpy()).resize((28, 28), Image.Resampling.BOX)
    difference = sum(abs(a - b) for a, b in zip(seen.tobytes(), truth.tobytes(), strict=True)) / 28**2
    assert difference < 12


def test_a_tap_shows_an_image(opened, report):
    page = opened(report[0] / "02_linear_eval.html", 360, has_touch=True, is_mobile=True)
    svg = page.locator(".explorer svg")
    svg.scroll_into_view_if_needed()
    mark = page.locator(".explorer path.right").nth(5).bounding_box()
    page.touchscreen.tap(mark["x"] + mark["width"] / 2, mark["y"] + mark["height"] / 2)
    assert page.locator(".explorer .panel li").count() == 6
    assert page.locator(".explorer .tip").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
