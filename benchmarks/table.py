"""The text of a row and of all goals. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median

from benchmarks.goals import Verdict
from benchmarks.measuring import Measured, Spread, ratio
from benchmarks.row import Row

__all__ = ["best_peer", "render", "summary"]


def best_peer(row: Row, measured: Measured) -> str | None:
    """Give the label of the peer with the smallest median; None without peers."""
    labels = [entry.label for entry in row.entries if entry.is_peer and measured.samples.get(entry.label)]
    return min(labels, key=lambda label: median(measured.samples[label]), default=None)


def render(row: Row, measured: Measured, verdicts: Sequence[Verdict], notes: Iterable[str] = ()) -> str:
    """Give the lines of a row: the median, the middle half of the samples, their least; and beside whom, how much."""
    samples = measured.samples
    labels = [entry.label for entry in row.entries if samples.get(entry.label)]
    beside: list[tuple[str, str]] = []
    if row.compares:
        best = best_peer(row, measured)
        if row.base is not None and samples.get(row.base):
            beside.append((f"× {row.base}", row.base))
        if best is not None:
            beside.append(("× best peer", best))
    count = max((len(samples[label]) for label in labels), default=0)
    spreads = ["middle half", "least"] if count > 1 else []
    heads = ["", "median", *spreads, *(head for head, _ in beside)]
    lines = [heads]
    for label in labels:
        spread = Spread.of(samples[label])
        number = row.unit.number
        cells = [label, number(spread.median)]
        if spreads:
            cells += [f"{number(spread.low)} to {number(spread.high)}", number(spread.least)]
        lines.append([*cells, *(f"{ratio(samples[label], samples[other]):.2f}" for _, other in beside)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    facts = ", ".join(filter(None, [row.unit.symbol, f"{count} round{'s' if count != 1 else ''}"]))
    text = [f"{row.name}: {row.title} ({facts})"]
    for cells in lines:
        first, *rest = (
            cell.ljust(width) if not at else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        text.append(f"  {'  '.join([first, *rest])}".rstrip())
    text += [f"  {_verdict(verdict)}" for verdict in verdicts]
    text += [f"  {label}: failed, {why}" for label, why in measured.failures.items()]
    text += [f"  ({note})" for note in notes]
    return "\n".join(text)


def _verdict(verdict: Verdict) -> str:
    return f"{verdict.mark} {verdict.label} {verdict.goal}: {verdict.shown}"


def summary(verdicts: Sequence[tuple[str, Verdict]]) -> str:
    """Give all that was not reached, and the count; each verdict comes with the name of its row."""
    met = sum(verdict.is_met is True for _, verdict in verdicts)
    known = sum(verdict.is_met is not None for _, verdict in verdicts)
    lines = [f"{met} of {known} goals reached"]
    lines += [f"  {name}: {_verdict(verdict)}" for name, verdict in verdicts if verdict.is_met is False]
    return "\n".join(lines)
