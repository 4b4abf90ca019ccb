"""Model cards: read strictly, complete or a draft, and the draft that `save` writes is one that can be published."""

from pathlib import Path

import pytest
from chips_backend.manifest import Signature, Tensor
from chips_backend.model_card_draft import draft_card

from gateway.artifacts.model_card_sections import (
    MAX_BYTES,
    SECTIONS,
    card_evidence,
    parse_card,
    read_card_sections,
)
from gateway.artifacts.prepare_artifact import prepare_artifact
from gateway.core.model import Backend

CARD = """# Wine

## Owner

Team Wine <wine@example.com>

## Purpose

Sorts bottles.

```
## Owner
```

## Data

2019 to 2024.

### Rows

5197.

## Limits

- Red and white only.

METRICS
-------

R² 0.4.

## Ethics

None known.
"""


def card(**changes: str) -> bytes:
    text = "".join(f"## {name}\n\n{changes.pop(name.lower(), 'Written.')}\n\n" for name in SECTIONS)
    return (changes.pop("before", "") + text + changes.pop("after", "")).encode()


def test_sections_are_headings_of_the_second_level_and_keep_their_text():
    read = parse_card(CARD.replace("\n", "\r\n").encode())
    assert {one.heading: one.text for one in read.sections} == {
        "Owner": "Team Wine <wine@example.com>",
        "Purpose": "Sorts bottles.\n\n```\n## Owner\n```",
        "Data": "2019 to 2024.\n\n### Rows\n\n5197.",
        "Limits": "- Red and white only.",
        "METRICS": "R² 0.4.",
        "Ethics": "None known.",
    }
    assert read.unwritten_headings == ()


@pytest.mark.parametrize(
    "text", ["", "  ", "<!-- later -->", "<!-- a\nb -->\n", "TODO: who?", "a\n- TODO b", "> TODO"]
)
def test_what_is_still_to_be_written_is_named(text: str):
    assert parse_card(card(limits=text)).unwritten_headings == ("Limits",)


@pytest.mark.parametrize("text", ["TODOS are none", "No TODO is left", "💥 ⚠️ 👩‍🔬 می‌خواهم"])
def test_what_is_written_counts(text: str):
    assert parse_card(card(limits=text)).unwritten_headings == ()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "lacks Owner, Purpose, Data, Limits, Metrics"),
        (card().replace(b"## Data", b"# Data"), "lacks Data: .*such as ## Data"),
        (card().replace(b"## Data", b"##Data"), "lacks Data"),
        (card().replace(b"## Data", b"> ## Data"), "lacks Data"),
        (card(after="## OWNER\n\nEve\n"), "the heading 'Owner' twice"),
        (card(purpose="```"), "lacks Data, Limits, Metrics"),
        (card(purpose="<!--"), "lacks Data, Limits, Metrics"),
        (card(before="Hello.\n\n"), "line 1: put this text below a heading"),
        (card(before="# Wine\n\n* Hello.\n\n"), "line 3: put this text below a heading"),
        (card(before="---\nlicense: mit\n---\n"), "begins with front matter"),
        (card(after="##\n\nText\n"), "the heading ''"),
        (card(after=f"## {'a' * 81}\n"), "1 to 80 characters"),
        (card(after="".join(f"## {n}\n" for n in range(40))), "45 sections"),
        (card(data="x" * MAX_BYTES), f"more than {MAX_BYTES} bytes"),
        (card().decode().encode("utf-16"), "UTF-16"),
        (card() + b"\xff", "not UTF-8"),
        (card(owner="ana\u202e"), r"line 3: it holds U\+202E"),
        (card(owner="ana\x1b[2J"), r"U\+001B"),
        (card(owner="ana\u2028"), r"U\+2028"),
        (card(owner="an\u200ba"), r"U\+200B"),
    ],
)
def test_a_card_that_cannot_be_read_in_one_way_is_refused(content: bytes, told: str):
    with pytest.raises(ValueError, match=told):
        parse_card(content)


def test_the_draft_of_save_is_a_card_whatever_the_columns_are_called(tmp_path: Path):
    names = ["alcohol", "`x` ## Owner", "a\n\n## Owner\n", "\u202e", "<!--", "y" * 500, *map(str, range(40))]
    signature = Signature(
        inputs=tuple(Tensor(name=name, datatype="FP64") for name in names),
        outputs=(Tensor(name="quality", datatype="INT64"),),
    )
    text = draft_card("lib.Model", "skops", signature, packages=["lib==1"], training_rows=5197)
    read = parse_card(text.encode())
    assert tuple(one.heading for one in read.sections) == read.unwritten_headings == SECTIONS
    assert "`alcohol` FP64" in read.sections[2].text
    assert "and 16 more" in read.sections[2].text
    assert "Trained on 5197 rows" in read.sections[2].text
    assert parse_card(text.replace("TODO:", "").encode()).unwritten_headings == ()


def test_what_is_published_has_a_card_that_can_be_read(tmp_path: Path):
    (tmp_path / "model.joblib").write_bytes(b"\x80weights")
    (tmp_path / "card.md").write_bytes(card(limits="TODO"))
    prepared = prepare_artifact(tmp_path, model="wine", version="1", created_by="ana", runtime={})
    assert [file.path for file in prepared.manifest.files] == ["card.md", "model.joblib"]
    assert prepared.warnings == ["card.md is a draft: Limits still to be written"]
    (tmp_path / "card.md").write_bytes(b"a card")
    with pytest.raises(ValueError, match=r"card\.md, line 1: put this text below a heading"):
        prepare_artifact(tmp_path, model="wine", version="1", created_by="ana", runtime={})


def test_a_card_is_evidence_about_its_artifact_alone():
    backend = Backend(version="4", url="http://wine", artifact_digest="sha256:" + "a" * 64)
    record = card_evidence("wine", backend, CARD.encode())
    assert (record.sort, record.passed, record.artifact_digest) == ("card", True, backend.artifact_digest)
    assert record.summary.startswith("owner Team Wine <wine@example.com>; Purpose, Data")
    assert read_card_sections(record.facts) == parse_card(CARD.encode()).sections
    draft = card_evidence("wine", backend, card(limits="", metrics="TODO"))
    assert (draft.passed, draft.summary) == (False, "card.md: Limits, Metrics still to be written")
    wrong = card_evidence("wine", backend, b"\xff")
    assert (wrong.passed, wrong.facts) == (False, {})
    assert read_card_sections({"sections": [{"heading": 1}]}) == ()
