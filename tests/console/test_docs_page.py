"""What a caller sees: the models they may call, what each takes and answers, examples that run, a form that sends."""

import asyncio
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway.core.model import Backend, Model, Policy, Tensor
from tests.conftest import require
from tests.console.conftest import Watched
from tests.console.stage import OUTPUTS, Stage
from tests.console.test_console import VIEWS, in_view

pytestmark = pytest.mark.timeout(300)

# Names and types that each language writes in its own way.
ODD = (
    Tensor(name="it's $5 `each`", datatype="FP64", shape=(-1,)),
    Tensor(name="if", datatype="BOOL", shape=(-1,)),
    Tensor(name="pixels", datatype="INT64", shape=(-1, 2, 3)),
    Tensor(name='"quoted"', datatype="BYTES", shape=(-1,)),
)


@pytest.mark.parametrize(
    ("scheme", "width"),
    [
        VIEWS[0],
        pytest.param(*VIEWS[1], marks=pytest.mark.slow),
        pytest.param(*VIEWS[2], marks=pytest.mark.slow),
        VIEWS[3],
    ],
)
async def test_it_lists_what_this_caller_may_call(stage: Stage, watched: Watched, scheme: str, width: int):
    page = watched.page
    await in_view(watched, scheme, width)
    await page.set_extra_http_headers({"Accept-Language": "en"})
    await page.goto(f"{watched.base}/")
    await page.wait_for_selector("text=0 models without a key")
    assert await watched.violations() == []
    await page.fill("#key", await stage.make_key("demand-*"))
    await page.click("text=Use it")
    await page.wait_for_selector("text=2 models with your key")
    assert await page.locator(".list a").all_inner_texts() == ["demand-north", "demand-south"]
    assert await watched.violations() == []
    await page.click("#model-demand-north a")
    await page.wait_for_selector("#examples")
    assert await watched.violations() == []
    text = await page.inner_text("main")
    assert "malic_acid" in text
    assert "number, or null if missing" in text
    assert "integer, or null if missing" in text
    await page.goto(f"{watched.base}/-/docs/#wine")
    await page.wait_for_selector("text=There is no such model, or your key may not call it.")


async def test_the_form_sends_what_it_shows(stage: Stage, watched: Watched):
    page = watched.page
    await page.goto(f"{watched.base}/-/docs/#wine")
    await page.wait_for_selector("#docs main")
    await page.fill("#key", stage.operator)
    await page.click("text=Use it")
    await page.wait_for_selector("#try-wine")
    await page.fill("#try-wine label:has-text('alcohol') input", "13.5")
    assert '"alcohol": 13.5' in await page.input_value("#try-body")
    body = json.loads(await page.input_value("#try-body"))
    body["instances"][0]["ash"] = 2.25
    await page.fill("#try-body", json.dumps(body))
    await page.click("#try-wine button[type=submit]")
    await page.wait_for_selector("#try-wine pre")
    assert '"predictions"' in await page.inner_text("#try-wine pre")
    assert [json.loads(seen.body) for backend in stage.backends for seen in backend.seen] == [body]
    await page.click("text=where the time went")
    await page.wait_for_selector(".waterfall")
    assert "an operator asked for its trace" in await page.inner_text("main")


async def odd_model(stage: Stage) -> Any:
    """A model whose fields are hard to write, open to everybody, and one for which a key is needed."""
    backend = await stage.backend(_echo)
    for name, policy in (("odd", Policy()), ("open", Policy(access="public"))):
        listed = Backend(version="1", url=backend.url, inputs=ODD, outputs=OUTPUTS)
        await stage.put(Model(name=name, policy=policy, backends=(listed,), traffic={"1": 100}), "new")
    return backend


async def _echo(_: Any, peer: Any) -> None:
    await peer.answer(200, b'{"predictions": [7]}', [("Content-Type", "application/json")])


EXPECTED = {
    "instances": [
        {"it's $5 `each`": 1, "if": True, "pixels": [[1, 1, 1], [1, 1, 1]], '"quoted"': "text"},
    ]
}


async def example(watched: Watched, name: str, language: str) -> str:
    page = watched.page
    await page.goto("about:blank")
    await page.goto(f"{watched.base}/-/docs/#{name}")
    await page.click(f".choice >> text='{language}'")
    return str(await page.text_content("#examples pre"))


async def sign_in(watched: Watched, key: str) -> None:
    await watched.page.goto(f"{watched.base}/-/docs/")
    await watched.page.fill("#key", key)
    await watched.page.click("text=Use it")
    await watched.page.wait_for_selector("text=with your key")


