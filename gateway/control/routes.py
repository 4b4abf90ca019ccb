"""What the gateway answers itself: what it is, whether it is well, and what a model is."""

from gateway import __version__
from gateway.auth.chain import Chain
from gateway.core.answer import Answer, json_answer
from gateway.core.errors import MethodNotAllowed, NotFound
from gateway.core.exchange import Exchange
from gateway.core.model import Model, Tensor
from gateway.core.principal import METADATA
from gateway.registry.mirror import Mirror

_READ = frozenset({"GET", "HEAD"})
_PROBES = frozenset({"/-/live", "/-/ready", "/v2/health/live", "/v2/health/ready"})


class Control:
    def __init__(self, mirror: Mirror, chain: Chain) -> None:
        self._mirror = mirror
        self._chain = chain

    def is_probe(self, exchange: Exchange) -> bool:
        return exchange.target.path in _PROBES

    def is_description(self, exchange: Exchange) -> bool:
        """Whether this asks what a model is rather than for a score: `GET /<model>`."""
        target = exchange.target
        return not target.rest and exchange.method in _READ

    async def answer(self, exchange: Exchange) -> None:
        if exchange.method not in _READ:
            raise MethodNotAllowed("Here you can use GET, HEAD.", allow="GET, HEAD")
        path = exchange.target.path
        if path in {"/-/live", "/v2/health/live"}:
            answer = json_answer({"live": True})
        elif path in {"/-/ready", "/v2/health/ready"}:
            answer = self._ready()
        elif path == "/":
            answer = await self._index(exchange)
        elif path == "/v2":
            answer = json_answer({"name": "chips", "version": __version__, "extensions": []})
        else:
            raise NotFound("There is nothing here. GET / says what this gateway offers.")
        exchange.routine = path in _PROBES and answer.status == 200
        await exchange.reply.send(answer)

    async def describe(self, exchange: Exchange) -> None:
        await exchange.reply.send(json_answer(_description(exchange.model)))

    def _ready(self) -> Answer:
        mirror = self._mirror
        snapshot = mirror.snapshot
        if snapshot is None:
            return json_answer(
                {"ready": False, "status": "waiting for the registry", "version": __version__}, status=503
            )
        return json_answer(
            {
                "ready": True,
                "status": "ready",
                "version": __version__,
                "registry": {
                    "id": snapshot.registry_id,
                    "generation": snapshot.generation,
                    "age_s": round(mirror.age_s, 3),
                    "connected": mirror.connected,
                    "models": len(snapshot.entries),
                    "problems": len(snapshot.problems),
                },
            }
        )

    async def _index(self, exchange: Exchange) -> Answer:
        proof = await self._chain(exchange.head)
        snapshot = self._mirror.snapshot
        models = [] if snapshot is None else [entry.model for entry in snapshot.entries.values()]
        callable_models = [
            model
            for model in sorted(models, key=lambda model: model.name)
            if model.enabled
            and (
                model.policy.access == "public"
                or (proof is not None and proof.principal.may(METADATA, model.name))
            )
        ]
        return json_answer(
            {
                "name": "CHIPS",
                "version": __version__,
                "about": "One address for machine-learning models: POST /<model> to score, GET /<model> to learn about it.",
                "caller": None
                if proof is None
                else {"id": proof.principal.id, "label": proof.principal.label},
                "models": [
                    {"name": model.name, "description": model.description, "url": f"/{model.name}"}
                    for model in callable_models
                ],
            }
        )


def _description(model: Model) -> dict[str, object]:
    """What a caller may know of a model: not where it runs, nor who may call it."""
    return {
        "name": model.name,
        "description": model.description,
        "owner": model.owner,
        "versions": [
            {
                "version": backend.version,
                "traffic": model.traffic.get(backend.version, 0),
                "platform": backend.platform,
                "inputs": [_tensor(tensor) for tensor in backend.inputs],
                "outputs": [_tensor(tensor) for tensor in backend.outputs],
            }
            for backend in model.backends
        ],
        "timeout_s": model.policy.timeout_s,
        "score": {"method": "POST", "url": f"/{model.name}", "content_type": "application/json"},
    }


def _tensor(tensor: Tensor) -> dict[str, object]:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape}
