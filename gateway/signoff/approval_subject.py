"""The subject of an approval: what exactly is approved.

It names everything by digests. It is one version as it would serve, or a new sign-off policy. Addresses are left out,
since they differ between environments: the same image and artifact may be copied to another registry and bucket. Tags
are left out since they move. Of a version with neither image nor artifact, the address is all that says what it is, so
there it is bound.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from gateway.core.model import Backend, Model
from gateway.registry.hash_chain import canonical_json, text_digest

_IMAGE_DIGEST: Final = re.compile(r".*@(sha256:[0-9a-f]{64})", re.DOTALL)
_ARTIFACT_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_CONTRACT: Final = ("predict_path", "concurrency", "platform", "inputs", "outputs")


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """The subject of an approval: what exactly is approved. Two subjects are the same if and only if all fields are the same."""

    environment: str  # id of the registry in which it will serve
    sign_off: str  # digest of the sign-off policy
    model: str = ""
    version: str = ""
    image: str = ""  # sha256:…; empty where a backend has none
    artifact: str = ""  # sha256:… of its manifest; empty where a backend has none
    address: str = ""  # URL of a backend that has neither; empty for others
    contract: str = ""  # SHA-256 of path, platform, concurrency, inputs, outputs
    policy: str = ""  # SHA-256 of the model's policy
    evidence: dict[str, str] = {}  # SHA-256 by kind
    new_sign_off: str = ""  # digest of the policy that would take the place of the present one

    @property
    def title(self) -> str:
        return f"{self.model}@{self.version}" if self.model else "sign-off policy"

    def digest(self) -> str:
        """The SHA-256 digest of the subject, in hexadecimal. It is that of the canonical form (RFC 8785)."""
        content: dict[str, Any] = msgspec.to_builtins(self)
        digest = text_digest(canonical_json(content).decode())
        assert digest is not None  # noqa: S101  (of a text there is one)
        return digest


def subject_of(
    model: Model, backend: Backend, *, environment: str, sign_off: str, evidence: Mapping[str, str]
) -> Subject:
    """The subject of an approval of one version, as it would serve.

    ValueError says what has no digest, and so could be replaced unseen.
    """
    image, artifact = _image_digest(backend.image), _artifact_digest(backend)
    return Subject(
        environment=environment,
        sign_off=sign_off,
        model=model.name,
        version=backend.version,
        image=image,
        artifact=artifact,
        address="" if image or artifact else backend.url,
        contract=_digest_of({name: getattr(backend, name) for name in _CONTRACT}),
        policy=_digest_of(model.policy),
        evidence=dict(evidence),
    )


def _image_digest(image: str) -> str:
    if not image:
        return ""
    found = _IMAGE_DIGEST.fullmatch(image)
    if found is None:
        raise ValueError(
            f"its image {image[:200]} is named by a tag, which can move: register it as …@sha256:…"
        )
    return found[1]


def _artifact_digest(backend: Backend) -> str:
    digest = backend.artifact_digest
    if not digest and backend.artifact:
        raise ValueError(
            f"its artifact {backend.artifact[:200]} has no digest: register it while its backend runs"
        )
    if digest and not _ARTIFACT_DIGEST.fullmatch(digest):
        raise ValueError(f"its artifact's digest {digest[:80]!r} is not sha256: and 64 hexadecimal digits")
    return digest


def _digest_of(value: Any) -> str:
    return text_digest(msgspec.json.encode(value, order="sorted").decode()) or ""
