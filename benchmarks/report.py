"""From measurements to a table, a file and a picture."""

import json
import statistics
from pathlib import Path
from typing import Any

Document = dict[str, Any]


def line(result: dict[str, Any]) -> str:
    name = f"{result['peer']:16} {result['case']:10}"
    if "error" in result:
        return f"{name} not served: {result['error']}"
    if result["case"] == "memory":
        figures = (f"{when} {result[f'{when}_mb']:.0f} MB" for when in ("idle", "loaded", "recovered"))
        return f"{name} {', '.join(figures)}"
    if "cpu_us" not in result and "open_rate" not in result:
        return f"{name} {', '.join(f'{what} {figure:.2f}' for what, figure in result.items() if isinstance(figure, float))}"
    if "open_rate" in result:
        return f"{name} at {result['open_rate']:.0f}/s: p50 {result['p50_us']} p99 {result['p99_us']} p99.9 {result['p999_us']} us, {result['bad']} bad"
    return f"{name} {result['cpu_us']:8.1f} us  {result['per_s']:8.0f}/s  p50 {result['p50_us'] / 1000:.2f} p99 {result['p99_us'] / 1000:.2f} ms  busy {result['busy']:.2f}  {result['rss_mb']:.0f} MB  failed {result['failed']}"


def medians(document: Document) -> dict[tuple[str, str], dict[str, float]]:
    """By case and peer, the median of each figure over the rounds."""
    grouped: dict[tuple[str, str], dict[str, list[float]]] = {}
    for result in document["results"]:
        if "error" in result:
            continue
        prefix = "open_" if "open_rate" in result else ""
        for name, value in result.items():
            if isinstance(value, int | float) and name != "round":
                grouped.setdefault((result["case"], result["peer"]), {}).setdefault(prefix + name, []).append(
                    value
                )
    return {
        key: {name: statistics.median(values) for name, values in figures.items()}
        for key, figures in grouped.items()
    }


def table(document: Document) -> str:
    """Markdown: one table a case, the cheapest first."""
    figures = medians(document)
    parts = []
    for case, about in document["cases"].items():
        rows = sorted(
            ((peer, row) for (name, peer), row in figures.items() if name == case),
            key=lambda item: item[1].get("cpu_us", 0),
        )
        if not rows:
            continue
        envoy = figures.get((case, "envoy"), {}).get("cpu_us")
        parts.append(
            f"\n### {about}\n\n| proxy | CPU µs/request | × Envoy | requests/s | p50 / p99 ms | open loop p50 / p99 / p99.9 ms | MB/CPU-s | RSS MB | first answer s |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|"
        )
        for peer, row in rows:
            ratio = f"{row['cpu_us'] / envoy:.2f}" if envoy else ""
            opened = (
                " / ".join(f"{row[f'open_{name}'] / 1000:.2f}" for name in ("p50_us", "p99_us", "p999_us"))
                if "open_p50_us" in row
                else ""
            )
            parts.append(
                f"| {peer}{_failures(row)} | {row['cpu_us']:.1f} | {ratio} | {row['per_s']:.0f} | {row['p50_us'] / 1000:.2f} / {row['p99_us'] / 1000:.2f} | {opened} "
                f"| {row['mb_per_cpu_s']:.0f} | {row['rss_mb']:.0f} | {row['started_s']:.2f} |"
            )
    return "\n".join(parts) + "\n"


def _failures(row: dict[str, float]) -> str:
    """A request that failed cost less than one that did not."""
    count = row.get("failed", 0) + row.get("open_bad", 0)
    return f" ({count:.0f} failed)" if count else ""


_MORE = {
    "faults": "page faults / request",
    "calls": "system calls / request",
    "instructions": "instructions / request, in user space",
    "within_1_ms": "requests/s with p99 ≤ 1 ms",
    "within_5_ms": "≤ 5 ms",
    "within_10_ms": "≤ 10 ms",
    "within_50_ms": "≤ 50 ms",
}
_MEMORY = {"idle_mb": "idle", "loaded_mb": "after all cases", "recovered_mb": "3 s later"}


