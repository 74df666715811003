"""The report as one page of HTML: works from a file, without server and network.

Whatever a user named, runs and paths and scalars, is data: escaped in the markup, and in the
script's JSON. Nothing but the page's own script and style is allowed to run or to be loaded.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Sequence
from html import escape
from importlib import resources
from typing import Any, NamedTuple

import numpy as np

from .. import palette
from ..recording import Recording
from .findings import findings
from .quantities import Drawn
from .thinning import POINTS, thin
from .traces import Trace

_DIGITS = 5


class Group(NamedTuple):
    """Runs that are compared with each other.

    Attributes:
      name: such as the problem; may be empty.
      runs: the recordings.
      plots: what there is to show of them.
    """

    name: str
    runs: list[Recording]
    plots: list[Drawn]


def colors(runs: Sequence[Recording]) -> list[str]:
    """Color of each run, the same within a family."""
    chosen = palette.colors(run.family for run in runs)
    return [chosen[run.family] for run in runs]


def page(groups: Sequence[Group], made_by: str) -> str:
    """The whole page.

    Args:
      groups: what to show.
      made_by: name and version of the program.
    """
    script, style = _file("page.js"), _file("page.css")
    policy = (
        "default-src 'none'; base-uri 'none'; form-action 'none'; "
        f"script-src '{_digest(script)}'; style-src '{_digest(style)}'"
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
Strong lines are running medians, faint ones what was recorded; of lines longer than {POINTS:,}
points, the smallest, middle and largest of every few values are shown. Written by
{escape(made_by)}.</p>
<noscript><p class="warning">The plots need JavaScript; view.png shows them without.</p></noscript>
{sections}
<script type="application/json" id="data">{_json([_content(group) for group in groups])}</script>
<script>{script}</script>
</body>
</html>
"""


def _file(name: str) -> str:
    return (resources.files("mekax.experiments.view") / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _json(content: Any) -> str:
    """JSON that no script element ends in."""
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _section(group: Group, index: int) -> str:
    heading = f"<h2>{escape(group.name)}</h2>" if group.name else ""
    toggles = "".join(
        f'<label><input type="checkbox" autocomplete="off" checked data-group="{index}" '
        f'data-run="{number}"> {_swatch(color)} {escape(run.name)}</label>'
        for number, (run, color) in enumerate(zip(group.runs, colors(group.runs), strict=True))
    )
    warnings = "".join(
        f'<p class="warning">{escape(run.name)}: {escape(run.note)}</p>'
        for run in group.runs
        if run.note
    )
    figures = "".join(_figure(drawn, index, number) for number, drawn in enumerate(group.plots))
    return f"""<section>
{heading}
{warnings}
{_table(group.runs)}
<div class="bar">{toggles}
<label>smoothing <input type="range" autocomplete="off" min="0" max="7" value="3">
<output>median of 2 %</output></label>
<button class="whole" data-group="{index}">whole run</button></div>
<div class="plots">{figures}</div>
</section>
"""


def _swatch(color: str) -> str:
    return f'<svg width="12" height="12"><rect width="12" height="12" fill="{color}"/></svg>'


def _figure(drawn: Drawn, group: int, number: int) -> str:
    plot = drawn.plot
    signs = "".join(
        f"<dt>{escape(sign)}</dt><dd>{escape(meaning)}</dd>" for sign, meaning in plot.signs
    )
    return f"""<figure>
<div class="head"><h3>{escape(plot.title)}</h3>
<button title="scale of the axis">linear</button></div>
<div class="canvas"><canvas data-group="{group}" data-plot="{number}" role="img"
aria-label="{escape(plot.title)}"></canvas><div class="tip"></div></div>
<figcaption>{escape(plot.read)}<dl>{signs}</dl></figcaption>
</figure>
"""


def _table(runs: Sequence[Recording]) -> str:
    """The runs in numbers, medians of the last tenth, and what stands out."""
    columns = [
        (words, name)
        for words, name in (
            ("loss", "loss_mean" if any("loss_mean" in run.series for run in runs) else "loss"),
            ("step size", "step_size"),
            ("signal-to-noise", "snr"),
            ("slope ratio", "slope_ratio"),
            ("gain", "gain"),
            ("rejected", "num_rejected"),
        )
        if any(name in run.series for run in runs)
    ]
    head = "".join(f'<th class="number">{words}</th>' for words, _ in columns)
    rows = "".join(
        f'<tr><td>{escape(run.name)}</td><td class="number">{last_step(run):,}</td>'
        + "".join(f'<td class="number">{_late(run, name)}</td>' for _, name in columns)
        + f"<td>{'<br>'.join(map(escape, findings(run))) or '–'}</td></tr>"
        for run in runs
    )
    return (
        f'<table><tr><th>run</th><th class="number">steps</th>{head}'
        f"<th>what stands out in the last quarter</th></tr>{rows}</table>"
    )


def last_step(run: Recording) -> int:
    """The last step of which anything was recorded."""
    return max(int(series.steps[-1]) for series in run.series.values())


def _late(run: Recording, name: str) -> str:
    if name == "loss_mean" and name not in run.series:
        name = "loss"
    if name not in run.series:
        return ""
    values = run.series[name].values
    late = values[-max(1, values.size // 10) :]
    late = late[np.isfinite(late)]
    return f"{np.median(late):.3g}" if late.size else "not finite"


def _content(group: Group) -> dict[str, Any]:
    shades = colors(group.runs)
    return {
        "runs": [
            {"name": run.name, "color": color}
            for run, color in zip(group.runs, shades, strict=True)
        ],
        "plots": [
            {
                "unit": drawn.plot.unit,
                "scale": drawn.plot.scale,
                "marks": drawn.plot.marks,
                "lines": [_line(run, trace) for run, trace in drawn.lines],
            }
            for drawn in group.plots
        ],
    }


def _line(run: int, trace: Trace) -> dict[str, Any]:
    kept = thin(trace.values)
    return {
        "run": run,
        "label": trace.label,
        "dash": trace.dash,
        "steps": _steps(trace.steps[kept]),
        "values": _numbers(trace.values[kept]),
        "spread": None if trace.spread is None else _numbers(trace.spread[kept]),
    }


def _steps(steps: np.ndarray) -> Any:
    """A list, or for even steps where they start, how far they are apart and how many."""
    gaps = np.diff(steps)
    if gaps.size and (gaps == gaps[0]).all():
        return {"start": int(steps[0]), "stride": int(gaps[0]), "count": int(steps.size)}
    return steps.tolist()


def _numbers(values: np.ndarray) -> list[float | None]:
    return [float(f"{v:.{_DIGITS}g}") if math.isfinite(v) else None for v in values.tolist()]
