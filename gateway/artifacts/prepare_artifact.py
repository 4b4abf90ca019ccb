"""Prepare an artifact: build its manifest from a model's files.

The model's signature and samples go into the manifest, too. What no backend could serve is refused.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Final, NamedTuple

import msgspec

from gateway.artifacts.infer_requirements import SCRIPT, infer_requirements
from gateway.artifacts.manifest import (
    FORMATS,
    Manifest,
    RowsPolicy,
    Sample,
    Signature,
    build_manifest,
    format_from_suffixes,
    list_all_files,
    signature_problems,
)
from gateway.artifacts.model_card_sections import CARD_NAME, MAX_BYTES, parse_card
from gateway.artifacts.read_baseline_statistics import BASELINE_NAME, parse_baseline
from gateway.artifacts.wrong_file_type import detect_wrong_file_type
from gateway.core.decode_text_file import decode_text_file

_NAMES_SHOWN: Final = 5
# Suffixes that several formats share say nothing about which file is the model.
_OWN_SUFFIXES: Final = {**FORMATS, ".txt": "lightgbm", ".bst": "xgboost"}


class PreparedArtifact(NamedTuple):
    """An artifact before it is published. It has its manifest, its files, and warnings for the author."""

    manifest: Manifest
    files: Sequence[tuple[str, Path]]
    warnings: Sequence[str]
    stated_runtime: Mapping[
        str, str
    ] = {}  # what runtime.json says: packages that the files themselves do not name


def prepare_artifact(
    source: Path,
    *,
    model: str,
    version: str,
    created_by: str,
    format: str = "",  # noqa: A002  (the manifest's own word)
    runtime: Mapping[str, str] | None = None,
    signature: Path | None = None,
    samples: Path | None = None,
    rows: RowsPolicy = "independent",
    pure: bool = False,
) -> PreparedArtifact:
    """Prepare an artifact: build the manifest of a model's files.

    Warnings for the author come with it. Nothing of the model runs. ValueError says what is wrong, and what to do.

    `runtime` is, where it is None, what a folder's runtime.json says, or else what the files themselves need. A folder's
    signature.json and samples.json count as such where none are given. Wherever the three lie, they go into the manifest and
    are no files of the artifact.
    """
    signature, samples, packages = (
        signature or find_sidecar_json(source, "signature"),
        samples or find_sidecar_json(source, "samples"),
        find_sidecar_json(source, "runtime"),
    )
    stated: Mapping[str, str] = read_json(packages, dict[str, str]) or {}
    taken = {path.resolve() for path in (signature, samples, packages) if path is not None}
    files = [(name, path) for name, path in list_all_files(source) if path.resolve() not in taken]
    if not files:
        raise ValueError(f"{source} holds no model, only what describes one")
    kind = format or _guess(files)
    count = sum(name != CARD_NAME for name, _ in files)
    for name, path in files:
        if (
            name != CARD_NAME
            and _is_model(name, kind, count)
            and (instead := detect_wrong_file_type(path, kind))
        ):
            raise ValueError(f"{path} is {instead}")
    read = read_json(signature, Signature) or Signature()
    problems = signature_problems(read)
    if problems:
        raise ValueError(f"{signature}: " + "; ".join(problems))
    warnings = _card_warnings(dict(files).get(CARD_NAME))
    warnings += _baseline_warnings(dict(files).get(BASELINE_NAME), read)
    if runtime is None:
        runtime = stated or _runtime(files, kind, warnings)
    manifest = build_manifest(
        files,
        model=model,
        version=version,
        format=kind,
        created_by=created_by,
        runtime=runtime,
        signature=read,
        samples=read_json(samples, list[Sample]) or (),
        rows=rows,
        pure=pure,
    )
    return PreparedArtifact(manifest, files, warnings, stated)


def find_sidecar_json(folder: Path, name: str) -> Path | None:
    """Find the file `folder`/NAME.json next to a model; None where there is none. `save` writes it there."""
    path = folder / f"{name}.json"
    return path if path.is_file() else None


def read_json(path: Path | None, kind: Any) -> Any:
    """Read a JSON file as an object of the type `kind`.

    Returns None without a path. ValueError says which file is wrong, and where.
    """
    if path is None:
        return None
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    try:
        text = decode_text_file(content)
    except ValueError as error:
        raise ValueError(f"{path} {error}") from None
    try:
        return msgspec.json.decode(text, type=kind)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _card_warnings(path: Path | None) -> list[str]:
    """What is still to be written in the model card. ValueError says what is wrong with it."""
    if path is None:
        return []
    with path.open("rb") as stream:
        content = stream.read(MAX_BYTES + 1)
    try:
        card = parse_card(content)
    except ValueError as error:
        raise ValueError(f"{path.parent}: {error}") from None
    unwritten = ", ".join(card.unwritten_headings)
    return [f"{CARD_NAME} is a draft: {unwritten} still to be written"] if unwritten else []


def _baseline_warnings(path: Path | None, signature: Signature) -> list[str]:
    """What keeps callers' data from being compared with baseline.json."""
    if path is None:
        return []
    try:
        baseline = parse_baseline(path.read_bytes())
    except ValueError as error:
        return [str(error)]
    described = {tensor.name for tensor in signature.inputs}
    if described and set(baseline.inputs) != described:
        return [f"{BASELINE_NAME} describes other inputs than the signature: save the model again"]
    return []


def _guess(files: Sequence[tuple[str, Path]]) -> str:
    files = [(name, path) for name, path in files if name != BASELINE_NAME]
    texts = [path for name, path in files if PurePosixPath(name).suffix.lower() == ".txt"]
    if len(texts) == 1 and _begins(texts[0], b"tree"):
        return "lightgbm"
    kind = format_from_suffixes(files)
    boosters = [path for name, path in files if PurePosixPath(name).suffix.lower() == ".bst"]
    if kind == "xgboost" and len(boosters) == 1:  # KServe's name for XGBoost's and LightGBM's files
        return "lightgbm" if _begins(boosters[0], b"tree") else kind
    return kind


def _begins(path: Path, content: bytes) -> bool:
    with path.open("rb") as stream:
        return stream.read(len(content)) == content


def _is_model(name: str, kind: str, count: int) -> bool:
    return count == 1 or _OWN_SUFFIXES.get(PurePosixPath(name).suffix.lower()) == kind


def _runtime(files: Sequence[tuple[str, Path]], kind: str, warnings: list[str]) -> dict[str, str]:
    try:
        needed = infer_requirements(files, kind)
    except ValueError as error:
        warnings.append(f"the packages that it needs are not known: {error}")
        return {}
    warnings += needed.older
    of_script = needed.own.pop(SCRIPT, None)
    if of_script is not None:
        taken = ", ".join(of_script[:_NAMES_SHOWN])
        raise ValueError(
            f"the model takes {taken} from the script that trained it, and no backend has that script: "
            f"move {taken} into a module of its own, import it from there in the script, train again, and publish the "
            "folder with model and module (or publish it as plain Python, --format python)"
        )
    for module, names in needed.own.items():
        what = f" ({', '.join(names[:_NAMES_SHOWN])})" if names else ""
        warnings.append(
            f"it needs the module {module}{what}, which is neither in the artifact nor in a package that is installed here"
        )
    return needed.packages
