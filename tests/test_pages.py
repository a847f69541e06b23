"""Pages in headless Chromium: quiet, self-contained, usable by mouse, keyboard, finger, printer and screen reader."""

import base64
import csv
import io
import re
import shutil
from pathlib import Path

import nbformat
import pytest

from contrastive.files import read_json, write_json
from contrastive.report.compare import write_comparison
from contrastive.report.index import write_index
from contrastive.report.readme import BENCHMARKS, PUBLISHED, browser_path
from contrastive.report.record import MIME, collect, conclude
from contrastive.report.render import Page, policy, render, typeset

from .conftest import NOTEBOOKS
from .stress.names import CHROMIUM_OPTIONS
from .test_index import results

RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    if browser_path() is None:
        pytest.skip("needs Chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path(), args=CHROMIUM_OPTIONS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def site(report, tmp_path_factory):
    """A folder with every kind of page: a report's, an index, a comparison, a failed report's."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(report[0], folder / "report")
    shutil.copytree(report[0], folder / "other")
    other = read_json(folder / "other" / "results.json")
    other["settings"]["temperature"] = 0.2
    write_json(folder / "other" / "results.json", other)
    write_comparison([folder / "report", folder / "other"], folder / "comparison.html")
    cell = nbformat.v4.new_code_cell(
        "1 / 0", outputs=[nbformat.v4.new_output("error", ename="E", evalue="x", traceback=["E: x"])]
    )
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_markdown_cell("# A title\n\nA **question**?\n\n## Code"), cell]
    )
    error = {"notebook": "01_failed", "cell": "code cell 1", "error": "E: x"}
    (folder / "failed.html").write_text(render("01_failed", notebook, {}, [error], ["01_failed"], "some data"))
    write_index(folder)
    return folder


@pytest.fixture
def opened(browser):
    """A function that opens a page; what it asks the network for, or complains of, fails the test."""
    contexts, seen = [], []

    def open_page(path, width=1280, script=True, motion="no-preference", **options):
        context = browser.new_context(
            viewport={"width": width, "height": 800}, java_script_enabled=script, reduced_motion=motion, **options
        )
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda r: seen.append(r.url) if not r.url.startswith(("data:", path.as_uri())) else None)
        page.on("console", lambda m: seen.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda e: seen.append(str(e)))
        page.goto(path.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert seen == []


def pages(site):
    published = [*PUBLISHED.glob("*.html"), BENCHMARKS.with_suffix(".html"), PUBLISHED.parents[1] / "index.html"]
    return [*site.glob("report/*.html"), *site.glob("*.html"), *published]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_every_page(opened, site, width, scheme):
    from axe_playwright_python.sync_playwright import Axe

    assert len(pages(site)) >= 3 + 3 + 3 + 2
    for path in pages(site):
        page = opened(path, width, color_scheme=scheme)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
        assert page.get_attribute("html", "lang") == "en"
        assert page.locator("h1").count() == 1
        alts = page.eval_on_selector_all("img", "images => images.map(i => i.alt)")
        assert len(set(alts)) == len(alts), path
        assert all(len(alt) > 30 for alt in alts)
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (background == "rgb(255, 255, 255)") == (scheme == "light")
        assert path.stat().st_size < 4e6
        for link in page.eval_on_selector_all("a[href]", "links => links.map(a => a.getAttribute('href'))"):
            if link.startswith("#"):
                assert page.evaluate("id => document.getElementById(id) !== null", link[1:]), link
            elif not link.startswith(("http", "data:")):
                assert (path.parent / Path(link.partition("#")[0])).exists(), link
        found = Axe().run(page, options={"runOnly": RULES}).response["violations"]
        assert [(v["id"], v["nodes"][0]["html"][:200]) for v in found if v["impact"] in ("serious", "critical")] == []


def test_the_first_screen_answers(opened, report):
    folder = report[0]
    said = read_json(folder / "results.json")
    page = opened(folder / "02_linear_eval.html")
    first = page.locator(".first")
    text = first.inner_text().replace("\N{NO-BREAK SPACE}", " ").replace("\N{MINUS SIGN}", "-")
    asked, found = "how many labels does pretraining save?", said["answers"]["02_linear_eval"]
    assert asked in text
    assert found["answer"] in text
    for number in found["numbers"]:
        assert number["value"] in text
        assert number["spread"] in text
    assert f"digits: {said['dataset']['pretrain']} images without labels" in text
    assert "width 4" in text  # a setting that is not the preset's
    assert f"{len(said['checks'])} of {len(said['checks'])} passed" in text
    assert said["provenance"]["command"] in text
    box = first.bounding_box()
    assert box["y"] + box["height"] < 800
    assert first.locator("img").evaluate("i => i.complete && i.naturalWidth > 500")


def test_the_theme_is_the_systems_until_it_is_switched(opened, report):
    page = opened(report[0] / "02_linear_eval.html", color_scheme="light")
    picture = page.locator("article figure img").first
    switch, light = page.locator("#theme-switch"), picture.evaluate("i => i.currentSrc")
    assert switch.get_attribute("aria-pressed") == "false"
    switch.focus()
    page.keyboard.press("Enter")
    assert switch.get_attribute("aria-pressed") == "true"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(18, 24, 29)"
    page.wait_for_function("light => document.querySelector('article figure img').currentSrc !== light", arg=light)
    page.reload()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(18, 24, 29)"
    switch.click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    page.wait_for_function("light => document.querySelector('article figure img').currentSrc === light", arg=light)


def test_code_is_folded_and_one_switch_shows_it_all(opened, report):
    page = opened(report[0] / "01_pretrain.html")
    folded, switch = page.locator("details.code"), page.locator("#code-switch")
    assert folded.count() > 5
    assert not page.locator("details.code[open]").count()
    switch.focus()
    page.keyboard.press("Space")
    assert page.locator("details.code[open]").count() == folded.count()
    assert switch.get_attribute("aria-pressed") == "true"
    folded.first.locator("summary").click()
    page.wait_for_function("document.querySelector('#code-switch').getAttribute('aria-pressed') === 'false'")


def test_contents_lead_to_sections_and_follow_the_scroll(opened, report):
    page = opened(report[0] / "02_linear_eval.html", motion="reduce")
    links = page.locator("nav.contents a")
    titles = links.all_inner_texts()
    assert titles == [text.rstrip("#") for text in page.locator("article h2").all_inner_texts()]
    links.nth(4).focus()
    page.keyboard.press("Enter")
    heading = page.locator("article h2").nth(4)
    assert 0 <= heading.bounding_box()["y"] < 200
    page.wait_for_function("document.querySelector('nav.contents [aria-current]') !== null")
    assert page.locator("nav.contents [aria-current]").inner_text() == titles[4]
    phone = opened(report[0] / "02_linear_eval.html", 360, motion="reduce")
    assert not phone.locator("nav.contents a").first.is_visible()
    phone.locator("nav.contents summary").click()
    phone.locator("nav.contents a").nth(4).click()
    assert not phone.locator("nav.contents a").first.is_visible()
    assert -5 <= phone.locator("article h2").nth(4).bounding_box()["y"] < 200


def test_the_command_can_be_copied(opened, report):
    page = opened(report[0] / "02_linear_eval.html", permissions=["clipboard-read", "clipboard-write"])
    page.locator(".facts [data-copy] button").click()
    page.get_by_text("Copied").wait_for()
    command = read_json(report[0] / "results.json")["provenance"]["command"]
    assert page.evaluate("navigator.clipboard.readText()") == command


def test_the_numbers_of_a_figure_are_downloaded(opened, report):
    page = opened(report[0] / "02_linear_eval.html", accept_downloads=True)
    with page.expect_download() as waiting:
        page.locator('a[download="label_budget_curve.csv"]').click()
    rows = list(csv.DictReader(io.StringIO(Path(waiting.value.path()).read_text())))
    metrics = read_json(report[0] / "results.json")["metrics"]
    ours = {int(r["labels"]): float(r["test_error_percent"]) for r in rows if r["what"].startswith("pretrained")}
    assert ours == {n: pytest.approx(100 - metrics[f"linear_accuracy@{n}"]["mean"]) for n in (50, 200)}


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
    from PIL import Image

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


def test_without_scripts_nothing_is_missing(opened, site):
    page = opened(site / "report" / "02_linear_eval.html", script=False)
    assert page.locator(".explorer .static img").is_visible()
    assert page.locator(".first .answer").is_visible()
    assert not page.locator("#theme-switch").is_visible()
    page.locator("details.code summary").first.click()
    assert page.locator("details.code pre").first.is_visible()
    index = opened(site / "index.html", script=False)
    assert index.locator("tbody tr").count() == 2
    assert not index.locator("form").is_visible()


def test_on_paper(opened, report):
    page = opened(report[0] / "02_linear_eval.html", color_scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    picture = page.locator("article figure img").first
    assert picture.evaluate("i => i.currentSrc") == picture.get_attribute("src")
    page.emulate_media(media="screen", color_scheme="dark")
    page.locator("#theme-switch").click()  # light
    page.locator("#theme-switch").click()  # and dark, remembered
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert picture.evaluate("i => i.currentSrc") != picture.get_attribute("src")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")  # what a real print begins with
    assert picture.evaluate("i => i.currentSrc") == picture.get_attribute("src")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    for hidden in (".bar", "nav.contents", ".explorer .live", "details.code", ".first button"):
        assert not page.locator(hidden).first.is_visible(), hidden
    for shown in (".first .answer", ".explorer .static img", "table.record.provenance"):
        assert page.locator(shown).first.is_visible(), shown
    assert picture.evaluate("i => i.currentSrc") == picture.get_attribute("src")
    assert page.pdf()[:4] == b"%PDF"


def test_formulas_are_shown_without_a_script(opened, report):
    page = opened(report[0] / "01_pretrain.html", script=False)
    formula = page.locator('math[display="block"]')
    assert formula.locator("mfrac").count() == 1
    assert formula.bounding_box()["height"] > 30
    assert "\\frac" not in page.locator("article").inner_text()
    assert "<code>\\frac{</code>" in Page().markdown("$\\frac{$")


def test_scripts_that_are_not_ours_do_not_run(browser, tmp_path):
    attack = "<script>window.pwned = 1</script><img src=x onerror='window.pwned = 2' alt='x'><p>end</p>"
    outputs = [nbformat.v4.new_output("display_data", {"text/html": attack})]
    cells = [nbformat.v4.new_markdown_cell(f"# Title\n\n{attack}"), nbformat.v4.new_code_cell("x", outputs=outputs)]
    path = tmp_path / "page.html"
    path.write_text(render("01_x", nbformat.v4.new_notebook(cells=cells), {}, [], ["01_x"]))
    page = browser.new_page()
    page.goto(path.as_uri())
    assert page.get_by_text("end").count() == 2
    assert page.evaluate("window.pwned") is None
    assert page.locator("#theme-switch").is_visible()  # ours did
    page.close()
    assert "script-src 'none'" in policy()


def test_an_index_of_500_sorts_and_filters(opened, tmp_path):
    for i in range(500):
        folder = tmp_path / f"run-{i:03}"
        folder.mkdir()
        data = "mnist" if i % 5 else "digits"
        write_json(
            folder / "results.json", {**results(epochs=i + 1, linear=90 + i % 97 / 10), "dataset": {"name": data}}
        )
    page = opened(write_index(tmp_path))
    rows, count = page.locator("tbody tr:visible"), page.locator("#count")
    assert count.inner_text() == "500 of 500 reports"
    button = page.get_by_role("button", name="epochs")
    button.focus()
    page.keyboard.press("Enter")
    assert rows.first.locator("th").inner_text().startswith("run-499")
    assert page.locator('th[aria-sort="descending"]').inner_text().startswith("epochs")
    button.click()
    assert rows.first.locator("th").inner_text().startswith("run-000")
    page.locator("#data").select_option("digits")
    assert (rows.count(), count.inner_text()) == (100, "100 of 500 reports")
    page.locator("#search").fill("run-12 digits")
    assert (rows.count(), count.inner_text()) == (2, "2 of 500 reports")
    page.locator("#search").fill("nothing like it")
    assert count.inner_text() == "0 of 500 reports"


def test_typography():
    assert typeset("90.0 % of -1.5, +2 and 2026-11-25, 2N-1") == "90.0\u00a0% of \u22121.5, +2 and 2026-11-25, 2N-1"


def test_headings_have_addresses_of_their_own():
    page = Page()
    html = page.markdown("## Results\n\n## Results\n\n## *A* `b` & c\n\n## ?")
    assert [name for _, name, _ in page.headings] == ["results", "results-2", "a-b-amp-c", "section"]
    assert html.count('class="anchor"') == 4
    page = Page()
    page.markdown("## Seed\n\n## Seed 3\n\n## Seed\n\n## Seed 2\n\n## Report")
    assert [name for _, name, _ in page.headings] == ["seed", "seed-3", "seed-2", "seed-2-2", "report-2"]


def test_links_lead_to_pages_that_the_report_has():
    source = "# T\n\n[other](02_linear_eval.ipynb) and [third](03_ablations.ipynb)"
    cells = [nbformat.v4.new_markdown_cell("# T"), nbformat.v4.new_markdown_cell(source)]
    page = render("01_x", nbformat.v4.new_notebook(cells=cells), {}, [], ["01_x", "02_linear_eval"])
    assert '<a href="02_linear_eval.html">other</a> and third' in page


def test_an_answer_is_shown_and_recorded(capsys):
    conclude("01_x", "It helps.", [("90 %", "± 1", "accuracy")], "one seed", "curve", "ten images")
    assert "It helps." in capsys.readouterr().out
    said = {"answer": "It helps.", "numbers": [{"value": "90 %", "spread": "± 1", "what": "accuracy"}]}
    said |= {"spread": "one seed", "data": "ten images"}
    output = nbformat.v4.new_output("display_data", {MIME: {"answers": {"01_x": said}}})
    cells = [nbformat.v4.new_markdown_cell("# A title"), nbformat.v4.new_code_cell("x", outputs=[output])]
    notebook = nbformat.v4.new_notebook(cells=cells)
    assert collect(notebook)["answers"]["01_x"]["numbers"][0]["value"] == "90 %"
    page = render("01_x", notebook, {}, [], ["01_x"])
    first = page[page.index('class="first"') : page.index("<article")]
    for text in ("It helps.", "90\N{NO-BREAK SPACE}%", "± 1", "accuracy", "one seed", "ten images"):
        assert text in first


def test_pages_of_a_report_without_an_answer_still_begin_with_their_question():
    cells = [nbformat.v4.new_markdown_cell("# A title\n\n**A question?**")]
    page = render("01_x", nbformat.v4.new_notebook(cells=cells), {}, [], ["01_x"])
    assert page.index("A question?") < page.index("<article")
    assert "<title>A title</title>" in page


def test_pictures_are_small(report):
    for name in NOTEBOOKS:
        notebook = nbformat.read(report[0] / f"{name}.ipynb", 4)
        for cell in notebook.cells:
            for output in cell.get("outputs", []):
                if "image/png" in output.get("data", {}):
                    assert len(base64.b64decode(output["data"]["image/png"])) < 120_000
