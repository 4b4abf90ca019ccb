"""What each kind is asked, and what is wrong with the answers: another number, a 5xx, a 4xx without a place."""

import json
import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import requests

WHOLE = "CHIPS_ZOO_RESULTS" in os.environ  # `make zoo` asks more than CI has time for


class Served:
    """A kind that is served: its facts, and where it answers."""

    def __init__(self, facts: dict[str, Any], port: int, batching: int) -> None:
        self.facts, self.port, self.batching = facts, port, batching

    @property
    def inputs(self) -> list[str]:
        return [tensor["name"] for tensor in self.facts["signature"]["inputs"]]

    def ask(self, rows: Sequence[Any], port: int | None = None, **parameters: Any) -> requests.Response:
        body: dict[str, Any] = {"instances": rows, **({"parameters": parameters} if parameters else {})}
        url = f"http://127.0.0.1:{port or self.port}/predict"
        return requests.post(
            url, data=json.dumps(body), headers={"Content-Type": "application/json"}, timeout=60
        )

    def wanted(self, value: Any) -> Any:
        """A row's prediction as the contract has it: an object by name where the signature declares several outputs."""
        names = [tensor["name"] for tensor in self.facts["signature"]["outputs"]]
        if len(names) > 1 and isinstance(value, list):
            return dict(zip(names, value, strict=True))
        return value

    def same(self, got: Any, wanted: Any) -> bool:
        return is_close(got, wanted, self.facts["tolerance"])


def is_close(got: Any, wanted: Any, tolerance: float) -> bool:
    if isinstance(wanted, bool) or isinstance(got, bool):
        return got is wanted
    if isinstance(wanted, int | float) and isinstance(got, int | float):
        return math.isclose(got, wanted, rel_tol=tolerance, abs_tol=tolerance)
    if isinstance(wanted, list) and isinstance(got, list):
        return len(got) == len(wanted) and all(map(is_close, got, wanted, [tolerance] * len(got)))
    if isinstance(wanted, dict) and isinstance(got, dict):
        return list(got) == list(wanted) and all(is_close(got[key], wanted[key], tolerance) for key in got)
    return bool(got == wanted)


def wrong_answers(served: Served) -> Iterator[str]:
    """Everything that is not the library's own answer, over one row, two, many, in any order."""
    rows, alone = served.facts["rows"], [served.wanted(value) for value in served.facts["alone"]]
    together = [served.wanted(value) for value in served.facts["together"]]
    if not served.same(alone, together):
        yield "the library itself predicts a row alone and among others differently"
    outputs = len(alone[0]) if isinstance(alone[0], list | dict) else 3
    questions = {
        "one": [0],
        "another": [3],
        "two": [0, 1],
        "as many as outputs": list(range(outputs)) if outputs <= len(rows) else [0],
        "seven": list(range(7)),
        "reversed": list(reversed(range(len(rows)))),
        "doubled": [0, 0, 1, 1],
    }
    for what, chosen in questions.items():
        answer = served.ask([rows[at] for at in chosen])
        expected = [alone[at] for at in chosen]
        if answer.status_code != 200 or not served.same(answer.json()["predictions"], expected):
            yield f"{what}: {answer.text[:300]} instead of {str(expected)[:300]}"
    by_name = (
        served.ask([dict(reversed(list(zip(served.inputs, rows[0], strict=True))))])
        if served.inputs
        else None
    )
    if by_name is not None and not served.same(by_name.json().get("predictions"), alone[:1]):
        yield f"by name: {by_name.text[:300]}"
    yield from wrong_tensors(served, together)


def wrong_tensors(served: Served, wanted: list[Any]) -> Iterator[str]:
    """The same by the Open Inference Protocol: a tensor for each output."""
    described = requests.get(f"http://127.0.0.1:{served.port}/v2/models/zoo", timeout=60).json()
    rows, tensors = served.facts["rows"], []
    for at, tensor in enumerate(described["inputs"]):
        data = [row[at] for row in rows]
        shape = [len(data), *([len(data[0])] if isinstance(data[0], list) else [])]
        tensors.append({"name": tensor["name"], "datatype": tensor["datatype"], "shape": shape, "data": data})
    url = f"http://127.0.0.1:{served.port}/v2/models/zoo/infer"
    answer = requests.post(url, json={"inputs": tensors}, timeout=60)
    if answer.status_code != 200:
        yield f"infer: {answer.text[:300]}"
        return
    outputs = {output["name"]: output for output in answer.json()["outputs"]}
    by_name = wanted[0] if isinstance(wanted[0], dict) else None
    expected = (
        {name: [row[name] for row in wanted] for name in by_name}
        if by_name
        else {next(iter(outputs)): wanted}
    )
    for name, column in expected.items():
        flat = [value for row in column for value in row] if isinstance(column[0], list) else column
        if name not in outputs or not served.same(outputs[name]["data"], flat):
            yield f"infer, {name}: {str(outputs.get(name))[:300]} instead of {str(flat)[:300]}"