async def run(*command: str, key: str, stdin: str = "") -> str:
    process = await asyncio.create_subprocess_exec(
        *command,
        env={**os.environ, "CHIPS_KEY": key},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate(stdin.encode())
    assert process.returncode == 0, err.decode()
    return out.decode()


@pytest.mark.parametrize("name", ["odd", "open"])
async def test_the_examples_run_as_they_are_shown(stage: Stage, watched: Watched, name: str):
    require("curl", available=shutil.which("curl") is not None, why="apt install curl")
    backend = await odd_model(stage)
    await sign_in(watched, stage.key)
    key = stage.key if name == "odd" else ""
    shell = await example(watched, name, "curl")
    assert json.loads(await run("sh", "-s", key=key, stdin=shell.replace("curl ", "curl -sSf ", 1))) == {
        "predictions": [7]
    }
    python = await example(watched, name, "Python")
    assert await run(sys.executable, "-c", python, key=key) == "[7]\n"
    script = await example(watched, name, "JavaScript")
    said = await watched.page.evaluate(
        f"""async () => {{ const process = {{ env: {{ CHIPS_KEY: {json.dumps(key)} }} }};
            const said = []; const console = {{ log: (what) => said.push(what) }}; {script}; return said; }}"""
    )
    assert said == [[7]]
    assert [json.loads(seen.body) for seen in backend.seen] == [EXPECTED] * 3
    assert [seen.get("X-Api-Key") for seen in backend.seen] == [None] * 3


async def test_the_example_in_r_is_r(stage: Stage, watched: Watched):
    require("r", available=shutil.which("Rscript") is not None, why="apt install r-base-core")
    await odd_model(stage)
    await sign_in(watched, stage.key)
    text = await example(watched, "odd", "R")
    # What stands between the brackets of req_body_json, as jsonlite writes it.
    body = text.split("req_body_json(", 1)[1].split(") |>\n  req_perform", 1)[0]
    code = f'invisible(parse(text = readLines("stdin"))); cat(jsonlite::toJSON({body}, auto_unbox = TRUE))'
    assert json.loads(await run("Rscript", "-e", code, key="", stdin=text)) == EXPECTED


@pytest.mark.slow
async def test_the_example_in_julia_is_julia(stage: Stage, watched: Watched):
    julia = os.environ.get("JULIA") or shutil.which("julia")
    require(
        "julia", available=julia is not None and Path(julia).exists(), why="set JULIA, or put it on the PATH"
    )
    await odd_model(stage)
    await sign_in(watched, stage.key)
    text = await example(watched, "odd", "Julia")
    body = text.split("JSON3.write(", 1)[1].split("),\n)\nprintln", 1)[0]
    code = f'Meta.parseall(read(stdin, String)).args[end] isa Expr || exit(1); d = {body}; i = d["instances"][1]; print(join(sort(collect(keys(i))), "|"), i["pixels"])'
    out = await run(str(julia), "--startup-file=no", "-e", code, key="", stdin=text)
    assert out == "|".join(sorted(EXPECTED["instances"][0])) + "[[1, 1, 1], [1, 1, 1]]"


async def test_a_server_of_another_kind_is_shown_as_what_it_is(stage: Stage, watched: Watched):
    backend = await stage.backend(_echo)
    x = Tensor(name="x", datatype="FP32", shape=(-1,))
    for name, platform, path, inputs in (
        ("flow", "MLflow 3.17.0", "/invocations", ()),
        ("tensors", "Triton", "/v2/models/tensors/infer", (x,)),
    ):
        listed = Backend(version="1", url=backend.url, platform=platform, predict_path=path, inputs=inputs)
        await stage.put(
            Model(name=name, policy=Policy(access="public"), backends=(listed,), traffic={"1": 100}), "new"
        )
    assert "-d '{}'" in await example(watched, "flow", "curl")
    text = await watched.page.inner_text("main")
    assert "It is MLflow 3.17.0" in text
    assert "instances" not in text
    python = await example(watched, "tensors", "Python")
    assert await run(sys.executable, "-c", python, key="") == "{'predictions': [7]}\n"
    assert json.loads(backend.seen[-1].body) == {
        "inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}]
    }
    assert await watched.violations() == []


async def test_the_form_keeps_all_digits(stage: Stage, watched: Watched):
    """JavaScript holds no whole number beyond 2^53 exactly; the models behind do."""

    async def answer(_: Any, peer: Any) -> None:
        await peer.answer(200, b'{"predictions": [9007199254740993]}', [("Content-Type", "application/json")])

    backend = await stage.backend(answer)
    inputs = (
        Tensor(name="count", datatype="INT64", shape=(-1,)),
        Tensor(name="words", datatype="BYTES", shape=(-1,)),
    )
    listed = Backend(version="1", url=backend.url, inputs=inputs, outputs=OUTPUTS)
    await stage.put(
        Model(name="exact", policy=Policy(access="public"), backends=(listed,), traffic={"1": 100}), "new"
    )
    page = watched.page
    await page.goto(f"{watched.base}/-/docs/#exact")
    await page.fill("#try-exact label:has-text('count') input", "9007199254740993")
    await page.fill("#try-exact label:has-text('words') input", "a")
    assert json.loads(await page.input_value("#try-body")) == {
        "instances": [{"count": 9007199254740993, "words": "a"}]
    }
    await page.click("#try-exact button[type=submit]")
    await page.wait_for_selector("#try-exact pre")
    assert "9007199254740993" in await page.inner_text("#try-exact pre")
    assert json.loads(backend.seen[-1].body)["instances"][0]["count"] == 9007199254740993
