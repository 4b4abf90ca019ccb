"""BentoML as a router: a service whose application checks the key and forwards. BACKEND_PORT and API_KEY say where, and which key."""

import os
import uuid

import bentoml
import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

KEY = os.environ["API_KEY"]
client = httpx.AsyncClient(
    base_url=f"http://127.0.0.1:{os.environ['BACKEND_PORT']}",
    limits=httpx.Limits(max_connections=None),
    timeout=60,
)


async def forward(request: Request) -> Response:
    if request.headers.get("x-api-key") != KEY:
        return Response(status_code=401)
    answer = await client.post(
        request.url.path,
        content=await request.body(),
        headers={"Content-Type": "application/json", "X-Request-Id": uuid.uuid4().hex},
    )
    return Response(answer.content, answer.status_code, media_type="application/json")


application = Starlette(routes=[Route("/m1k", forward, methods=["POST"])])


@bentoml.service(traffic={"timeout": 60, "max_concurrency": 1024}, workers=1)
@bentoml.asgi_app(application, path="/")
class Router: ...
