"""Print the report on a shadow in a terminal. It shows the verdict, agreement, latency and examples."""

from typing import Any

from gateway.cli.support import console
from gateway.core.shadow_document import Shadow

_STYLES = {"agrees": "bold green", "differs": "bold red", "fails": "bold red", "undecided": "bold yellow"}


def print_shadow_report(shadow: Shadow, verdict: dict[str, Any]) -> None:
    """Print the report on a shadow. It shows the verdict, the figures behind that, and the worst examples."""
    stable, candidate = shadow.stable, shadow.candidate
    console.say(shadow.model, f"version {candidate} in the shadow of version {stable}")
    console.say(
        "state", verdict["ended"] or f"runs until {shadow.until}, at {verdict['gateways']} gateway processes"
    )
    console.say("verdict", f"{verdict['finding']}: {verdict['why']}", style=_STYLES[verdict["finding"]])
    console.say("agreement", f"{_rate(verdict['agreement'])} of {verdict['compared']} answers")
    console.say(
        f"v {stable} twice",
        f"{_rate(verdict['stable_agreement_with_itself'])} of {verdict['stable_compared_with_itself']} answers",
    )
    for name, sides in verdict["outputs"].items():
        console.say(
            name,
            "; ".join(
                _output(label, sides[side])
                for label, side in ((f"v {candidate}", "candidate"), (f"v {stable} twice", "stable"))
                if sides[side]
            ),
        )
    if verdict["unused_tolerances"]:
        console.say(
            "warning",
            f"no answer has an output called {', '.join(verdict['unused_tolerances'])}, for which a tolerance was given",
            style="bold yellow",
        )
    for label, version in ((f"v {stable}", verdict["stable"]), (f"v {candidate}", verdict["candidate"])):
        times = ", ".join(
            f"{name[:3]} {version[name] * 1000:.1f} ms"
            for name in ("p50_s", "p95_s", "p99_s")
            if version[name]
        )
        console.say(label, f"{version['failed']} of {version['requests']} failed; {times or 'no times yet'}")
    dropped = ", ".join(f"{count} {reason}" for reason, count in sorted(verdict["dropped"].items()))
    console.say("sampled", f"{verdict['sampled']} requests" + (f"; left out: {dropped}" if dropped else ""))
    for number, example in enumerate(verdict["worst"]):
        told = "; ".join(_difference(one) for one in example["differences"])
        console.say("worst" if not number else "", f"{example['request_id']}: {told}")


def _rate(interval: dict[str, float]) -> str:
    return f"{interval['seen']:.2%} ({interval['low']:.2%} to {interval['high']:.2%})"


def _output(label: str, figures: dict[str, Any]) -> str:
    text = f"{label}: {figures['agreement']['seen']:.2%} agree"
    if figures["mean_difference"] is not None:
        text += (
            f", mean difference {figures['mean_difference']:.3g}, largest {figures['largest_difference']:.3g}"
        )
    return text


def _difference(one: dict[str, Any]) -> str:
    place = f"{one['path']} " if one["path"] else ""
    return place + (f"by {one['amount']:.3g}" if "amount" in one else one["what"])
