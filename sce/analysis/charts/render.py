"""From a figure to its files, and Vega for the page: for other processes too, so it starts fast."""

import json
import os
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import vl_convert

SCALE = 2.0
"""Pixels of a PNG for one of the figure."""
FEW = 6
"""Figures up to which other processes would cost more than they save."""


def bundle(version: str) -> str:
    """Vega, Vega-Lite of that version and Vega-Embed as one script, by Altair's converter."""
    script = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", version)
    return script.replace("</script", "<\\/script").replace("\r\n", "\n").replace("\r", "\n")


def render(specs: Mapping[Path, str], version: str) -> None:
    """Write every figure as SVG, PDF and PNG.

    Args:
        specs: file without its ending -> Vega-Lite as JSON.
        version: of Vega-Lite, as "6.1".
    """
    num = min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1, 4)
    if num < 2 or len(specs) <= FEW:
        for file, spec in specs.items():
            _render(file, spec, version)
        return
    with ProcessPoolExecutor(num, mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(_render, file, spec, version) for file, spec in specs.items()]
        for job in jobs:
            job.result()


def _render(file: Path, spec: str, version: str) -> None:
    svg = vl_convert.vegalite_to_svg(json.loads(spec), vl_version=version)
    file.with_name(f"{file.name}.svg").write_text(svg, encoding="utf-8")
    file.with_name(f"{file.name}.png").write_bytes(vl_convert.svg_to_png(svg, scale=SCALE))
    file.with_name(f"{file.name}.pdf").write_bytes(vl_convert.svg_to_pdf(svg))
