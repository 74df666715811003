"""All results of a folder in one HTML file that needs no other: pictures inside, text escaped."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from . import claims
from .registry import REPORT

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62em; margin: 2em auto; padding: 0 1em; }
table { border-collapse: collapse; margin: 1em 0; }
th, td { padding: .25em .8em; border-bottom: 1px solid #ddd; text-align: left; }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
img { max-width: 100%; }
caption { text-align: left; font-weight: 600; }
.no { color: #a40000; font-weight: 600; }
.yes { color: #006400; }
code, dd { font-size: 90%; overflow-wrap: anywhere; }
"""


def write(out: Path, descriptions: Mapping[str, str]) -> Path:
    """Write `report.html` about the results in the folder.

    Args:
      out: folder with `NAME.json` and `NAME.png`.
      descriptions: of the names, in the order of the report.
    """
    contents = {
        name: json.loads((out / f"{name}.json").read_text(encoding="utf-8"))
        for name in descriptions
    }
    sections = [
        _section(name, descriptions[name], content, out / f"{name}.png")
        for name, content in contents.items()
    ]
    body = "\n".join(["<h1>Reproductions</h1>", _overview(contents), *sections])
    page = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>Reproductions</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )
    path = out / REPORT
    temporary = path.with_suffix(".tmp")
    temporary.write_text(page, encoding="utf-8")
    temporary.replace(path)
    return path


def _overview(contents: Mapping[str, Mapping[str, Any]]) -> str:
    """How many claims of each hold."""
    rows = []
    for name, content in contents.items():
        verdicts = [claim["holds"] for claim in content["claims"]]
        rows.append(
            f'<tr><td><a href="#{escape(name)}">{escape(name)}</a></td><td>{_version(content)}</td>'
            f'<td class="number">{sum(verdicts)} of {len(verdicts)}</td></tr>'
        )
    return f"<table>{_header(('experiment', 'version', 'claims that hold'))}{''.join(rows)}</table>"


def _section(name: str, description: str, content: Mapping[str, Any], picture: Path) -> str:
    verdicts, tables = claims.read(content)
    parts = [
        f'<h2 id="{escape(name)}">{escape(name)} <small>({_version(content)})</small></h2>',
        f"<p>{escape(description)}</p>",
    ]
    if picture.is_file():
        encoded = base64.b64encode(picture.read_bytes()).decode("ascii")
        parts.append(f'<img alt="{escape(name)}" src="data:image/png;base64,{encoded}">')
    parts.append(_verdicts(verdicts))
    parts += [_table(table) for table in tables]
    parts.append(_details(content))
    return "\n".join(parts)


def _verdicts(found: Sequence[claims.Claim]) -> str:
    rows = [
        f"<tr><td>{escape(claim.statement)}</td>"
        f'<td class="number">{claim.measured:.4g}</td>'
        f'<td class="number">{escape(claim.ends)}</td>'
        f'<td class="{"yes" if claim.holds else "no"}">{claim.verdict}</td></tr>'
        for claim in found
    ]
    header = _header(("claim", "measured", "95 % interval", "verdict"))
    return f"<table>{header}{''.join(rows)}</table>"


def _table(table: claims.Table) -> str:
    rows = [
        f"<tr><td>{escape(row[0])}</td>"
        + "".join(f'<td class="number">{escape(text)}</td>' for text in row[1:])
        + "</tr>"
        for row in table.rows
    ]
    caption = f"<caption>{escape(table.title)}</caption>"
    return f"<table>{caption}{_header(table.header)}{''.join(rows)}</table>"


def _details(content: Mapping[str, Any]) -> str:
    """Command, settings, device and versions, folded away."""
    shown = {
        "command": " ".join(content["command"]),
        "finished": content["finished"],
        **{part: json.dumps(content[part], ensure_ascii=False) for part in ("device", "versions")},
        **{name: json.dumps(v, ensure_ascii=False) for name, v in content["settings"].items()},
    }
    items = "".join(f"<dt>{escape(k)}</dt><dd>{escape(str(v))}</dd>" for k, v in shown.items())
    return f"<details><summary>Settings and versions</summary><dl>{items}</dl></details>"


def _header(names: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<th>{escape(name)}</th>" for name in names) + "</tr>"


def _version(content: Mapping[str, Any]) -> str:
    return "quick" if content["settings"].get("quick") else "full"
