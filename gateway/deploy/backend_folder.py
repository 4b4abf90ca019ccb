"""A backend folder: the backend's code, its model artifact and the settings in `backend.toml`."""

import gzip
import hashlib
import io
import re
import tarfile
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from gateway.artifacts.manifest import RowsPolicy
from gateway.artifacts.prepare_artifact import find_sidecar_json
from gateway.core.decode_text_file import decode_text_file
from gateway.core.name_validation import check_model_name, check_version
from gateway.core.suggestions import suggest
from gateway.deploy.backend_libraries import (
    BackendLibrariesNotShipped,
    library_files_for_build,
    library_folder,
)
from gateway.deploy.copied_model_source import SOURCE_NAME

SETTINGS_NAME: Final = "backend.toml"
PREDICT_NAMES: Final = {"python": "predict.py", "r": "predict.R", "julia": "predict.jl"}
# What only a folder that contains the library itself has.
_LIBRARY_PARTS: Final = {"python": "chips_backend", "r": "main.R", "julia": "src/ChipsBackend.jl"}
# What the library's shell script is called that starts the backend.
_START_SCRIPTS: Final = {"r": "entrypoint.sh", "julia": "bin/serve"}
# Where an image has the folder.
_PLACES_IN_IMAGE: Final = {"python": "/app", "r": "/srv/app/model", "julia": "/opt/backend/model"}
_DOCKERFILE: Final = "Dockerfile"
_DOCKERIGNORE: Final = ".dockerignore"
# What a build never needs; .gcloudignore and .dockerignore add to it.
_LEFT_OUT: Final = frozenset(
    {".git", ".venv", "__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".Rproj.user"}
)
# R itself, and the packages that every R has.
_R_ALONE: Final = frozenset({
    "R", "base", "compiler", "datasets", "graphics", "grDevices", "grid", "methods", "parallel", "splines", "stats", "stats4", "tcltk",
    "tools", "translations", "utils",
})  # fmt: skip
_R_PACKAGE: Final = re.compile(r"[A-Za-z][A-Za-z0-9.]*")
_LARGE_BYTES: Final = 4 << 20
_CLOUD_RUN_NAME_LENGTH: Final = 43  # so that `model-NAME` and its tagged addresses stay within 63


class FolderError(Exception):
    """The backend folder cannot be deployed. The text says what to fix."""


class BackendSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings in `backend.toml`. Paths are relative to the folder."""

    model: str
    version: str = ""  # or `--version`
    owner: str = ""  # who answers questions about the model; or `--owner`
    artifact: str = "artifact"
    format: str = ""  # by the files' suffixes where it is empty
    signature: str = ""
    samples: str = ""
    rows: RowsPolicy = "independent"  # "together": its answers depend on all rows of a request, on purpose
    pure: bool = False  # predicting changes nothing, so a request may be sent twice
    command: tuple[str, ...] = ()  # how it runs on this machine; the container runs what its Dockerfile says
    concurrency: Annotated[int, Meta(ge=1, le=1000)] = 1
    cpu: Annotated[float, Meta(gt=0, le=8)] = 1
    memory: Annotated[str, Meta(pattern="^[0-9]+(Mi|Gi)$")] = "1Gi"
    min_instances: Annotated[int, Meta(ge=0)] = 0
    max_instances: Annotated[int, Meta(ge=1)] = 4
    timeout_s: Annotated[float, Meta(gt=0, le=3600)] = 60.0
    language: Literal["", "python", "r", "julia"] = ""

    @property
    def memory_gib(self) -> float:
        return float(self.memory[:-2]) / (1024 if self.memory.endswith("Mi") else 1)

    def resources(self) -> dict[str, float]:
        """The backend's resources: CPU, memory and instances, as the fields of `gateway.core.model.Resources`."""
        return {"cpu": self.cpu, "memory_gib": self.memory_gib, "min_instances": self.min_instances}


class BackendFolder:
    """A backend folder that was read and checked. `artifact`: one to take instead of its own. Raises FolderError."""

    def __init__(self, path: Path, *, version: str | None = None, artifact: Path | None = None) -> None:
        self.path = path
        self.settings = _read(path / SETTINGS_NAME)
        if artifact is not None:
            self.settings = msgspec.structs.replace(self.settings, artifact=str(artifact.absolute()))
        self.model = self.settings.model
        self.version = version or self.settings.version
        problems = []
        for check, value in ((check_model_name, self.model), (check_version, self.version)):
            try:
                check(value)
            except ValueError as error:
                problems.append(
                    str(error) if value else "no version: name it in backend.toml, or with --version"
                )
        if len(self.model) > _CLOUD_RUN_NAME_LENGTH:
            problems.append(
                f"the model's name is longer than the {_CLOUD_RUN_NAME_LENGTH} characters that fit Cloud Run"
            )
        for name in ("artifact", "signature", "samples"):
            value = getattr(self.settings, name)
            if value and not (path / value).exists():
                problems.append(f"{name}: there is no {path / value}; has the model been trained?")
        if problems:
            raise FolderError(f"{path / SETTINGS_NAME}: " + "; ".join(problems))

    @property
    def artifact(self) -> Path:
        return self.path / self.settings.artifact

    def signature_or_samples_file(self, name: str) -> Path | None:
        """The file with the artifact's `signature` or `samples`.

        `name` says which; None where there is none. It is the one that the settings name, or the one next to the
        artifact.
        """
        value: str = getattr(self.settings, name)
        return self.path / value if value else find_sidecar_json(self.artifact, name)

    def command(self, python: str) -> list[str]:
        """The command that runs the backend on this machine. `python` replaces that word at its beginning."""
        if self.settings.command:
            first, *others = self.settings.command
            return [python if first == "python" else first, *others]
        if self.settings.language == "python":
            return [python, "-m", "chips_backend"]
        if self._depends_on_library:
            if self.settings.language == "julia" and not any(self.path.glob("*Manifest*.toml")):
                raise FolderError(
                    f"{self.path} has no Manifest.toml: run make setup there, which fetches the packages"
                )
            return ["sh", str(self._library() / _START_SCRIPTS[self.settings.language])]
        raise FolderError(
            f'{self.path / SETTINGS_NAME} does not say how it runs here: add language = "python", '
            'or command = ["COMMAND", "ARGUMENT"]'
        )

    @property
    def has_local_command(self) -> bool:
        """Whether the folder says how to run it on this machine."""
        return bool(self.settings.command) or self.settings.language == "python" or self._depends_on_library

    @property
    def runs_in_python(self) -> bool:
        command = self.settings.command
        return command[0] == "python" if command else self.settings.language == "python"

    def environment(self) -> dict[str, str]:
        """The environment variables for the backend. They follow from the folder's files."""
        return self._environment_at(str(self.path.absolute()))

    def _environment_at(self, place: str) -> dict[str, str]:
        own = self._predict_file
        found = {} if own is None else {"CHIPS_PREDICT": f"{place}/{own.name}"}
        if self.settings.language == "julia" and self._depends_on_library:
            found["JULIA_PROJECT"] = place
        return found

    @property
    def _predict_file(self) -> Path | None:
        """The code around the model, where the folder has some."""
        if not self._depends_on_library:
            return None
        own = self.path / PREDICT_NAMES[self.settings.language]
        return own if own.exists() else None

    @property
    def _depends_on_library(self) -> bool:
        """Whether the backend's code comes from the library, and not from the folder itself."""
        part = _LIBRARY_PARTS.get(self.settings.language)
        return part is not None and not (self.path / part).exists()

    def _library(self) -> Path:
        try:
            return library_folder(self.settings.language)
        except BackendLibrariesNotShipped as error:
            raise FolderError(str(error)) from None

    def reproducible_source_archive(self) -> bytes:
        """The folder's sources as a reproducible tar.gz archive.

        Its bytes depend on the files alone, not on when they were written, or by which user.

        What training made is left out: a backend fetches it, so a new version of a model needs no new image. Without a
        Dockerfile of its own, the folder becomes `model/` next to the files of the language's library.
        """
        buffer = io.BytesIO()
        with (
            gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as zipped,
            tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as archive,
        ):
            for name, file, content in self._build_context():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                entry.mode = 0o755 if file.stat().st_mode & 0o100 else 0o644
                archive.addfile(entry, io.BytesIO(content))
        return buffer.getvalue()

    def _build_context(self) -> Iterator[tuple[str, Path, bytes]]:
        own = [(file.relative_to(self.path).as_posix(), file) for file in self._files()]
        if (self.path / _DOCKERFILE).exists() or not self._depends_on_library:
            yield from ((name, file, file.read_bytes()) for name, file in own)
            return
        for name, file in library_files_for_build(self.settings.language):
            content = file.read_bytes() + self._build_lines(name)
            if self.settings.language == "r" and name == _DOCKERFILE:
                content = self._with_debian_packages(content)
            yield name, file, content
        yield from ((f"model/{name}", file, file.read_bytes()) for name, file in own)

    def _build_lines(self, name: str) -> bytes:
        """What a file of the library's build needs at its end for the folder's own files."""
        if name == _DOCKERIGNORE and self.settings.language != "python":
            return b"!model/\n"
        if name != _DOCKERFILE:
            return b""
        variables = self._environment_at(_PLACES_IN_IMAGE[self.settings.language])
        lines = [f"ENV {variable}={value}" for variable, value in variables.items()]
        return "".join(
            f"{line}\n" for line in ["COPY model/ model/"] * (self.settings.language == "r") + lines
        ).encode()

    def _with_debian_packages(self, dockerfile: bytes) -> bytes:
        """R's Dockerfile with the packages that the model's runtime.json names, where it has one."""
        path = self.artifact / "runtime.json"
        if not path.is_file():
            return dockerfile
        try:
            packages = msgspec.json.decode(path.read_bytes(), type=dict[str, str]).keys() - _R_ALONE
        except msgspec.MsgspecError as error:
            raise FolderError(f"{path}: {error}") from None
        wrong = sorted(name for name in packages if not _R_PACKAGE.fullmatch(name))
        if wrong:
            raise FolderError(f"{path}: {wrong[0]!r} is not the name of an R package")
        wanted = " ".join(sorted(f"r-cran-{name.lower()}" for name in packages))
        return re.sub(
            rb"^ARG MODEL_PACKAGES=.*$",
            f'ARG MODEL_PACKAGES="{wanted}"'.encode(),
            dockerfile,
            flags=re.MULTILINE,
        )

    def sources_fingerprint_for_restart(self) -> str:
        """A digest of the folder's sources, to see whether a local process must be restarted.

        It differs where they changed since the process started. A large file counts by size and time.
        """
        found = hashlib.sha256()
        for file in self._files(links=True):
            status = file.stat()
            large = status.st_size > _LARGE_BYTES
            content = f"{status.st_size} {status.st_mtime_ns}".encode() if large else file.read_bytes()
            name = file.relative_to(self.path).as_posix().encode()
            found.update(b"%d %s %d " % (len(name), name, len(content)) + content)
        return found.hexdigest()

    def _files(self, *, links: bool = False) -> list[Path]:
        made = (
            self.artifact,
            self.signature_or_samples_file("signature"),
            self.signature_or_samples_file("samples"),
        )
        left_out = {path.resolve() for path in (*made, self.path / SOURCE_NAME) if path is not None}
        found = []
        for file in sorted(self.path.rglob("*")):
            parts = set(file.relative_to(self.path).parts)
            if file.is_symlink() and not links:
                raise FolderError(f"{file} is a link, which a build cannot follow: copy what it points to")
            if not file.is_file() or parts & _LEFT_OUT:
                continue
            if any(parent in left_out for parent in (file.resolve(), *file.resolve().parents)):
                continue
            found.append(file)
        return found


def sha256_hex(content: bytes) -> str:
    """The SHA-256 of `content` in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def _read(path: Path) -> BackendSettings:
    try:
        text = decode_text_file(path.read_bytes())
    except FileNotFoundError:
        raise FolderError(
            f'there is no {path}; the least it holds is model = "NAME" and version = "1" (docs/how-to/new-model.md)'
        ) from None
    except OSError as error:
        raise FolderError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise FolderError(f"{path} {error}") from None
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise FolderError(f"{path} is not valid TOML: {error}") from None
    try:
        return msgspec.convert(content, BackendSettings)
    except msgspec.ValidationError as error:
        raise FolderError(f"{path}: {_explained(str(error), content)}") from None


def _explained(reason: str, content: Mapping[str, object]) -> str:
    wrong = next((name for name in content if name not in BackendSettings.__struct_fields__), None)
    if wrong is None:
        return reason
    return f"there is no setting {wrong}{suggest(wrong, BackendSettings.__struct_fields__)}"
