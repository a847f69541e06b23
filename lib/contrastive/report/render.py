"""Executed notebooks -> HTML that needs nothing from outside."""

import base64
import hashlib
import re
from html import escape
from itertools import count
from pathlib import Path
from typing import Any

import nbformat
from jinja2 import pass_context
from latex2mathml.converter import convert
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbconvert.preprocessors import CoalesceStreamsPreprocessor

from .explorer import explorer_script
from .pictures import MIME as FIGURE
from .pictures import figure_html
from .recording import collect

TEMPLATES = Path(__file__).with_name("templates")


def template(name: str) -> str:
    """The text of a file beside the templates."""
    return (TEMPLATES / name).read_text(encoding="utf-8")


def content_policy(*scripts: str) -> str:
    """What a page may do, whatever got into it: show its own text, styles and pictures, and run just these scripts."""
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"
    return (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}; base-uri 'none'; "
        "form-action 'none'"
    )


class Renderer(IPythonRenderer):
    """Markdown whose headings are kept for a table of contents, whose tables scroll and whose formulas are MathML."""

    def __init__(self, headings: list[tuple[int, str, str]], **options: Any) -> None:
        super().__init__(**options)
        self.headings = headings

    def heading(self, text: str, level: int, **attrs: Any) -> str:
        """A heading with a link to itself."""
        plain = re.sub(r"<[^>]*>", "", text)
        name = base = re.sub(r"\W+", "-", plain.lower()).strip("-") or "section"
        taken = {"report", *(other for _, other, _ in self.headings)}
        numbered = (f"{base}-{i}" for i in count(2))
        while name in taken:
            name = next(numbered)
        self.headings.append((level, name, plain))
        link = f'<a class="anchor" href="#{escape(name)}" aria-label="Link to {plain}">#</a>' if level > 1 else ""
        return f'<h{level} id="{escape(name)}">{text}{link}</h{level}>\n'

    def text(self, text: str) -> str:
        """Plain text."""
        return str(super().text(typeset(text)))

    def block_math(self, body: str) -> str:
        """A formula of its own."""
        return mathml(body, "block")

    def inline_math(self, body: str) -> str:
        """A formula in a line."""
        return mathml(body, "inline")

    def table(self, text: str) -> str:
        """A table that scrolls where it is too wide."""
        return f'<div class="scroll"><table>{text}</table></div>\n'


def typeset(text: str) -> str:
    """Text in which a number stays with its percent sign, and a minus is one."""
    return re.sub(r"(?<![\w.,:;/-])-(?=\d)", "\N{MINUS SIGN}", re.sub(r"(?<=\d) %", "\N{NO-BREAK SPACE}%", text))


def mathml(formula: str, display: str) -> str:
    """LaTeX as MathML, which browsers show without a script; what cannot be converted is shown as it was written."""
    try:
        return convert(formula, display=display)
    except Exception:  # whatever latex2mathml makes of a typing mistake
        return f"<code>{escape(formula)}</code>"


class Page(HTMLExporter):
    """nbconvert's exporter with our template and our Markdown."""

    def __init__(self) -> None:
        super().__init__(template_name="contrastive", extra_template_basedirs=[str(TEMPLATES)])
        self.register_preprocessor(CoalesceStreamsPreprocessor(), enabled=True)
        self.headings: list[tuple[int, str, str]] = []

    @pass_context
    def markdown2html(self, context: Any, source: str) -> str:
        """The filter of that name."""
        return self.markdown(source)

    def markdown(self, source: str) -> str:
        """Markdown as HTML."""
        return MarkdownWithMath(renderer=Renderer(self.headings, escape=False)).render(source)


def render_page(
    stem: str, notebook: Any, results: dict[str, Any], errors: list[dict[str, str]], siblings: list[str], note: str = ""
) -> str:
    """One executed notebook as an HTML page, which begins with what was asked and what came out."""
    notebook = nbformat.from_dict(notebook)

    def to_page(link: re.Match) -> str:
        return f"[{link[1]}]({link[2]}.html)" if link[2] in siblings else link[1]

    for cell in notebook.cells:
        if cell.cell_type == "code":  # stderr holds library chatter; what a reader must know is in banner and checks
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        else:
            cell.source = re.sub(r"\[([^\]]*)\]\((\d\d_\w+)\.ipynb\)", to_page, cell.source)
    own, page = collect(notebook), Page()
    title, question = page_title(notebook), ""
    contents = list_headings(notebook)
    if title and notebook.cells[0].cell_type == "markdown":
        question = page.markdown(notebook.cells.pop(0).source)
    scripts = [template("page.js")]
    if any(explorer_script() in output.get("data", {}).get("text/html", "") for output in outputs(notebook)):
        scripts.append(explorer_script())
    notebook.metadata["title"] = title or stem
    html, _ = page.from_notebook_node(
        notebook,
        resources={
            "policy": content_policy(*scripts),
            "style": template("style.css"),
            "script": scripts[0],
            "stem": stem,
            "siblings": siblings,
            "contents": contents,
            "question": question,
            "first": first_screen(stem, notebook, own, results),
            "errors": errors,
            "failed_checks": [c for c in results.get("checks", []) if not c["passed"]],
            "note": note,
            "figure": figure_html,
            "figure_mime": FIGURE,
        },
    )
    return html


