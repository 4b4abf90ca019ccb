"""Read an artifact's model card: the Markdown sections of `card.md`, without front matter.

The card says, in CommonMark, what people who approve or call a model must know. Its sections are the headings of
the second level; five of them every card has. It is read strictly and shown as text: a card that somebody could read in
two ways is refused.
"""

import re
import unicodedata
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from gateway.core.decode_text_file import decode_text_file
from gateway.core.model import Backend
from gateway.core.version_evidence import CARD, EvidenceRecord, backend_predict_url

CARD_NAME: Final = "card.md"
SECTIONS: Final = ("Owner", "Purpose", "Data", "Limits", "Metrics")
MAX_BYTES: Final = 32 * 1024
_MAX_SECTIONS: Final = 30
_MAX_HEADING: Final = 80

_COMMENT: Final = re.compile(r"<!--.*?-->", re.DOTALL)
_TODO: Final = re.compile(r"^[ \t>*+-]*TODO\b", re.MULTILINE)
_HIDDEN: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})  # Unicode's categories of what is not seen
_ALLOWED: Final = frozenset("\n\t\u200c\u200d")  # joiners belong to scripts and emoji, and reorder nothing


class CardSection(msgspec.Struct, frozen=True, kw_only=True):
    """A section of a model card: a heading and its text. The text is the Markdown below the heading."""

    heading: str
    text: str

    @property
    def is_written(self) -> bool:
        """Whether the section is written. It has text, and no line is still to be done."""
        return bool(_COMMENT.sub("", self.text).strip()) and not _TODO.search(self.text)


class ModelCard(msgspec.Struct, frozen=True, kw_only=True):
    """A model card: its sections, in order. They are those of SECTIONS, and any others of its author."""

    sections: tuple[CardSection, ...]

    @property
    def unwritten_headings(self) -> tuple[str, ...]:
        """The headings below which something is still to be written."""
        return tuple(section.heading for section in self.sections if not section.is_written)


def parse_card(content: bytes) -> ModelCard:
    """Parse a model card: Markdown sections below headings. Front matter is refused.

    ValueError says what is wrong, and in which line where it is about one line.
    """
    if len(content) > MAX_BYTES:
        raise ValueError(f"{CARD_NAME} has more than {MAX_BYTES} bytes")
    try:
        text = decode_text_file(content).replace("\r\n", "\n")
    except ValueError as error:
        raise ValueError(f"{CARD_NAME} {error}") from None
    for number, line in enumerate(text.split("\n"), 1):
        for char in line:
            if unicodedata.category(char) in _HIDDEN and char not in _ALLOWED:
                raise ValueError(
                    f"{CARD_NAME}, line {number}: it holds U+{ord(char):04X}, which cannot be seen"
                )
    if text.startswith("---"):
        raise ValueError(f"{CARD_NAME} begins with front matter: write headings instead, such as ## Owner")
    return ModelCard(sections=_sections(text))


def _sections(text: str) -> tuple[CardSection, ...]:
    from markdown_it import MarkdownIt

    lines = text.split("\n")
    headings: list[tuple[str, int, int]] = []  # with the lines that they take
    tokens = MarkdownIt("commonmark").parse(text)
    for position, token in enumerate(tokens):
        if token.level or token.map is None or token.nesting < 0:
            continue
        if token.type == "heading_open" and token.tag == "h2":
            headings.append((tokens[position + 1].content.strip(), token.map[0], token.map[1]))
        elif not headings and not _is_title(token.type, token.tag, lines[slice(*token.map)]):
            raise ValueError(
                f"{CARD_NAME}, line {token.map[0] + 1}: put this text below a heading, such as ## Purpose"
            )
    _check_headings([heading for heading, _, _ in headings])
    ends = [begin for _, begin, _ in headings[1:]] + [len(lines)]
    return tuple(
        CardSection(heading=heading, text="\n".join(lines[begin:end]).strip())
        for (heading, _, begin), end in zip(headings, ends, strict=True)
    )


def _is_title(kind: str, tag: str, lines: list[str]) -> bool:
    """Whether a block may stand before the first section: the card's title, or a comment."""
    if kind == "heading_open":
        return tag == "h1"
    return kind == "html_block" and not _COMMENT.sub("", "\n".join(lines)).strip()


def _check_headings(headings: list[str]) -> None:
    known = [heading.casefold() for heading in headings]
    missing = [section for section in SECTIONS if section.casefold() not in known]
    if missing:
        raise ValueError(
            f"{CARD_NAME} lacks {', '.join(missing)}: write a heading of the second level, such as ## {missing[0]}"
        )
    twice = [heading for heading in headings if known.count(heading.casefold()) > 1]
    if twice:
        raise ValueError(f"{CARD_NAME} has the heading {twice[0][:_MAX_HEADING]!r} twice")
    if len(headings) > _MAX_SECTIONS:
        raise ValueError(f"{CARD_NAME} has {len(headings)} sections; {_MAX_SECTIONS} are allowed")
    for heading in headings:
        if not 0 < len(heading) <= _MAX_HEADING:
            raise ValueError(
                f"{CARD_NAME} has the heading {heading[:_MAX_HEADING]!r}: 1 to {_MAX_HEADING} characters are allowed"
            )


def card_evidence(model: str, backend: Backend, content: bytes) -> EvidenceRecord:
    """The evidence record of a version's model card. It passes where the card can be read and nothing is left to be written."""
    facts: dict[str, Any] = {}
    try:
        card = parse_card(content)
    except ValueError as error:
        passed, summary = False, str(error)
    else:
        facts = {"sections": [msgspec.to_builtins(section) for section in card.sections]}
        passed = not card.unwritten_headings
        summary = (
            _summary(card)
            if passed
            else f"{CARD_NAME}: {', '.join(card.unwritten_headings)} still to be written"
        )
    return EvidenceRecord(
        model=model,
        version=backend.version,
        sort=CARD,
        passed=passed,
        summary=summary,
        backend=backend_predict_url(backend),
        artifact_digest=backend.artifact_digest,
        facts=facts,
    )


def _summary(card: ModelCard) -> str:
    owner = next(one for one in card.sections if one.heading.casefold() == "owner")
    others = ", ".join(one.heading for one in card.sections if one is not owner)
    return f"owner {owner.text.split(chr(10))[0][:_MAX_HEADING]}; {others}"


def read_card_sections(facts: Mapping[str, Any]) -> tuple[CardSection, ...]:
    """Read the sections of a model card from the facts of its evidence. There are none where they hold no card."""
    try:
        return msgspec.convert(facts.get("sections", ()), tuple[CardSection, ...])
    except msgspec.ValidationError:
        return ()
