"""The OpenAPI document against what it describes: real processes, requests made up from the document by schemathesis."""

import asyncio
import json
from importlib.util import find_spec
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from tests.conftest import require
from tests.e2e.test_under_load import System, system
from tests.patience import patience

__all__ = ["system"]

pytestmark = pytest.mark.timeout(240)


@pytest.mark.slow
async def test_the_gateway_keeps_what_its_document_promises(system: System):
    require("schemathesis", available=find_spec("schemathesis") is not None, why="pip install -e '.[dev]'")
    key = await asyncio.to_thread(system.set_up)
    await asyncio.to_thread(_try_everything, f"http://127.0.0.1:{system.port}", key)


def no_failure_but_the_models_own(context, response, case) -> None:
    """A signature cannot say that a model takes no missing values; whether it does, only the model knows."""
    if response.status_code < 500:
        return
    assert response.json()["code"] == "prediction-failed", response.text
    assert "null" in json.dumps(case.body), case.body


def _try_everything(base: str, key: str) -> None:
    import schemathesis
    from schemathesis.specs.openapi import checks as openapi_checks

    credentials = {"X-Api-Key": key}
    schema = schemathesis.openapi.from_url(f"{base}/-/openapi.json", headers=credentials)
    operations: list[Any] = [result.ok() for result in schema.get_all_operations()]  # type: ignore[union-attr]
    assert {operation.label for operation in operations} == {"POST /wine", "GET /wine"}
    for operation in operations:

        @given(case=operation.as_strategy())
        @settings(
            max_examples=40,
            derandomize=True,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        def one(case):
            case.call_and_validate(
                base_url=base,
                headers=credentials,
                checks=[
                    no_failure_but_the_models_own,
                    openapi_checks.status_code_conformance,
                    openapi_checks.content_type_conformance,
                    openapi_checks.response_schema_conformance,
                ],
            )

        one()
        # What the document's own example asks is answered, not refused.
    import requests

    document = requests.get(f"{base}/-/openapi.json", headers=credentials, timeout=patience(30)).json()
    example = document["paths"]["/wine"]["post"]["requestBody"]["content"]["application/json"]["example"]
    answer = requests.post(f"{base}/wine", json=example, headers=credentials, timeout=patience(30))
    assert answer.status_code == 200, answer.text
    assert requests.get(f"{base}/-/openapi.json", timeout=patience(30)).json()["paths"] == {}
