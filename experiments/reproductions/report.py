"""All results of a folder in one HTML file that needs no other: pictures inside, text escaped."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from . import REPRODUCTIONS
from .run import tables

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Reproductions</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 62em; margin: 2em auto; padding: 0 1em; }}
table {{ border-collapse: collapse; margin: 1em 0; }}
th, td {{ padding: .25em .8em; border-bottom: 1px solid #ddd; text-align: right; }}
th:first-child, td:first-child, caption {{ text-align: left; }}
td {{ overflow-wrap: anywhere; }}
caption, .no {{ font-weight: 600; }}
.no {{ color: #a40000; }}
img {{ max-width: 100%; }}
</style>
</head>
<body>
<h1>Reproductions</h1>
{body}
</body>
</html>
"""


def write(out: Path, names: Sequence[str]) -> Path:
    """Write `report.html` about the results in the folder.

    Args:
      out: folder with `NAME.json` and `NAME.png`.
      names: in the order of the report.
    """
    contents = {
        name: json.loads((out / f"{name}.json").read_text(encoding="utf-8")) for name in names
    }
    counts = {
        name: f"{sum(claim['holds'] for claim in content['claims'])} of {len(content['claims'])}"
        for name, content in contents.items()
    }
    overview = _html(pd.DataFrame(counts.items()), "Claims that hold", header=False)
    sections = [_section(name, content, out / f"{name}.png") for name, content in contents.items()]
    path = out / "report.html"
    temporary = path.with_suffix(".tmp")
    temporary.write_text(_PAGE.format(body="\n".join([overview, *sections])), encoding="utf-8")
    temporary.replace(path)
    return path


def _section(name: str, content: Mapping[str, Any], picture: Path) -> str:
    version = "quick" if content["asked"]["quick"] else "full"
    parts = [
        f"<h2>{escape(name)} <small>({version})</small></h2>",
        f"<p>{escape(REPRODUCTIONS[name].description)}</p>",
    ]
    if picture.is_file():
        encoded = base64.b64encode(picture.read_bytes()).decode("ascii")
        parts.append(f'<img alt="{escape(name)}" src="data:image/png;base64,{encoded}">')
    parts += [_html(frame, title) for title, frame in tables(content)]
    shown = ("command", "asked", "finished", "device", "versions", "settings")
    details = pd.DataFrame([(key, json.dumps(content[key], ensure_ascii=False)) for key in shown])
    summary = "<summary>Settings and versions</summary>"
    parts.append(f"<details>{summary}{_html(details, header=False)}</details>")
    return "\n".join(parts)


def _html(frame: pd.DataFrame, title: str = "", header: bool = True) -> str:
    with pd.option_context("display.max_colwidth", None):
        html = frame.to_html(index=False, border=0, justify="unset", header=header)
    html = html.replace("<td>does not hold</td>", '<td class="no">does not hold</td>')
    return html.replace("\n", f"\n<caption>{escape(title)}</caption>\n", 1)
