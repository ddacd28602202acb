"""From findings to a file: template, styles, scripts and data in one, and nothing to fetch.

The page holds its scripts by hash and forbids everything else, so that neither a run's name nor a
token of a prompt can run or load anything. Data stand in a block of JSON that scripts parse.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from sce.analysis.as_json import as_json
from sce.analysis.charts.figure import Figure
from sce.analysis.charts.files import VERSION, Key
from sce.analysis.charts.render import bundle
from sce.analysis.findings import Findings
from sce.analysis.page.content import content

SCRIPTS = (
    *("dom", "numbers", "state", "theme", "tables", "panels", "draw"),
    *("filters", "answers", "runs", "scatter", "maps", "heads", "gallery", "figures"),
    *("looks", "tokens", "notes", "start"),
)
"""In the order in which the page runs them; they share one scope."""
STYLES = ("base", "parts", "print")
_ESCAPES = {
    "<": "\\u003c",
    ">": "\\u003e",
    "&": "\\u0026",
    "\u2028": "\\u2028",
    "\u2029": "\\u2029",
}


def write(
    findings: Findings,
    file: Path,
    looks: Sequence[Mapping[str, Any]] = (),
    drawn: Mapping[Key, Figure] | None = None,
    library: str | None = None,
) -> None:
    """Write the report.

    Args:
        findings: what an analysis found.
        file: the HTML file to write; its folder is made.
        looks: examples for the retrieval viewer, each {"schema": "sce.looks/1", "model", "task",
            "id", "tokens": texts of the prompt's tokens, "evidence": positions, "answer": texts of
            the answer's tokens, "looked_at": [layers][heads][answer tokens] positions (-1: not in
            the prompt), "scores": [layers][heads]}.
        drawn: the findings' figures; None: they are drawn here.
        library: sce.analysis.charts.render.bundle of VERSION, which takes seconds; None: it is made
            here.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(page(findings, looks, drawn, library), encoding="utf-8")


def page(
    findings: Findings,
    looks: Sequence[Mapping[str, Any]] = (),
    drawn: Mapping[Key, Figure] | None = None,
    library: str | None = None,
) -> str:
    """The report as text."""
    scripts = [library or bundle(VERSION), _own_script()]
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(_read("report.html"))
    return template.render(
        title=findings.study or "Retrieval heads",
        policy=_policy(scripts),
        style=Markup("\n".join(_read(f"{name}.css") for name in STYLES)),
        data=Markup(embedded(content(findings, looks, drawn))),
        scripts=[Markup(script) for script in scripts],
    )


def embedded(data: Any) -> str:
    """JSON that may stand inside a script element: no text in it can end the element."""
    text = as_json(data, ensure_ascii=False, separators=(",", ":"))
    for letter, escape in _ESCAPES.items():
        text = text.replace(letter, escape)
    return text


def _policy(scripts: Sequence[str]) -> str:
    """What the page may do: run these scripts, show images it made itself, style itself."""
    hashes = [hashlib.sha256(script.encode("utf-8")).digest() for script in scripts]
    allowed = " ".join(f"'sha256-{base64.b64encode(each).decode()}'" for each in hashes)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _own_script() -> str:
    parts = "\n".join(_read(f"{name}.js") for name in SCRIPTS)
    return f"(() => {{\n'use strict';\n{parts}\n}})();"


def _read(name: str) -> str:
    return (files("sce.analysis.page") / "web" / name).read_text("utf-8")
