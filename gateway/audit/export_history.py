"""Export the registry's history for auditors.

It writes JSON, CSV or HTML. Anybody can check the JSON, CSV is for a spreadsheet, and a person can read the page.
"""

import csv
import html
import io
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from gateway.audit.verify_history import HistoryReport
from gateway.core.escape_unprintable import printable
from gateway.core.model_updates import differences
from gateway.registry.base import Entry
from gateway.registry.hash_chain import canonical_entry
from gateway.registry.mask_change import mask_change

_RULE: Final = (
    "digest = SHA-256 over the canonical form (RFC 8785) of canonical; previous = the digest of the entry before; "
    "before_sha256 and after_sha256 = SHA-256 of the texts before and after"
)
_COLUMNS: Final = (
    *("sequence", "generation", "at", "author", "reason", "action", "kind", "name", "revision"),
    *("before", "after", "previous", "digest"),
)


def to_json(report: HistoryReport, entries: Sequence[Entry]) -> str:
    """The history as JSON. The newest entry is first. It has all that is needed to compute every digest again."""
    content = {
        "head": msgspec.to_builtins(report.head),
        "rule": _RULE,
        "findings": msgspec.to_builtins(report.findings),
        "entries": [
            {
                "canonical": canonical_entry(entry, report.head.registry_id),
                "digest": entry.digest,
                "before": entry.before,
                "after": entry.after,
            }
            for entry in entries
        ],
    }
    return msgspec.json.format(msgspec.json.encode(content), indent=1).decode() + "\n"


def to_csv(entries: Sequence[Entry]) -> str:
    """The history as CSV: a line for each entry, the newest first.

    A text that a spreadsheet would take for a formula gets a quote before it.
    """
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(_COLUMNS)
    writer.writerows([_cell(getattr(entry, name)) for name in _COLUMNS] for entry in entries)
    return out.getvalue()


def _cell(value: Any) -> str:
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def to_html(report: HistoryReport, entries: Sequence[Entry]) -> str:
    """The history as an HTML page. It has no scripts or other files. It shows what was found, then each change."""
    head = report.head
    verdict = "".join(f"<li>{_escape(finding.text)}</li>" for finding in report.findings)
    verdict = f"<ul class=bad>{verdict}</ul>" if verdict else "<p class=good>Nothing was found.</p>"
    rows = "".join(_row(entry) for entry in entries)
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>History of a CHIPS registry</title>"
        f"<style>{_STYLE}</style><h1>History of a CHIPS registry</h1>"
        f"<dl><dt>registry<dd>{_escape(head.registry_id)}<dt>generation<dd>{head.generation}"
        f"<dt>entries<dd>{report.entries}, {report.chained} in the chain"
        f"<dt>head<dd><code>{_escape(head.digest or '')}</code>"
        f"<dt>second place<dd>{report.anchors} heads, up to entry {report.anchored}</dl>"
        f"<h2>The check</h2>{verdict}<h2>Changes</h2>"
        "<table><thead><tr><th>entry<th>when (UTC)<th>who<th>what<th>why<th>difference<th>digest</thead>"
        f"<tbody>{rows}</tbody></table></html>\n"
    )


_STYLE: Final = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem;color:#222}table{border-collapse:collapse;width:100%}"
    "th,td{text-align:left;vertical-align:top;padding:.3rem .6rem;border-bottom:1px solid #ddd}"
    "code{font-size:.85em;word-break:break-all}dt{font-weight:600}.bad{color:#a00}.good{color:#060}"
    "@media print{body{margin:0}}"
)


def _escape(text: str) -> str:
    """`text` for the page, where no character may turn around or hide what stands next to it."""
    return html.escape(printable(text))


def _row(entry: Entry) -> str:
    change = mask_change(entry.change())
    lines = "".join(
        f"<div>{_escape(path)}: {_escape(_shown(old))} → {_escape(_shown(new))}</div>"
        for path, old, new in differences(change.before, change.after)
    )
    cells = (
        str(entry.sequence or ""),
        _escape(entry.at),
        _escape(entry.author),
        f"{_escape(entry.action)} {_escape(entry.kind)}/{_escape(entry.name)} revision {entry.revision}",
        _escape(entry.reason),
        lines,
        f"<code>{_escape((entry.digest or '')[:16])}</code>",
    )
    return "<tr>" + "".join(f"<td>{cell}" for cell in cells) + "</tr>"


def _shown(value: Any) -> str:
    text = "" if value is None else value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= 300 else text[:299] + "…"
