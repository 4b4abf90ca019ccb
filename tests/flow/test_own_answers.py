"""What the gateway answers itself."""

from gateway.core.api_keys import make_key
from gateway.core.model import Backend, Model, Policy, Tensor
from tests.flow.scene import Scene, assert_problem


async def test_the_root_lists_the_models_this_caller_may_call(scene: Scene):
    await scene.model("wine", description="Which cultivar?")
    await scene.model("fraud")
    await scene.model("open", policy=Policy(access="public"))
    await scene.model("gone", enabled=False)
    key = await scene.make_key("wine")
    nobody = (await scene.call("GET", "/", key=None)).json()
    somebody = (await scene.call("GET", "/", key=key)).json()
    assert [model["name"] for model in nobody["models"]] == ["open"]
    assert [model["name"] for model in somebody["models"]] == ["open", "wine"]
    assert somebody["models"][1]["description"] == "Which cultivar?"
    assert somebody["caller"]["label"] == "test"


async def test_a_model_describes_itself_without_saying_where_it_runs(scene: Scene):
    backend = await scene.model(
        backends=(
            Backend(
                version="3",
                url="http://secret.internal:1",
                platform="sklearn",
                inputs=(Tensor(name="alcohol", datatype="FP64", shape=(-1,)),),
            ),
        ),
        traffic={"3": 100},
        owner="ana",
    )
    answer = await scene.call("GET", "/wine")
    assert answer.status == 200
    described = answer.json()
    assert described["versions"] == [
        {
            "version": "3",
            "traffic": 100,
            "platform": "sklearn",
            "inputs": [{"name": "alcohol", "datatype": "FP64", "shape": [-1]}],
            "outputs": [],
        }
    ]
    assert b"secret" not in answer.body
    assert backend.seen == []
    assert_problem(await scene.call("GET", "/wine", key=None), 401, "unauthenticated")


async def test_health_needs_no_key_and_no_allowlist():
    async with Scene(**{"edge.networks": "192.0.2.0/24"}) as scene:
        for path in ("/-/live", "/-/ready", "/v2/health/live", "/v2/health/ready"):
            answer = await scene.call("GET", path, key=None)
            assert answer.status == 200, path
        assert_problem(await scene.call("GET", "/", key=None), 403, "address-not-allowed")


async def test_strangers_hear_ready_or_not_and_nothing_more(scene: Scene):
    await scene.model()
    few, other = await scene.make_key("wine", verbs=("operate",)), make_key()
    for path in (
        "/-/ready",
        "/v2/health/ready",
        "/-/ready?registry=",
        "/-/ready?registry=other",
        "/-/ready?x",
    ):
        for key in (None, "", few, other, "chips_nonsense"):
            answer = await scene.call("GET", path, key=key)
            assert (answer.status, answer.body) == (200, b'{"ready":true}\n'), (path, key)
    scene.gateway.mirror.snapshot = None
    answer = await scene.call("GET", "/-/ready", key=None)
    assert (answer.status, answer.body) == (503, b'{"ready":false}\n')


async def test_a_probe_that_is_not_admitted_tries_no_credentials_out():
    async with Scene(**{"edge.networks": "192.0.2.0/24"}) as scene:
        operator = await scene.make_key("*", verbs=("operate",))
        answer = await scene.call("GET", "/-/ready", key=operator)
        assert answer.body == b'{"ready":true}\n'
        assert not scene.gateway._control._chain._authenticators[0]._known  # type: ignore[attr-defined]


async def test_operators_and_who_can_name_the_registry_see_its_state(scene: Scene):
    operator = await scene.make_key("*", verbs=("operate",))
    await scene.model()
    registry = await scene.registry_state()
    asked = (await scene.call("GET", "/-/ready", key=operator)).json()
    assert {**asked["registry"], "age_s": 0} == {**registry, "age_s": 0}
    assert asked["version"]
    listing = await scene.registry.load_mirrored()
    assert (registry["id"], registry["generation"]) == (listing.registry_id, listing.generation)
    assert registry["models"] == 1
    assert registry["age_s"] >= 0


async def test_an_open_inference_client_learns_about_the_server(scene: Scene):
    assert (await scene.call("GET", "/v2", key=None)).json()["name"] == "chips"


async def test_what_is_not_there(scene: Scene):
    assert_problem(await scene.call("GET", "/-/nothing", key=None), 404, "not-found")
    problem = assert_problem(await scene.call("GET", "/v2/nothing", key=None), 404, "not-found")
    assert problem["error"] == problem["detail"]
    assert_problem(await scene.call("POST", "/", key=None), 405, "method-not-allowed")


async def test_a_model_that_appears_is_served_and_one_that_goes_is_not(scene: Scene):
    assert_problem(await scene.call(), 404, "model-not-found")
    backend = await scene.model()
    assert (await scene.call()).status == 200
    await scene.put_model(
        Model(
            name="wine", enabled=False, backends=(Backend(version="1", url=backend.url),), traffic={"1": 100}
        )
    )
    assert_problem(await scene.call(), 404, "model-not-found")
