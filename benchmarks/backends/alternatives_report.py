"""The tables of `benchmarks.backends.alternatives`, from its results."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

NAME = "benchmarks.backends.alternatives"  # of its place in the page
OURS = "chips"
_KINDS = {
    "numbers": "a scaler and a logistic regression on 8 numbers",
    "mixed": "the same on 8 numbers and 2 categories, trained on a DataFrame",
    "onnx": "the first one as ONNX",
    "wide": "a scaler and a logistic regression on 100 numbers",
}
_PROTOCOLS = {"v1": "JSON rows", "inputs": "JSON rows", "dataframe_records": "JSON rows", "v2": "v2 JSON", "v2p": "v2 JSON", "binary": "v2 binary"}  # fmt: skip
CALLERS = 8  # of the figures of cost; other numbers of callers are measured with the fewest rows alone

Key = tuple[str, str, str, int, int]  # kind, peer, protocol, rows, callers


def tables(document: Mapping[str, Any]) -> str:
    """All tables as Markdown."""
    found = medians(document["figures"])
    parts = [_about(document)]
    for kind, title in _KINDS.items():
        if any(key[0] == kind for key in found):
            parts += [
                f"CPU µs per request, {CALLERS} callers, {title}:",
                _cost(found, kind, document["peers"]),
            ]
    parts += ["One row of 8 numbers:", _latency(found, document["peers"])]
    parts += ["Start, first prediction, memory when ready:", _starts(document)]
    not_served = list(_not_served(document["figures"], document["peers"]))
    if not_served:
        parts.append("–, since not all requests got an answer: " + "; ".join(not_served) + ".")
    left_out = [
        f"{document['peers'][each['peer']]} ({each['kind']}): {each['why']}" for each in document["left_out"]
    ]
    if left_out:
        parts.append("Left out: " + "; ".join(dict.fromkeys(left_out)) + ".")
    return "\n\n".join(parts)


def _about(document: Mapping[str, Any]) -> str:
    of = document["machine"]
    return (
        f"{document['date'][:10]}, {of['cpus']} CPUs ({of['cpu']}), {of['system']}, Python {of['python']}, load {of['load'][0]:.1f} "
        f"when it began; each figure is the median of {document['rounds']}, of {document['seconds']} s each."
    )


def medians(figures: Sequence[Mapping[str, Any]]) -> dict[Key, dict[str, float]]:
    by_key: dict[Key, list[Mapping[str, Any]]] = {}
    for figure in figures:
        if figure["served"]:
            by_key.setdefault(_key(figure), []).append(figure)
    names = ("per_s", "cpu_us", "p50_ms", "p99_ms", "rss_mb")
    return {
        key: {name: statistics.median(figure[name] for figure in several) for name in names}
        for key, several in by_key.items()
    }


def _not_served(figures: Sequence[Mapping[str, Any]], titles: Mapping[str, str]) -> Iterator[str]:
    """Which figures no round has, and what the last one says of it."""
    served = medians(figures)
    why = {_key(figure): figure["why"] for figure in figures if not figure["served"]}
    for key, reason in why.items():
        if key not in served:
            kind, peer, protocol, rows, callers = key
            yield (
                f"{titles[peer]}, {_PROTOCOLS[protocol]} ({kind}, {rows} row{'s' * (rows > 1)}, {callers} callers): {reason}"
            )


def _key(figure: Mapping[str, Any]) -> Key:
    return (figure["kind"], figure["peer"], figure["protocol"], figure["rows"], figure["callers"])


def ratio(found: Mapping[Key, Mapping[str, float]], kind: str, rows: int, protocol: str) -> float | None:
    """Ours by the cheapest peer, which may use any protocol but a binary one, unless ours is."""
    mine = found.get((kind, OURS, protocol, rows, CALLERS))
    others = [
        figure["cpu_us"]
        for (k, peer, p, r, callers), figure in found.items()
        if (k, r, callers) == (kind, rows, CALLERS)
        and peer != OURS
        and (p != "binary" or protocol == "binary")
    ]
    return mine["cpu_us"] / min(others) if mine and others else None


def _cost(found: Mapping[Key, Mapping[str, float]], kind: str, titles: Mapping[str, str]) -> str:
    sizes = sorted({key[3] for key in found if key[0] == kind})
    lines = [
        "| | " + " | ".join(f"{rows} row{'s' * (rows > 1)}" for rows in sizes) + " |",
        "|---|" + "--:|" * len(sizes),
    ]
    for peer, protocol in dict.fromkeys((key[1], key[2]) for key in found if key[0] == kind):
        cells = []
        for rows in sizes:
            figure = found.get((kind, peer, protocol, rows, CALLERS))
            text = "–" if figure is None else f"{figure['cpu_us']:.0f}"
            if peer == OURS and (r := ratio(found, kind, rows, protocol)) is not None:
                text = f"**{text}** ({r:.2f})"
            cells.append(text)
        lines.append(f"| {titles[peer]}, {_PROTOCOLS[protocol]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _latency(found: Mapping[Key, Mapping[str, float]], titles: Mapping[str, str]) -> str:
    here = {key: figure for key, figure in found.items() if key[0] == "numbers" and key[3] == 1}
    callers = sorted({key[4] for key in here})
    lines = [
        "| | "
        + " | ".join(f"{n} caller{'s' * (n > 1)}: requests/s | p50 ms | p99 ms" for n in callers)
        + " | MB |",
        "|---|" + "--:|--:|--:|" * len(callers) + "--:|",
    ]
    for peer, protocol in dict.fromkeys((key[1], key[2]) for key in here):
        cells: list[str] = []
        memory = 0.0
        for n in callers:
            figure = here.get(("numbers", peer, protocol, 1, n))
            if figure is None:
                cells += ["–"] * 3
                continue
            cells += [f"{figure['per_s']:.0f}", f"{figure['p50_ms']:.1f}", f"{figure['p99_ms']:.1f}"]
            memory = max(memory, figure["rss_mb"])
        lines.append(
            f"| {titles[peer]}, {_PROTOCOLS[protocol]} | " + " | ".join([*cells, f"{memory:.0f}"]) + " |"
        )
    return "\n".join(lines)


def _starts(document: Mapping[str, Any]) -> str:
    lines = ["| | model | ready s | first ms | MB |", "|---|---|--:|--:|--:|"]
    return "\n".join([*lines, *_start_lines(document)])


def _start_lines(document: Mapping[str, Any]) -> Iterator[str]:
    by_key: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for start in document["starts"]:
        by_key.setdefault((start["peer"], start["kind"]), []).append(start)
    for (peer, kind), several in by_key.items():
        ready, first, rss = (
            statistics.median(start[name] for start in several) for name in ("ready_s", "first_ms", "rss_mb")
        )
        yield f"| {document['peers'][peer]} | {kind} | {ready:.1f} | {first:.0f} | {rss:.0f} |"
