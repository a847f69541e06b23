"""Names that attack whoever shows them: in a terminal, a notebook, a page or a file system."""

from __future__ import annotations

import json
import os
import random
import re
from pathlib import Path

from PIL import Image

from contrastive import load_images
from contrastive.report.explorer import explorer_script
from contrastive.report.index import write_index

from ..conftest import CHROMIUM_OPTIONS, browser_path
from .rows import Row, report

ATTACKS = [
    "<script>window.pwned=1<", "\"><img src=x onerror=window.pwned=1>", "'-alert(1)-'", "{{7*7}}", "${7*7}",
    "$\\frac{1}{0}$",
    "[x](javascript:window.pwned=1)", "![x](http:127.0.0.1:9)", "<title><script>window.pwned=1", "&lt;b&gt;",
    "line\nbreak", "\r\x1b[31mred",
    "\u202egnp.exe", "\u2066x", "`id`", "; touch x", "$(id)", "--help", "-p", "#", "%2e%2e%2f", "?x=1",
    "|a|b|", "*b*", "\\", "日本語", "עברית", "CON", "a" * 200, " ", "e\u0301",
]  # fmt: skip


def attack_names(row: Row, count: int, dice: random.Random, folder: Path) -> None:
    """Files, classes, data sets and reports with names that try to run something, in a terminal and in Chromium."""
    data, reports = folder / ATTACKS[0], folder / "reports"
    for i, name in enumerate(ATTACKS):
        for k in range(10):
            path = data / ("train" if k else "test") / name / f"{ATTACKS[(i + k) % len(ATTACKS)][:80]}{k}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.effect_noise((16, 16), 10 + 5 * i).save(path, "PNG")
    out = reports / ATTACKS[1]
    words = [
        "report",
        "--preset",
        "smoke",
        "-p",
        "n_images=128",
        "-p",
        "epochs=1",
        "-p",
        "base_channels=2",
        "-p",
        "budgets=60",
    ]
    words += [
        "-p",
        "batch_size=32",
        "-p",
        "supervised_steps=1",
        "-p",
        "general=none",
        "--dataset",
        str(data),
        "--out",
        str(out),
    ]
    environment = {**os.environ, "CONTRASTIVE_RUNS": str(folder / "runs")}
    done = report([*words, "--only", "02_linear_eval"], environment)
    for line in (done.stdout + done.stderr).splitlines():
        row.case("" if line.isprintable() else f"on the terminal: {line!r}")
    if "Traceback" in done.stderr or not (out / "results.json").is_file():
        row.problems.append(done.stderr)
        return
    for i, name in enumerate(ATTACKS):
        (reports / name).mkdir(exist_ok=True)
        (reports / name / "results.json").write_bytes((out / "results.json").read_bytes())
        class_name = load_images(str(data)).classes[sorted(ATTACKS).index(name)]
        row.case("" if class_name.isprintable() and not set(class_name) & set("<>&\"'`$\\*[]{}|#!") else class_name)
        row.case("" if (reports / name / "results.json").is_file() else f"{i} left no report")
    pages = [out / "02_linear_eval.html", write_index(reports)]
    notebook = json.loads((out / "02_linear_eval.ipynb").read_text())
    shown = [o.get("data", {}) for c in notebook["cells"] if c["cell_type"] == "code" for o in c["outputs"]]
    for kind in ("text/markdown", "text/html"):
        text = "".join("".join(part.get(kind, "")) for part in shown).replace(f"<script>{explorer_script()}", "")
        # the map's own data, in which "<" is escaped, so nothing in it can be taken for markup
        text = re.sub(r'<script type="application/json">[^<]*</script>', "", text)
        alive = r"<script|<img src=x|(href|src)=.?javascript:|\]\(javascript:"
        row.case(f"{kind} in the notebook" if re.search(alive, text) else "")
    for path in pages:
        row.case(in_browser(path))


def in_browser(path: Path) -> str:
    """Open a page in Chromium. Returns what went wrong, if anything did."""
    from playwright.sync_api import sync_playwright

    seen: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path(), args=CHROMIUM_OPTIONS)
        page = browser.new_page()
        page.on("request", lambda r: seen.append(r.url) if not r.url.startswith(("data:", path.as_uri())) else None)
        page.on("console", lambda m: seen.append(m.text) if m.type == "error" else None)
        page.on("dialog", lambda d: seen.append("a dialog"))
        page.on("pageerror", lambda e: seen.append(str(e)))
        page.goto(path.as_uri())
        if page.evaluate("window.pwned") is not None:
            seen.append("a script ran")
        if page.locator("main h1").count() != 1 or page.locator("main table").count() < 1:
            seen.append("the page is broken")
        browser.close()
    return f"{path.name}: {seen}" if seen else ""
