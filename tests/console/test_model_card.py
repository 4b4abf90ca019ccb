"""The model card on a model's page: as the text that its author wrote, never as markup."""

from gateway.artifacts.model_card_sections import SECTIONS, card_evidence
from gateway.core.model import Backend, Model
from gateway.core.model_updates import to_document
from gateway.registry.base import EVIDENCE, Put
from tests.console.conftest import Watched
from tests.console.stage import Stage

_BACKEND = Backend(version="3", url="http://127.0.0.1:1", artifact_digest="sha256:" + "a" * 64)
_MODEL = Model(name="forecast", backends=(_BACKEND,), traffic={"3": 100})


async def test_a_model_card_is_shown_as_text(stage: Stage, watched: Watched):
    await stage.put(_MODEL, "a version with a card")
    written = "<img src=x onerror=alert(1)>\n\n- [a](javascript:alert(2))\n- **b**"
    card = "".join(f"## {name}\n\n{written}\n\n" for name in SECTIONS)
    record = card_evidence("forecast", _BACKEND, card.encode())
    assert record.passed
    await stage.registry.write(
        Put(kind=EVIDENCE, name=record.name, body=to_document(record), expected=0), author="ana", reason=""
    )
    await watched.sign_in(stage.operator)
    await watched.go("model/forecast", "#card-3")
    text = await watched.page.inner_text("#card-3")
    assert "Model card of version 3 complete" in text
    assert text.count("<img src=x onerror=alert(1)>\n\n- [a](javascript:alert(2))\n- **b**") == len(SECTIONS)
    assert await watched.page.locator("#card-3 img, #card-3 a, #card-3 strong").count() == 0
    assert await watched.violations() == []
