"""The map of images in Chromium: by mouse, keyboard and finger, in the light and in the dark."""

import io
import re

import numpy as np
import pytest
from PIL import Image

from contrastive.report.pictures import DARK, LIGHT, class_colours

from .map_pages import CLASSES, EVIL, N, colours, map_page, selected
from .test_pages import RULES


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return map_page(tmp_path_factory.mktemp("map"))


def test_by_mouse(opened, made):
    page = opened(made.path)
    explorer = page.locator(".explorer")
    assert not explorer.locator(".static").is_visible()
    explorer.locator(".map").scroll_into_view_if_needed()
    for i in (7, 30):
        page.mouse.move(*made.pixels(page, i))
        assert explorer.locator(".tip").inner_text().startswith(f"{made.names[i]}: ")
    page.mouse.down()
    page.mouse.up()
    assert explorer.locator(".panel .chosen").inner_text().startswith(f"{made.names[30]}: ")
    near = explorer.locator(".panel li button")
    assert [near.nth(k).get_attribute("title") for k in range(6)] == [made.names[31 + k] for k in range(6)]
    page.mouse.move(5, 5)
    assert not explorer.locator(".tip").is_visible()
    assert page.evaluate("window.pwned") is None
    assert explorer.locator("img[src=x]").count() == 0
    # Dragged, a point is elsewhere; what is no wheel with Ctrl scrolls the page
    x, y = made.pixels(page, 30)
    page.mouse.move(x, y)
    page.keyboard.down("Control")
    page.mouse.wheel(0, -300)
    page.keyboard.up("Control")
    page.mouse.move(x + 150, y + 5)
    page.mouse.move(x, y)  # it was zoomed around it
    assert explorer.locator(".tip").inner_text().startswith(f"{made.names[30]}: ")
    page.mouse.down()
    page.mouse.move(x + 60, y + 40, steps=5)
    page.mouse.up()
    page.mouse.move(x + 61, y + 40)
    assert explorer.locator(".tip").inner_text().startswith(f"{made.names[30]}: ")


def test_what_is_said_of_an_image_is_what_was_given(opened, made):
    page = opened(made.path)
    page.locator(".explorer .map").scroll_into_view_if_needed()
    for i in range(0, N, 4):
        page.mouse.move(*made.pixels(page, i))
        said = page.locator(".explorer .tip").inner_text()
        label, guess = int(made.labels[i]), int(made.predicted[i])
        assert f"label {CLASSES[label]}" in said if label >= 0 else "no label" in said
        assert ("a mistake" in said) == (label >= 0 and guess >= 0 and label != guess)
        assert (f"the probe says {CLASSES[guess]}" in said) == (guess >= 0 and label != guess)
        assert f"group @patient {i % 15}" in said


def test_by_keyboard(opened, made):
    page = opened(made.path)
    explorer, frame = page.locator(".explorer"), page.locator(".explorer .map")
    spoken = explorer.locator(".spoken")
    frame.focus()
    said = set()
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp", "ArrowLeft"):
        page.keyboard.press(key)
        said.add(spoken.inner_text())
    assert len(said) >= 3
    page.keyboard.press("Enter")
    assert explorer.locator(".panel li").count() == 6
    neighbour = explorer.locator(".panel li button").first
    name = neighbour.get_attribute("title")
    neighbour.focus()
    page.keyboard.press("Enter")
    assert name in explorer.locator(".panel .chosen").inner_text()
    assert page.evaluate("document.activeElement.closest('.panel') !== null")  # so that Tab goes on from there
    frame.focus()
    page.keyboard.press("Control+0")  # the browser's own
    page.keyboard.press("ArrowRight")
    for key in ("+", "+", "+", *["ArrowLeft", "ArrowUp"] * 10):
        page.keyboard.press(key)
    page.wait_for_timeout(500)
    at = explorer.locator(".tip").evaluate("tip => [tip.style.left, tip.style.top].map(parseFloat)")
    assert all(0 <= share <= 100 for share in at)  # what is pointed at is in view
    page.keyboard.press("Escape")
    assert explorer.locator(".panel li").count() == 0