def _more(document: Document) -> str:
    """Markdown: what else a request of 1 KB takes, and the memory. An empty place: not reached, or not measured here."""
    figures = medians(document)
    parts = []
    for title, case, columns in (
        ("What else a request of 1 KB takes", "1k", _MORE),
        ("Memory, MB", "memory", _MEMORY),
    ):
        rows = [(peer, row) for (name, peer), row in figures.items() if name == case]
        if not any(column in row for _, row in rows for column in columns):
            continue
        parts.append(
            f"\n### {title}\n\n| proxy | {' | '.join(columns.values())} |\n|---|{'--:|' * len(columns)}"
        )
        for peer, row in rows:
            shown = [_figure(row[column]) if column in row else "" for column in columns]
            parts.append(f"| {peer} | {' | '.join(shown)} |")
    growth = [
        f"{peer} {row['growth_kb']:.1f}"
        for (name, peer), row in figures.items()
        if name == "1k" and "growth_kb" in row
    ]
    if growth:
        parts.append(f"\nKB that it grows by in 1 000 requests of 1 KB: {', '.join(growth)}.")
    return "\n".join(parts) + "\n"


def _figure(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.2f}"


def _unserved(document: Document) -> list[str]:
    """Each case that a peer did not serve, once, with its reason."""
    reasons = {
        (result["peer"], result["case"]): result["error"]
        for result in document["results"]
        if "error" in result
    }
    return [f"- {peer} does not serve {case}: {reason}" for (peer, case), reason in reasons.items()]


def closing(document: Document) -> str:
    """Markdown: what does not fit into the tables."""
    lines = _unserved(document)
    if begun := document.get("start"):
        lines.append(
            f"Start to first answered request on SQLite: {begun['lazy']:.2f} s; importing everything first: "
            f"{begun['eager']:.2f} s; that is {begun['ratio']:.2f} of it.\n"
        )
    lines += [f"- {name}: {about}" for name, about in document["peers"].items()]
    lines += [f"- {name} was left out: {reason}" for name, reason in document.get("left_out", {}).items()]
    return "\n### Who does what\n\n" + "\n".join(lines) + "\n"


def picture(document: Document, case: str = "1k") -> str:
    """An SVG: one bar a proxy, CPU per request."""
    rows = sorted(
        (row["cpu_us"], peer)
        for (name, peer), row in medians(document).items()
        if name == case and "cpu_us" in row
    )
    if not rows:
        return ""
    longest = max(value for value, _ in rows if value <= 30 * rows[0][0])  # beyond, a bar is cut off
    height = 26
    bars = []
    for i, (value, peer) in enumerate(rows):
        y = 48 + i * height
        width = max(1.0, min(value / longest, 1.0) * 470)
        cut = " →" if value > longest else ""
        color = "#0b6e4f" if peer.startswith("chips") else "#9aa5b1"
        bars.append(
            f'<text x="128" y="{y + 13}" text-anchor="end">{peer}</text>'
            f'<rect x="138" y="{y}" width="{width:.1f}" height="18" rx="2" fill="{color}"/>'
            f'<text x="{144 + width:.1f}" y="{y + 13}">{value:.1f}{cut}</text>'
        )
    size = 60 + len(rows) * height
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 680 {size}" font-family="sans-serif" font-size="12" role="img">'
        f'<title>CPU per proxied request</title><rect width="680" height="{size}" fill="#fff"/>'
        f'<text x="12" y="24" font-size="14" font-weight="bold">CPU µs per request, {document["cases"][case]} ({document["date"][:10]})</text>'
        + "".join(bars)
        + "</svg>\n"
    )


def read(folder: Path) -> Document:
    """The results that `write` put there; nothing where there are none."""
    try:
        document: Document = json.loads((folder / "latest.json").read_text())
    except FileNotFoundError:
        return {}
    return document


def write(document: Document, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "latest.json").write_text(json.dumps(document, indent=1) + "\n")
    host = document["machine"]
    versions = "; ".join(f"{version}" for version in host["versions"].values())
    (folder / "latest.md").write_text(
        f"# Results of {document['date'][:10]}\n\n{host['cpus']} CPUs ({host['cpu']}), {host['system']}, Python {host['python']}. {versions}.\n"
        + table(document)
        + _more(document)
        + closing(document)
    )
    (folder / "latest.svg").write_text(picture(document))
