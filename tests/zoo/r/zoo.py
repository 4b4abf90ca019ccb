"""Each kind of model goes the real way: published, started, asked through a gateway; and its answers are held against R's own."""

import asyncio
import json
import math
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gateway.core.model import Backend as Registered
from gateway.core.model import Model
from tests.contract.backends.languages import run_r
from tests.contract.backends.process import Backend, R
from tests.flow.scene import Scene
from tests.flow.scripted import Message

HERE = Path(__file__).parent
EX_DATAERR = 65
AT_ONCE = 2  # backends: each is a process that uses one processor while it starts
MEANINGS = ("null", "unseen", "out_of_range")

Truth = dict[str, Any]
Row = Sequence[Any]


def train(out: Path, *kinds: str) -> list[Path]:
    """Have an R that knows nothing of CHIPS train the models; a folder for each."""
    done = subprocess.run(
        ["Rscript", "--vanilla", str(HERE / "train.R"), str(out), *kinds],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    run_r((HERE / "publish.R").read_text(encoding="utf-8"), str(out))
    return sorted(path.parent for path in out.glob("*/truth.json"))


async def examine_all(folders: Iterable[Path]) -> list[dict[str, Any]]:
    """What was found out about each: see [Examination.result]."""
    slots = asyncio.Semaphore(AT_ONCE)
    async with Scene() as scene:

        async def examine(folder: Path) -> dict[str, Any]:
            async with slots:
                return await Examination(folder, scene).result()

        return list(await asyncio.gather(*map(examine, folders)))


class Examination:
    """One model, from its file to its answers."""

    def __init__(self, folder: Path, scene: Scene) -> None:
        self._folder = folder
        self._scene = scene
        self._name = f"zoo-{folder.name}"
        self._truth: Truth = json.loads((folder / "truth.json").read_text(encoding="utf-8"))
        self._wrong: list[str] = []
        self._meanings: dict[str, set[str]] = {}

    async def result(self) -> dict[str, Any]:
        """The row of results/r.json, and under `wrong` all that is not as it must be."""
        truth = self._truth
        outcome = "skipped"
        if "skipped" not in truth:
            outcome = "refused" if truth.get("refused") else "predicts"
            await self._start()
        return {
            "family": truth["family"],
            "kind": truth["kind"],
            "format": "rds",
            "outcome": outcome,
            **{name: self._meaning(name) for name in MEANINGS},
            "probabilities": "yes" if truth.get("classes") else "",
            "note": truth.get("skipped") or truth["note"],
            "wrong": self._wrong,
        }

    def _meaning(self, question: str) -> str:
        """`predicts` where all fields do; `refused` where one is."""
        found = self._meanings.get(question, set())
        return "" if not found else "refused" if "refused" in found else "predicts"

    async def _start(self) -> None:
        backend = Backend(
            R,
            {
                "CHIPS_MODEL": self._name,
                "CHIPS_VERSION": "1",
                "CHIPS_ARTIFACT": str(self._folder.parent / "store" / self._name / "1"),
                "CHIPS_CONCURRENCY": "1",
            },
        )
        try:
            ready = await asyncio.to_thread(_becomes_ready, backend)
            if refused := self._truth.get("refused"):
                why = "" if ready else backend.why()
                if ready or await asyncio.to_thread(backend.end) != EX_DATAERR or refused not in why:
                    self._wrong.append(f"the start should say {refused!r}: {why or 'it is ready'}")
                return
            if not ready:
                self._wrong.append(f"it did not become ready: {backend.why()}")
                return
            served = Registered(version="1", url=backend.url)
            await self._scene.put_model(Model(name=self._name, backends=(served,), traffic={"1": 100}))
            await self._ask_everything()
        finally:
            await asyncio.to_thread(backend.kill)

    # -- the questions

    async def _ask_everything(self) -> None:
        rows, own = self._truth["rows"], self._truth["predictions"]
        width = max(2, len(self._truth.get("outputs") or []), self._truth.get("width") or 0)
        for name, at in {
            "one": [0],
            "two": [0, 1],
            "as many as outputs": list(range(width)),
            "seven": list(range(7)),
            "reversed": list(range(7))[::-1],
            "doubled": [*range(7), *range(7)],
        }.items():
            await self._expect(name, [rows[i] for i in at], [own[i] for i in at])
        await asyncio.gather(
            *(self._expect("beside others", [row], [mine]) for row, mine in zip(rows, own, strict=True))
        )
        await self._as_objects_and_tensors(rows, own)
        await self._probabilities(rows)
        for probe in self._truth["probes"]:
            await self._probe(probe)
        await self._missing(rows[0])

    async def _ask(self, rows: Sequence[Any], **more: Any) -> Message:
        return await self._scene.call(
            "POST", f"/{self._name}", body=json.dumps({"instances": rows, **more}).encode()
        )

    async def _expect(self, question: str, rows: Sequence[Any], own: Sequence[Any]) -> None:
        answer = await self._ask(rows)
        self._hold(question, answer, own)

    def _hold(self, question: str, answer: Message, own: Sequence[Any]) -> None:
        if answer.status != 200:
            self._wrong.append(f"{question}: {answer.status} {answer.body[:300]!r}")
        elif not is_close(got := answer.json()["predictions"], list(own)):
            self._wrong.append(f"{question}: got {got}, and R predicts {own}")

    async def _as_objects_and_tensors(self, rows: Sequence[Row], own: Sequence[Any]) -> None:
        inputs = self._truth["inputs"]
        names = [entry["name"] for entry in inputs]
        await self._expect("as objects", [dict(zip(names, row, strict=True)) for row in rows], own)
        tensors = [
            {"name": entry["name"], "shape": [7], "datatype": entry["datatype"], "data": list(column)}
            for entry, column in zip(inputs, zip(*rows, strict=True), strict=True)
        ]
        answer = await self._scene.call(
            "POST", f"/v2/models/{self._name}/infer", body=json.dumps({"inputs": tensors}).encode()
        )
        if answer.status != 200:
            self._wrong.append(f"tensors: {answer.status} {answer.body[:300]!r}")
            return
        outputs = {entry["name"]: entry for entry in answer.json()["outputs"]}
        if declared := self._truth.get("outputs"):
            wanted = {name: [row[name] for row in own] for name in declared}
        elif isinstance(own[0], list):
            wanted = {"prediction": [value for row in own for value in row]}
        else:
            wanted = {"prediction": list(own)}
        got = {name: entry["data"] for name, entry in outputs.items()}
        if not is_close(got, wanted):
            self._wrong.append(f"tensors: got {got}, and R predicts {wanted}")

    async def _probabilities(self, rows: Sequence[Row]) -> None:
        answer = await self._ask(rows, parameters={"probabilities": True, "classes": True})
        classes = self._truth.get("classes")
        if not classes:
            if answer.status != 422 or b"parameters.probabilities" not in answer.body:
                self._wrong.append(f"probabilities: {answer.status} {answer.body[:300]!r}")
            return
        self._hold("probabilities", answer, self._truth["probabilities"])
        if answer.status == 200 and answer.json().get("classes") != classes:
            self._wrong.append(f"classes: got {answer.json().get('classes')}, and R has {classes}")

    async def _probe(self, probe: Mapping[str, Any]) -> None:
        """R's own answer, or 422 with the place; for a category never seen always that, since R guesses."""
        question, field = probe["question"], probe["field"]
        names = [entry["name"] for entry in self._truth["inputs"]]
        good = dict(zip(names, self._truth["rows"][0], strict=True))
        row = dict(zip(names, probe["row"], strict=True))
        answer = await self._ask([good, row])
        if (
            answer.status == 200
        ):  # where R has nothing for the row alone, it may have null for it beside another
            self._meanings.setdefault(question, set()).add("predicts")
            self._hold(f"{question} {field}", answer, [self._truth["predictions"][0], probe.get("value")])
        elif answer.status == 422 and "instances[1]" in answer.json()["detail"]:
            self._meanings.setdefault(question, set()).add("refused")
            if question != "unseen" and probe.get("value") is not None:
                self._wrong.append(f"{question} {field}: refused, and R predicts {probe['value']}")
        else:
            self._wrong.append(f"{question} {field}: {answer.status} {answer.body[:300]!r}, R: {probe}")

    async def _missing(self, row: Row) -> None:
        names = [entry["name"] for entry in self._truth["inputs"]]
        answer = await self._ask([dict(zip(names[1:], row[1:], strict=True))])
        if answer.status != 422 or f"instances[0].{names[0]}" not in answer.json()["detail"]:
            self._wrong.append(f"missing field: {answer.status} {answer.body[:300]!r}")


def _becomes_ready(backend: Backend) -> bool:
    try:
        backend.ready()
    except AssertionError:  # it has ended
        return False
    return True


def is_close(got: Any, own: Any) -> bool:
    """The same, numbers within 1e-9 of each other; R's own come with 15 digits."""
    if isinstance(got, bool) or isinstance(own, bool):
        return got is own
    if isinstance(got, int | float) and isinstance(own, int | float):
        return math.isclose(got, own, rel_tol=1e-9, abs_tol=1e-9)
    if isinstance(got, list) and isinstance(own, list):
        return len(got) == len(own) and all(map(is_close, got, own))
    if isinstance(got, dict) and isinstance(own, dict):
        return got.keys() == own.keys() and all(is_close(got[key], own[key]) for key in got)
    return bool(got == own)


def write_results(found: Sequence[Mapping[str, Any]], made_with: Path, target: Path) -> None:
    """results/r.json, as tests/zoo/README.md says."""
    versions = json.loads(made_with.read_text(encoding="utf-8"))
    kinds = sorted(
        ({name: value for name, value in entry.items() if name != "wrong"} for entry in found),
        key=lambda entry: (entry["family"], entry["kind"]),
    )
    target.parent.mkdir(exist_ok=True)
    document = {"language": "R", "made_with": versions, "kinds": kinds}
    target.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
