"""Results as tables in a terminal, and all of a folder in one HTML file that needs no other."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from rich import markup
from rich.table import Table

from . import REPRODUCTIONS

if TYPE_CHECKING:
    from rich.console import Console

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
_DETAILS = ("command", "asked", "finished", "device", "versions", "settings")


def tables(content: Mapping[str, Any]) -> Iterator[tuple[str, pd.DataFrame]]:
    """Titles and tables of a result, as text; the last one is that of the claims."""
    for table in content["tables"]:
        yield table["title"], pd.DataFrame(table["rows"], columns=table["header"])
    rows = []
    for claim in content["claims"]:
        measured, interval = "–", "–"  # of what is not finite
        if claim["interval"]:
            measured = f"{claim['measured']:.4g}"
            interval = "[{:.3g}, {:.3g}]".format(*claim["interval"])
        verdict = "holds" if claim["holds"] else "does not hold"
        rows.append((claim["statement"], measured, interval, verdict))
    header = ["claim", "measured", "95 % interval", "verdict"]
    yield content["reproduction"], pd.DataFrame(rows, columns=header)


def show(content: Mapping[str, Any], console: Console) -> None:
    """Print the tables and the verdicts."""
    for title, frame in tables(content):
        table = Table(title=markup.escape(title), title_justify="left")
        for index, heading in enumerate(frame):
            table.add_column(markup.escape(str(heading)), justify="right" if index else "left")
        for row in frame.itertuples(index=False):
            failed = row[-1] == "does not hold"
            table.add_row(*map(markup.escape, row), style="red" if failed else None)
        console.print(table)


def write(out: Path, names: Sequence[str]) -> Path:
    """Write `report.html` about `NAME.json` and `NAME.png` of each name, in this order."""
    contents = [json.loads((out / f"{name}.json").read_text(encoding="utf-8")) for name in names]
    counts = [
        (name, f"{sum(claim['holds'] for claim in content['claims'])} of {len(content['claims'])}")
        for name, content in zip(names, contents, strict=True)
    ]
    parts = [_html(pd.DataFrame(counts), "Claims that hold", header=False)]
    for name, content in zip(names, contents, strict=True):
        version = "quick" if content["asked"]["quick"] else "full"
        parts += [
            f"<h2>{escape(name)} <small>({version})</small></h2>",
            f"<p>{escape(REPRODUCTIONS[name].description)}</p>",
        ]
        picture = out / f"{name}.png"
        if picture.is_file():
            encoded = base64.b64encode(picture.read_bytes()).decode("ascii")
            parts.append(f'<img alt="{escape(name)}" src="data:image/png;base64,{encoded}">')
        parts += [_html(frame, title) for title, frame in tables(content)]
        details = [(key, json.dumps(content[key], ensure_ascii=False)) for key in _DETAILS]
        summary = "<summary>Settings and versions</summary>"
        parts.append(f"<details>{summary}{_html(pd.DataFrame(details), header=False)}</details>")
    path = out / "report.html"
    path.write_text(_PAGE.format(body="\n".join(parts)), encoding="utf-8")
    return path


def _html(frame: pd.DataFrame, title: str = "", header: bool = True) -> str:
    with pd.option_context("display.max_colwidth", None):
        html = frame.to_html(index=False, border=0, justify="unset", header=header)
    html = html.replace("<td>does not hold</td>", '<td class="no">does not hold</td>')
    return html.replace("\n", f"\n<caption>{escape(title)}</caption>\n", 1)
