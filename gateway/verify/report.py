"""Render the report of a verification. The formats are JSON, JUnit XML and evidence."""

from typing import Any, Final
from xml.etree import ElementTree as ET

from gateway.verify.run import VerificationReport

_MOST_OF_WHY: Final = 300  # characters kept of why a check did not pass


def as_json(report: VerificationReport) -> dict[str, Any]:
    """The report as JSON values."""
    return {
        "url": report.url,
        "model": report.model,
        "version": report.version,
        "passed": report.count("passed"),
        "failed": report.count("failed"),
        "skipped": report.count("skipped"),
        "seconds": round(report.seconds, 3),
        "checks": [
            {
                "name": result.check.name,
                "contract": result.check.contract,
                "outcome": result.outcome,
                "seconds": round(result.seconds, 3),
                **({"why": result.why} if result.why else {}),
                **({"sent": result.sent, "came": result.response} if result.outcome == "failed" else {}),
            }
            for result in report.results
        ],
    }


def as_evidence(report: VerificationReport) -> dict[str, Any]:
    """The report as evidence to keep. It is JSON values: what each check has found, without what was sent and received."""
    others = [result for result in report.results if result.outcome != "passed"]
    return {
        "passed": report.count("passed"),
        "failed": [result.check.name for result in report.failed],
        "skipped": report.count("skipped"),
        "checks": {result.check.name: result.outcome for result in report.results},
        "why": {result.check.name: result.why[:_MOST_OF_WHY] for result in others if result.why},
    }


def as_junit(report: VerificationReport) -> bytes:
    """The report as JUnit XML."""
    suite = ET.Element(
        "testsuite",
        name=f"chips verify {report.model}@{report.version}",
        tests=str(len(report.results)),
        failures=str(report.count("failed")),
        skipped=str(report.count("skipped")),
        errors="0",
        time=f"{report.seconds:.3f}",
    )
    for result in report.results:
        case = ET.SubElement(
            suite,
            "testcase",
            classname=f"contract.{result.check.group}",
            name=result.check.name.partition("/")[2],
            time=f"{result.seconds:.3f}",
        )
        if result.outcome == "failed":
            failure = ET.SubElement(case, "failure", message=_xml(result.why))
            failure.text = _xml(
                f"the contract: {result.check.contract}\n\nsent:\n{result.sent}\n\ncame:\n{result.response}\n"
            )
        elif result.outcome == "skipped":
            ET.SubElement(case, "skipped", message=_xml(result.why))
    ET.indent(suite)
    document: bytes = ET.tostring(suite, encoding="utf-8", xml_declaration=True)
    return document


def _xml(text: str) -> str:
    """Characters that XML 1.0 cannot hold, written out."""
    return "".join(
        c if c in "\t\n" or " " <= c <= "\ud7ff" or "\ue000" <= c <= "\ufffd" else f"\\x{ord(c):02x}"
        for c in text
    )