def wrong_beside_others(served: Served) -> Iterator[str]:
    """Rows of other callers at the same moment change nothing, with batching and without."""
    rows, alone = served.facts["rows"], [served.wanted(value) for value in served.facts["alone"]]
    lengths, starts = ((1, 2, 3), range(6)) if WHOLE else ((1, 3), range(3))
    jobs = [
        (port, at, length) for port in (served.port, served.batching) for length in lengths for at in starts
    ]
    with ThreadPoolExecutor(6) as pool:
        answers = pool.map(lambda job: requests.post(
            f"http://127.0.0.1:{job[0]}/predict", json={"instances": rows[job[1] : job[1] + job[2]]}, timeout=60), jobs)  # fmt: skip
        for (port, at, length), answer in zip(jobs, answers, strict=True):
            if answer.status_code != 200 or not served.same(
                answer.json()["predictions"], alone[at : at + length]
            ):
                kind = "with" if port == served.batching else "without"
                yield f"beside others, {kind} batching: {answer.text[:300]} instead of {alone[at : at + length]}"


def wrong_probabilities(served: Served) -> Iterator[str]:
    wanted, classes = served.facts["probabilities"], served.facts["classes"]
    names = [tensor["name"] for tensor in served.facts["signature"]["outputs"]]
    answer = served.ask(served.facts["rows"], probabilities=True)
    if wanted is None:
        if served.facts["format"] != "python" and (
            answer.status_code != 422 or "does not know" not in answer.text
        ):
            yield f"probabilities that it does not have: {answer.text[:300]}"
        return
    expected = [served.wanted(row) for row in wanted]
    if answer.status_code != 200 or not served.same(answer.json()["predictions"], expected):
        yield f"probabilities: {answer.text[:300]} instead of {str(expected)[:300]}"
    one = served.ask(served.facts["rows"][:1], probabilities=True)
    if one.status_code != 200 or not served.same(one.json()["predictions"], expected[:1]):
        yield f"probabilities of one row: {one.text[:300]}"
    if classes:
        labelled = served.ask(served.facts["rows"][:1], probabilities=True, classes=True)
        labels = dict(zip(names, classes, strict=True)) if len(names) > 1 else classes
        if labelled.status_code != 200 or labelled.json().get("classes") != labels:
            yield f"classes: {labelled.text[:300]} instead of {labels}"


def outcomes_of_odd_rows(served: Served) -> Iterator[tuple[str, str, str]]:
    """Of each row with a strange value: what it is, what became of it (predicts, refused), and what is wrong with that."""
    good, first = served.facts["rows"][1], served.wanted(served.facts["alone"][1])
    for odd in served.facts["odd"]:
        answer = served.ask([good, odd["row"]])
        became, wrong = "predicts", ""
        if answer.status_code == 422:
            became = "refused"
            at = served.inputs.index(odd["field"]) if odd["field"] in served.inputs else 0
            if f"instances[1][{at}]" not in answer.text:
                wrong = f"without its place: {answer.text[:300]}"
        elif answer.status_code != 200 or "raises" in odd:
            wrong = f"{answer.text[:300]}, where the library says {odd.get('raises') or odd.get('value')}"
        elif not served.same(answer.json()["predictions"], [first, served.wanted(odd["value"])]):
            wrong = f"{answer.text[:300]} instead of {odd['value']}"
        yield odd["what"], became, f"{odd['what']} in {odd['field']}: {wrong}" if wrong else ""


def wrong_missing(served: Served) -> Iterator[str]:
    """A missing column is a 422 that names it."""
    for name in served.inputs:
        rest = {
            key: value
            for key, value in zip(served.inputs, served.facts["rows"][0], strict=True)
            if key != name
        }
        answer = served.ask([rest])
        if answer.status_code != 422 or f"instances[0].{name} is missing" not in answer.json()["detail"]:
            yield f"without {name}: {answer.text[:300]}"