def test_colours_and_filters(opened, made):
    page = opened(made.path, color_scheme="light")
    explorer, count = page.locator(".explorer"), page.locator(".explorer .count")
    wrong = (made.labels >= 0) & (made.predicted >= 0) & (made.labels != made.predicted)
    i = int(((made.labels == 2) & (made.predicted == 2)).nonzero()[0])
    x, y = made.pixels(page, i)

    def seen(hexadecimal, paper):
        expected = np.array([int(hexadecimal[k : k + 2], 16) for k in (1, 3, 5)]) * 0.75 + 0.25 * paper
        return np.abs(colours(page, x, y, 3)[1, 1] - expected).max() < 12

    assert seen(class_colours(3, LIGHT)[2], 255)
    page.locator("#theme-switch").click()
    assert seen(class_colours(3, DARK)[2], np.array([18, 24, 29]))
    page.locator("#theme-switch").click()
    legend = explorer.locator(".legend")
    n = [int((made.labels == c).sum()) for c in (0, 1, 2, -1)]
    assert legend.locator("button").all_inner_texts() == [
        f"{a} {b}" for a, b in zip([*CLASSES, "no label"], n, strict=True)
    ]
    legend.get_by_role("button", name="two").click()
    assert count.inner_text().startswith(
        f"{n[1]} of {N} images shown, {int((wrong & (made.labels == 1)).sum())} of them"
    )
    explorer.get_by_role("button", name="Mistakes only").click()
    assert count.inner_text().startswith(f"{int((wrong & (made.labels == 1)).sum())} of {N} ")
    explorer.get_by_role("button", name="Mistakes only").click()
    ways = explorer.get_by_label("Colour by")
    assert ways.locator("option").all_inner_texts() == ["label", "prediction", "certainty", "group"]
    ways.select_option(label="prediction")
    assert count.inner_text().startswith(f"{N} of {N}")
    assert legend.get_by_role("button", name="not judged").inner_text() == "not judged 3"
    ways.select_option(label="certainty")
    assert "33 % sure, or less" in legend.inner_text()  # of three classes
    ways.select_option(label="group")
    assert legend.locator("button").count() == 11
    assert legend.locator("button").last.inner_text() == f"5 other groups {N // 3}"


@pytest.mark.parametrize("motion", ["reduce", "no-preference"])
def test_another_feature_space_has_its_own_places(opened, made, motion):
    page = opened(made.path, motion=motion)
    page.locator(".explorer .map").scroll_into_view_if_needed()
    page.get_by_role("button", name=EVIL).click()
    if motion == "no-preference":
        page.wait_for_timeout(1500)
    for i in (3, 50):
        page.mouse.move(*made.pixels(page, i, EVIL))
        assert page.locator(".explorer .tip").inner_text().startswith(f"{made.names[i]}: ")
    assert page.get_by_role("button", name=EVIL).get_attribute("aria-pressed") == "true"
    assert page.get_by_role("button", name="a", exact=True).get_attribute("aria-pressed") == "false"


def test_by_finger(opened, made):
    page = opened(made.path, 390, has_touch=True, is_mobile=True)
    page.locator(".explorer .map").scroll_into_view_if_needed()
    page.touchscreen.tap(*made.pixels(page, 20))
    assert page.locator(".explorer .panel li").count() == 6
    assert page.locator(".explorer .tip").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    touch = "getComputedStyle(document.querySelector('.explorer .map')).touchAction"
    assert page.evaluate(touch) == "pan-x pan-y"  # one finger scrolls the page
    page.get_by_role("button", name="Select by lasso").tap()
    assert page.evaluate(touch) == "none"
    page.locator(".explorer .map").scroll_into_view_if_needed()
    box = page.locator(".explorer .map").bounding_box()
    client = page.context.new_cdp_session(page)
    ways = [(0.02, 0.02), (0.98, 0.02), (0.98, 0.98), (0.02, 0.98)]
    for kind, (x, y) in zip(("touchStart", *["touchMove"] * 3), ways, strict=True):
        at = [{"x": box["x"] + x * box["width"], "y": box["y"] + y * box["height"]}]
        client.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": at})
    client.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    assert selected(page) > 0.9 * N


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_everybody_can_use_it(opened, made, width, scheme):
    from axe_playwright_python.sync_playwright import Axe

    page = opened(made.path, width, color_scheme=scheme)
    page.locator(".explorer .map").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Select all shown").click()
    for way in ("label", "certainty", "group"):
        page.get_by_label("Colour by").select_option(label=way)
        found = Axe().run(page, options={"runOnly": RULES, "resultTypes": ["violations"]}).response["violations"]
        found = [(v["id"], v["nodes"][0]["html"][:200]) for v in found if ".explorer" in str(v["nodes"]) or v["impact"]]
        assert [(rule, html) for rule, html in found if rule != "region"] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_without_scripts_and_on_paper(opened, made):
    page = opened(made.path, script=False)
    assert page.locator(".explorer .static img").is_visible()
    page = opened(made.path)
    page.emulate_media(media="print")
    assert page.locator(".explorer .static img").is_visible()
    assert not page.locator(".explorer .live").is_visible()


def test_the_map_of_a_report(opened, report):
    """What it says of an image is what the data say, and the picture is that image."""
    from contrastive import load_images

    images = load_images("digits")
    page = opened(report[0] / "02_linear_eval.html")
    page.locator(".explorer .map").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    said = page.locator(".explorer .chosen p").inner_text()
    number, label = map(int, re.search(r"(\d+): label (\d)", said).groups())
    assert images.classes[images.test_labels[number]] == str(label)
    thumbnail = page.locator(".explorer .chosen .thumbnail")
    thumbnail.scroll_into_view_if_needed()
    seen = Image.open(io.BytesIO(thumbnail.screenshot())).convert("L").resize((28, 28), Image.Resampling.BOX)
    truth = Image.fromarray(images.test[number, 0].numpy()).resize((28, 28), Image.Resampling.BOX)
    difference = sum(abs(a - b) for a, b in zip(seen.tobytes(), truth.tobytes(), strict=True)) / 28**2
    assert difference < 12
