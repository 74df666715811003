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
import pandas as pd
from plotly.offline import get_plotlyjs

from ..plots import colors
from .findings import findings
from .quantities import Drawn, draw
from .sources import Recording, finite


class Group(NamedTuple):
    """Runs that are compared with each other."""

    name: str  # such as the problem; may be empty
    runs: list[Recording]
    colors: list[str]  # of the runs, the same within a family
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
    """The whole page; `made_by` is name and version of the program."""
    folder = resources.files("mekax.experiments.view")
    script, style = ((folder / f"page.{end}").read_text("utf-8") for end in ("js", "css"))
    plotly = get_plotlyjs()
    policy = (
        "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data: blob:; "
        f"script-src {_digest(plotly)} {_digest(script)}; style-src 'unsafe-inline'"
    )
    title = ", ".join(run.name for group in groups for run in group.runs[:3])
    data = json.dumps([_content(group) for group in groups], separators=(",", ":"))
    data = data.replace("<", "\\u003c")  # so that no script element ends in it
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
{"".join(map(_section, groups))}
<script type="application/json" id="data">{data}</script>
<script>{plotly}</script>
<script>{script}</script>
</body>
</html>
"""


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _section(group: Group) -> str:
    heading = f"<h2>{escape(group.name)}</h2>" if group.name else ""
    toggles = "".join(
        f'<label><input type="checkbox" autocomplete="off" checked> <svg width="12" height="12">'
        f'<rect width="12" height="12" fill="{color}"/></svg> {escape(run.name)}</label>'
        for run, color in zip(group.runs, group.colors, strict=True)
    )
    warnings = "".join(
        f'<p class="warning">{escape(run.name)}: {escape(run.note)}</p>'
        for run in group.runs
        if run.note
    )
    return f"""<section>
{heading}{warnings}
{_table(group.runs)}
<div class="bar">{toggles}
<label>smoothing <input type="range" autocomplete="off" min="0" max="7" value="3">
<output>median of 2 %</output></label>
<button class="whole">whole run</button></div>
<div class="plots">{"".join(map(_figure, group.plots))}</div>
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
    rows = []
    for run in runs:
        columns = {
            "loss": "loss_mean" if "loss_mean" in run.series else "loss",
            "step size": "step_size",
            "signal-to-noise": "snr",
            "slope ratio": "slope_ratio",
            "gain": "gain",
            "rejected": "num_rejected",
        }
        steps = max(series.index[-1] for series in run.series.values())
        known = {words: name for words, name in columns.items() if name in run.series}
        late = {words: _late(run.series[name]) for words, name in known.items()}
        rows.append({"run": escape(run.name), "steps": f"{steps:,}", **late})
    remarks = ["<br>".join(map(escape, findings(run.series))) or "–" for run in runs]
    frame = pd.DataFrame(rows).assign(**{"what stands out in the last quarter": remarks})
    with pd.option_context("display.max_colwidth", None):
        return frame.to_html(index=False, escape=False, border=0, na_rep="")


def _late(series: pd.Series) -> str:
    late = finite(series.tail(max(1, series.size // 10)))
    return f"{late.median():.3g}" if late.size else "not finite"


def _content(group: Group) -> dict[str, Any]:
    """What the script draws."""
    runs = zip(group.runs, group.colors, strict=True)
    plots = []
    for plot, traces in group.plots:
        lines = [
            {
                **trace._asdict(),
                "steps": trace.values.index.tolist(),
                "values": _numbers(trace.values),
                "spread": None if trace.spread is None else _numbers(trace.spread),
            }
            for trace in traces
        ]
        plots.append({"unit": plot.unit, "scale": plot.scale, "marks": plot.marks, "lines": lines})
    return {"runs": [{"name": run.name, "color": color} for run, color in runs], "plots": plots}


def _numbers(values: pd.Series) -> list[float | None]:
    return [None if np.isnan(value) else float(f"{value:.5g}") for value in values]
