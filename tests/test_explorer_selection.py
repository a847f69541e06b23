"""Images that are selected on the map, in Chromium: by lasso and by keyboard, as pictures, names and a table."""

import numpy as np
import pytest

from .map_pages import CLASSES, N, colours, map_page, saved, selected


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return map_page(tmp_path_factory.mktemp("map"))


def test_the_pictures_are_those_of_the_images(opened, made):
    page = opened(made.path)
    page.get_by_role("button", name="Select all shown").click()
    page.get_by_role("button", name="Show more").click()
    pictures = page.locator(".selection li canvas")
    assert pictures.count() == selected(page) == N
    pixel = """(picture) => {
        const one = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
        one.drawImage(picture, 6, 6, 1, 1, 0, 0, 1, 1);
        return [...one.getImageData(0, 0, 1, 1).data].slice(0, 3);
    }"""
    page.wait_for_function(f"({pixel})(document.querySelector('.selection li:last-child canvas'))[1] > 0")
    for i in (0, 44, 89):
        assert pictures.nth(i).evaluate(pixel) == made.images[i, :, 6, 6].tolist()
    assert page.locator(".selection li button").nth(44).get_attribute("title") == made.names[44]
    page.get_by_role("button", name="Pictures", exact=True).click()  # on the map
    page.locator(".explorer .map").evaluate("e => e.scrollIntoView({behavior: 'instant', block: 'center'})")
    x, y = made.pixels(page, 44)
    near = colours(page, x, y, 24)[::6, ::6].reshape(-1, 3)
    greens = (np.abs(near[:, 0] - near[:, 2]) < 3) & (np.abs(near[:, 0] + near[:, 1] - 255) < 3)
    assert greens.sum() >= 3  # as the images are: red is blue, and green is the rest


def test_a_selection_by_keyboard(opened, made):
    page = opened(made.path)
    page.locator(".explorer .map").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    assert selected(page) == 1
    assert "added, 1 selected" in page.locator(".spoken").inner_text()
    page.keyboard.press("Space")
    assert selected(page) == 0

    points = made.spaces["a"]
    places = {name: i for i, name in enumerate(made.names)}
    here = lambda: places[page.locator(".explorer .tip").inner_text().partition(": ")[0]]  # noqa: E731
    page.keyboard.press("r")
    first = here()
    for key in ("ArrowRight", "ArrowDown", "ArrowRight", "ArrowDown", "ArrowDown"):
        page.keyboard.press(key)
    last = here()
    page.keyboard.press("R")
    low, high = np.minimum(points[first], points[last]), np.maximum(points[first], points[last])
    inside = np.flatnonzero(((points >= low) & (points <= high)).all(1))
    assert len(inside) >= 4
    assert [row["file"] for row in saved(page)] == [f"./{made.names[i]}" for i in inside]
    page.locator(".explorer .map").focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("r")
    page.keyboard.press("Escape")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("r")  # a first corner again
    assert selected(page) == len(inside)
    page.get_by_role("button", name="Clear").click()
    assert selected(page) == 0
    assert page.get_by_role("button", name="Save as CSV").is_disabled()


def test_a_selection_by_lasso(opened, made):
    page = opened(made.path, permissions=["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Select by lasso").click()
    page.locator(".explorer .map").evaluate("e => e.scrollIntoView({behavior: 'instant', block: 'center'})")
    every = np.array([made.pixels(page, i) for i in range(N)])
    low, high = every.min(0), every.max(0)
    middle, reach = (low + high) / 2, (high - low) * 0.3
    corners = middle + reach * np.array([[0, -1], [1, 0], [0, 1], [-1, 0]])  # a diamond
    page.mouse.move(*corners[0])
    page.mouse.down()
    for corner in [*corners[1:], corners[0]]:
        page.mouse.move(*corner, steps=4)
    page.mouse.up()
    away = (np.abs(every - middle) / reach).sum(1)
    assert np.abs(away - 1).min() > 0.002  # none is on the line
    inside = np.flatnonzero(away < 1)
    assert 8 < len(inside) < N / 2
    assert selected(page) == page.locator(".selection li").count() == len(inside)
    assert page.locator(".panel .chosen").count() == 0  # it was no click
    assert saved(page) == [
        {
            "file": f"./{made.names[i]}",
            "label": CLASSES[made.labels[i]] if made.labels[i] >= 0 else "",
            "prediction": CLASSES[made.predicted[i]] if made.predicted[i] >= 0 else "",
            "certainty": row["certainty"],
            "group": f"'@patient {i % 15}",
        }
        for i, row in zip(inside, saved(page), strict=True)
    ]
    page.get_by_role("button", name="Copy file names").click()
    page.get_by_role("button", name="Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == "\n".join(made.names[i] for i in inside)
    page.locator(".selection li button").first.click()
    assert made.names[inside[0]] in page.locator(".panel .chosen").inner_text()
    page.get_by_role("button", name="Select this image").click()  # which takes it out
    assert selected(page) == len(inside) - 1


def test_names_that_may_not_be_copied_are_shown(opened, made):
    page = opened(made.path)
    page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('not allowed')); }")
    page.get_by_role("button", name="Select all shown").click()
    page.get_by_role("button", name="Copy file names").click()
    assert page.locator(".selection textarea").input_value().split("\n") == made.names