def page_title(notebook: Any) -> str:
    """The first heading of a notebook, without markup."""
    for cell in notebook.cells:
        for line in cell.source.splitlines():
            if cell.cell_type == "markdown" and line.startswith("# "):
                return line[2:].strip()
    return ""


def list_headings(notebook: Any) -> list[tuple[int, str, str]]:
    """Level, id and text of each heading of the cells, as they come out on the page."""
    page = Page()
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            page.markdown(cell.source)
        for output in cell.get("outputs", []):
            page.markdown(str(output.get("data", {}).get("text/markdown", "")))
    return page.headings


def outputs(notebook: Any) -> list[Any]:
    """All outputs of a notebook."""
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def first_screen(stem: str, notebook: Any, own: dict[str, Any], results: dict[str, Any]) -> dict[str, Any]:
    """What a page begins with, as far as its notebook got: answer, key numbers, figure, and facts to judge them by."""
    said = own.get("answers", {}).get(stem, {})
    verdict, _, more = said.get("answer", "").partition("\n")
    numbers = [{name: typeset(text) for name, text in tile.items()} for tile in said.get("numbers", [])]
    first: dict[str, Any] = {"answer": typeset(verdict), "more": typeset(more), "numbers": numbers, "figure": ""}
    for output in outputs(notebook):
        shown = output.get("data", {}).get(FIGURE)
        if shown and shown["name"] == said.get("figure"):
            first["figure"] = figure_html(shown, output["data"]["image/png"], lead=True)
    data, made, settings = (own.get(part) or results.get(part, {}) for part in ("dataset", "provenance", "settings"))
    checks = results.get("checks") or own.get("checks", [])
    first["facts"] = {
        "Spread": said.get("spread", ""),
        "Data": said.get("data") or (_data(data) if data else ""),
        "Settings": _settings(settings, made, said.get("trained", "")) if settings and made else "",
        "Checks": f"{sum(c['passed'] for c in checks)} of {len(checks)} passed" if checks else "",
        "Made": _made(made) if made else "",
    }
    first["command"] = made.get("command", "")
    first["passed"] = all(c["passed"] for c in checks) and not results.get("errors")
    return first


def _data(data: dict[str, Any]) -> str:
    labels = data.get("labels", data["train"])  # older reports had one for each
    said = f"{data['name']}: {data['pretrain']:,} images without labels to pretrain on, "
    said += f"{labels:,} with labels, " if labels else "none with a label, "
    folds = data.get("folds", 0)  # older reports had none
    if folds:
        held = f", {data['test']:,} held out to look at" if data["test"] else ""
        return said + f"cross-validated in {folds} parts{held}"
    return said + f"{data['validation']:,} to validate, {data['test']:,} to {'test' if labels else 'look at'}"


def _settings(settings: dict[str, Any], made: dict[str, Any], trained: str) -> str:
    seeds = len(made.get("seeds", []))
    trained = trained or f"{settings['epochs']} epochs, {seeds} seed{'' if seeds == 1 else 's'}"
    listed = ", ".join(f"{name} {value}" for name, value in made.get("changed", {}).items())
    return f"preset {settings['preset']}: {trained}; " + (f"changed: {listed}" if listed else "nothing changed")


def _made(made: dict[str, Any]) -> str:
    commit = str(made.get("commit", ""))[:7] + (" with changes" if made.get("dirty") else "")
    n = made.get("threads")
    threads = f"{n} thread{'s' if n > 1 else ''}" if n else ""
    parts = (
        made.get("end", "")[:10],
        commit and f"commit {commit}",
        made.get("device"),
        threads,
        made.get("precision"),
    )
    return ", ".join(str(part) for part in parts if part)
