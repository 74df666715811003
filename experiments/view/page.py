"""The report as one page of HTML: works from a file, without server and network.

Whatever a user named, runs and paths and scalars, is data: escaped in the markup, and in the
script's JSON. Nothing but the page's own scripts is allowed to run, and nothing to be loaded.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from html import escape
from importlib import resources
from typing import Any, NamedTuple

import numpy as np
from plotly.offline import get_plotlyjs

from ..plots import colors
from .findings import findings
from .quantities import Drawn, Trace, draw
from .recording import Recording

_DIGITS = 5  # of the numbers in plots


class Group(NamedTuple):
    """Runs that are compared with each other.

    Attributes:
      name: such as the problem; may be empty.
      runs: the recordings.
      colors: of the runs, the same within a family.
      plots: what there is to show of them.
    """

    name: str
    runs: list[Recording]
    colors: list[str]
    plots: list[Drawn]


def group(runs: Sequence[Recording]) -> list[Group]:
    """The runs that are compared with each other, and what there is to show of them."""
    groups = []
    for name in dict.fromkeys(run.group for run in runs):
        members = [run for run in runs if run.group == name]
        shades = colors(run.family for run in members)
        groups.append(Group(name, members, [shades[r.family] for r in members], draw(members)))
    return groups


def page(groups: Sequence[Group], made_by: str) -> str:
    """The whole page.

    Args:
      groups: what to show.
      made_by: name and version of the program.
    """
    plotly, script, style = get_plotlyjs(), _file("page.js"), _file("page.css")
    policy = (
        "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data: blob:; "
        f"script-src {_digest(plotly)} {_digest(script)}; style-src 'unsafe-inline'"
    )
    title = ", ".join(run.name for group in groups for run in group.runs[:3])
    sections = "".join(_section(group, index) for index, group in enumerate(groups))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{style}</style>
</head>
<body>
<h1>Training report</h1>
<p>Drag across a plot to zoom all plots into these steps, double-click to see the whole run.
Strong lines are running medians, faint ones what was recorded; of long lines, the smallest, middle
and largest of every few values are shown. Written by {escape(made_by)}.</p>
<noscript><p class="warning">The plots need JavaScript; view.png shows them without.</p></noscript>
{sections}
<script type="application/json" id="data">{_json([_content(group) for group in groups])}</script>
<script>{plotly}</script>
<script>{script}</script>
</body>
</html>
"""


def _file(name: str) -> str:
    return (resources.files("mekax.experiments.view") / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _json(content: Any) -> str:
    """JSON in which no script element ends."""
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _section(group: Group, index: int) -> str:
    heading = f"<h2>{escape(group.name)}</h2>" if group.name else ""
    toggles = "".join(
        f'<label><input type="checkbox" autocomplete="off" checked data-run="{number}"> '
        f'<svg width="12" height="12"><rect width="12" height="12" fill="{color}"/></svg> '
        f"{escape(run.name)}</label>"
        for number, (run, color) in enumerate(zip(group.runs, group.colors, strict=True))
    )
    warnings = "".join(
        f'<p class="warning">{escape(run.name)}: {escape(run.note)}</p>'
        for run in group.runs
        if run.note
    )
    figures = "".join(_figure(drawn) for drawn in group.plots)
    return f"""<section data-group="{index}">
{heading}{warnings}
{_table(group.runs)}
<div class="bar">{toggles}
<label>smoothing <input type="range" autocomplete="off" min="0" max="7" value="3">
<output>median of 2 %</output></label>
<button class="whole">whole run</button></div>
<div class="plots">{figures}</div>
</section>
"""


def _figure(drawn: Drawn) -> str:
    title, signs = escape(drawn.plot.title), drawn.plot.signs
    explained = "".join(f"<dt>{escape(sign)}</dt><dd>{escape(text)}</dd>" for sign, text in signs)
    return f"""<figure>
<div class="head"><h3>{title}</h3><button title="scale of the axis">linear</button></div>
<div class="plot" role="img" aria-label="{title}"></div>
<figcaption>{escape(drawn.plot.read)}<dl>{explained}</dl></figcaption>
</figure>
"""


def _table(runs: Sequence[Recording]) -> str:
    """The runs in numbers, medians of the last tenth, and what stands out."""
    loss = "loss_mean" if any("loss_mean" in run.series for run in runs) else "loss"
    columns = {
        "loss": loss,
        "step size": "step_size",
        "signal-to-noise": "snr",
        "slope ratio": "slope_ratio",
        "gain": "gain",
        "rejected": "num_rejected",
    }
    shown = {w: name for w, name in columns.items() if any(name in run.series for run in runs)}
    head = "".join(f'<th class="number">{words}</th>' for words in ("steps", *shown))
    rows = ""
    for run in runs:
        steps = max(int(series.steps[-1]) for series in run.series.values())
        numbers = [f"{steps:,}", *(_late(run, name) for name in shown.values())]
        cells = "".join(f'<td class="number">{number}</td>' for number in numbers)
        remarks = "<br>".join(map(escape, findings(run))) or "–"
        rows += f"<tr><td>{escape(run.name)}</td>{cells}<td>{remarks}</td></tr>"
    return (
        f"<table><tr><th>run</th>{head}<th>what stands out in the last quarter</th></tr>"
        f"{rows}</table>"
    )


def _late(run: Recording, name: str) -> str:
    series = run.series.get("loss" if name not in run.series and name == "loss_mean" else name)
    if series is None:
        return ""
    late = series.values[-max(1, series.values.size // 10) :]
    late = late[np.isfinite(late)]
    return f"{np.median(late):.3g}" if late.size else "not finite"


def _content(group: Group) -> dict[str, Any]:
    runs = zip(group.runs, group.colors, strict=True)
    return {
        "runs": [{"name": run.name, "color": color} for run, color in runs],
        "plots": [
            {
                "unit": plot.unit,
                "scale": plot.scale,
                "marks": plot.marks,
                "lines": [_line(trace) for trace in traces],
            }
            for plot, traces in group.plots
        ],
    }


def _line(trace: Trace) -> dict[str, Any]:
    numbers = {"values": _numbers(trace.values)}
    if trace.spread is not None:
        numbers["spread"] = _numbers(trace.spread)
    steps = trace.steps.tolist()
    return {**trace._asdict(), "spread": None, "steps": steps, **numbers}


def _numbers(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(v) else float(f"{v:.{_DIGITS}g}") for v in values.tolist()]
