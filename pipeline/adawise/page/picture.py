"""Files of a page's figures: the same specification in the colours of paper, drawn without a browser."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import vl_convert

_DPI, _POINTS = 300, 72  # per inch
_COLOUR = re.compile(r"--([a-z-]+): (#[0-9a-f]{6})")
_CLIP = re.compile(r"""(?<=id="clip)[0-9]+|(?<=url\(#clip)[0-9]+""")
_SIZE = re.compile(r' width="([0-9.]+)" height="([0-9.]+)"')


def write_png(file: Path, spec: Mapping[str, Any], *, scale: float) -> None:
    """Write a bitmap with `scale` dots per pixel."""
    file.write_bytes(vl_convert.svg_to_png(_svg(spec), scale=scale))


def write_figure(stem: Path, spec: Mapping[str, Any], *, width_in: float) -> None:
    """Write `stem`.svg and, at 300 dots per inch, `stem`.png, both `width_in` inches wide."""
    svg = _svg(spec)
    size = _SIZE.search(svg)
    assert size is not None  # the size of the root, the first element
    width, height = float(size[1]), float(size[2])
    inches = f' width="{width_in}in" height="{height / width * width_in:.4f}in"'
    Path(f"{stem}.svg").write_text(svg.replace(size[0], inches, 1), encoding="utf-8")
    Path(f"{stem}.png").write_bytes(vl_convert.svg_to_png(svg, scale=width_in * _POINTS / width, ppi=_DPI))


def _svg(spec: Mapping[str, Any]) -> str:
    style = Path(__file__).with_name("colours.css").read_text(encoding="utf-8")
    colours = dict(_COLOUR.findall(style.partition("@media")[0]))
    text = re.sub(r"var\(--([a-z-]+)\)", lambda named: colours.get(named[1], named[0]), json.dumps(spec))
    svg: str = vl_convert.vegalite_to_svg(text, allowed_base_urls=[])
    numbers: dict[str, int] = {}  # Vega numbers clips over everything that the process has drawn
    return _CLIP.sub(lambda found: str(numbers.setdefault(found[0], len(numbers))), svg)
