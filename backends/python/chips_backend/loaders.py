"""One loader for each format of artifact. All files have been checked against their SHA-256 before one is called.

Checked means: they are what was published. joblib and plain Python run code from the artifact all the same, so anybody who
may publish to the store may run code here; skops, ONNX, XGBoost and LightGBM files hold data only.
"""

import copy
import dataclasses
import importlib.util
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from chips_backend.manifest import Manifest
from chips_backend.model import Model
from chips_backend.wrong_files import WrongArtifact, check_file, explain_unpickling


def load_model(folder: Path, manifest: Manifest, *, trusted: Sequence[str] = ()) -> Model:
    """Load the artifact in `folder` by the format that its manifest names. `trusted` types: see skops."""
    loader = _LOADERS.get(manifest.format)
    if loader is None:
        raise ValueError(
            f'this backend loads {", ".join(_LOADERS)}, not "{manifest.format}"; teach it in predict.py'
        )
    return loader(folder, manifest, trusted)


def _joblib(folder: Path, manifest: Manifest, _: Sequence[str]) -> Model:
    import joblib

    from chips_backend.sklearn_estimators import estimator_model

    path = folder / manifest.main_file(".joblib", ".pkl", ".pickle")
    check_file(path)
    sys.path.insert(0, str(folder))  # a pickle names the modules of its classes, which may lie next to it
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            loaded = joblib.load(path)
        except Exception as error:
            explained = explain_unpickling(error, path.name)
            if explained is None:
                raise
            raise explained from error
    return dataclasses.replace(estimator_model(loaded, manifest), notes=_versions(caught))


def _versions(caught: Sequence[warnings.WarningMessage]) -> Sequence[str]:
    """What scikit-learn says of a model that another version of it made, once."""
    made_with = {str(getattr(each.message, "original_sklearn_version", "")) for each in caught} - {""}
    if not made_with:
        return ()
    import sklearn

    return (f"it was made with scikit-learn {', '.join(sorted(made_with))}, here is {sklearn.__version__}",)


def _skops(folder: Path, manifest: Manifest, trusted: Sequence[str]) -> Model:
    from skops import io

    from chips_backend.sklearn_estimators import estimator_model

    path = folder / manifest.main_file(".skops")
    check_file(path)
    try:
        unknown = sorted(set(io.get_untrusted_types(file=path)) - set(trusted))
    except Exception as error:
        raise WrongArtifact(
            f"{path.name} is no file of skops ({error}): is it the right file, and whole?"
        ) from error
    if unknown:
        raise WrongArtifact(
            f"the model uses types that skops does not trust by itself: {', '.join(unknown)}. "
            "Look at each; list those that you trust under TRUSTED_TYPES in predict.py"
        )
    return estimator_model(io.load(path, trusted=list(trusted)), manifest)


def _xgboost(folder: Path, manifest: Manifest, _: Sequence[str]) -> Model:
    from chips_backend.boosters import load_xgboost
    from chips_backend.sklearn_estimators import estimator_model

    path = folder / manifest.main_file(".ubj", ".json", ".bst", ".model", ".xgb")
    check_file(path)
    return estimator_model(load_xgboost(path), manifest)


def _lightgbm(folder: Path, manifest: Manifest, _: Sequence[str]) -> Model:
    from chips_backend.boosters import load_lightgbm
    from chips_backend.sklearn_estimators import booster_model

    path = folder / manifest.main_file(".txt", ".bst", ".lgb", ".model")
    check_file(path)
    return booster_model(load_lightgbm(path), manifest)


def _onnx(folder: Path, manifest: Manifest, _: Sequence[str]) -> Model:
    from chips_backend.onnx_model import load_onnx

    path = folder / manifest.main_file(".onnx")
    check_file(path)
    return load_onnx(path, manifest)


def _python(folder: Path, manifest: Manifest, _: Sequence[str]) -> Model:
    """model.py of the artifact: `load(folder)` gives a model, `predict(model, rows, parameters)` its predictions.

    `PARAMETERS` (name -> type) lists the request parameters that it knows; `CLASSES`, the labels of its probabilities.
    """
    path = folder / "model.py"
    if "model.py" not in {file.place for file in manifest.files}:
        raise WrongArtifact(
            "an artifact in plain Python has a file model.py, with load(folder) and predict(model, rows, parameters)"
        )
    sys.path.insert(0, str(folder))  # for modules next to it
    spec = importlib.util.spec_from_file_location("model", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be imported")
    module: Any = importlib.util.module_from_spec(spec)
    sys.modules["model"] = module
    spec.loader.exec_module(module)
    missing = [name for name in ("load", "predict") if not callable(getattr(module, name, None))]
    if missing:
        raise WrongArtifact(f"model.py has no function {' and no function '.join(missing)}")
    model = module.load(folder)
    return Model(
        # What it does to its rows must not change those of the next try, or of another caller.
        lambda rows: [copy.copy(row) for row in rows],
        lambda rows, parameters: module.predict(model, rows, parameters),
        parameters=_declared(getattr(module, "PARAMETERS", {})),
        classes=getattr(module, "CLASSES", None),
        signature=manifest.signature,
    )


def _declared(parameters: Any) -> Mapping[str, Any]:
    return dict(parameters) if isinstance(parameters, Mapping) else dict.fromkeys(parameters, object)


_Loader = Callable[[Path, Manifest, Sequence[str]], Model]
_LOADERS: Final[Mapping[str, _Loader]] = {
    "joblib": _joblib,
    "skops": _skops,
    "onnx": _onnx,
    "xgboost": _xgboost,
    "lightgbm": _lightgbm,
    "python": _python,
}
