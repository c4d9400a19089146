"""`pelton bench`: figures of one model on this machine, the ceiling first, the share of it after."""

from __future__ import annotations

import typer

from ..options import flat
from . import latency, report, serving, simulate, throughput, trace

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Measure a model on this machine.")
app.command("latency")(flat(latency.latency))
app.command("throughput")(flat(throughput.throughput))
app.command("serve")(flat(serving.serve))
app.command("simulate")(flat(simulate.simulate))
app.command("report")(flat(report.report))
app.command("trace")(flat(trace.trace))
