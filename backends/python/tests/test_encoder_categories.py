"""The categories that encoders hold go into the signature, so that a value that no encoder knows is refused."""

import io
import json
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from chips_backend import CannotSave, save
from chips_backend.artifact_draft import plain
from chips_backend.complete_import import complete
from chips_backend.decode_instances import read_instances
from chips_backend.encoder_categories import catboost_categories, known_categories, with_known_categories
from chips_backend.example_columns import Column
from chips_backend.loaders import load_model
from chips_backend.manifest import Signature, parse_manifest
from chips_backend.problem_details import Problem
from chips_backend.testing import manifest_of
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, make_column_selector, make_column_transformer
from sklearn.ensemble import BaggingClassifier, HistGradientBoostingClassifier, StackingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    LabelBinarizer,
    OneHotEncoder,
    OrdinalEncoder,
    StandardScaler,
    TargetEncoder,
)

FRAME = pd.DataFrame({
    "shop": ["town", "web", "kiosk", "web", "town"] * 8,
    "month": [1, 2, 12, 2, 1] * 8,
    "price": [1.0, 2.0, np.nan, 4.0, 5.0] * 8,
})  # fmt: skip
TARGET = [0, 1, 0, 1, 1] * 8
SHOPS = ["kiosk", "town", "web"]
CLASSIFIER = LogisticRegression(max_iter=500)
IGNORES = OneHotEncoder(handle_unknown="ignore")


def lowered(frame: Any) -> Any:
    return frame.apply(lambda column: column.str.lower())


def numbers() -> Any:
    return make_pipeline(SimpleImputer(), StandardScaler())


def wrapped(encoder: Any, columns: Any = ("shop",)) -> Any:
    prepare = ColumnTransformer([("c", encoder, list(columns)), ("n", numbers(), ["price"])])
    return make_pipeline(prepare, CLASSIFIER)


MODELS = {
    "one-hot": wrapped(IGNORES),
    "ordinal": wrapped(OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)),
    "target": wrapped(TargetEncoder(cv=2)),
    "imputed": wrapped(make_pipeline(SimpleImputer(strategy="most_frequent"), IGNORES)),
    "ordinal, then one-hot": wrapped(make_pipeline(OrdinalEncoder(), IGNORES)),
    "by place": make_pipeline(ColumnTransformer([("c", IGNORES, [0])]), CLASSIFIER),
    "by mask": make_pipeline(ColumnTransformer([("c", IGNORES, [True, False, False])]), CLASSIFIER),
    "by slice": make_pipeline(ColumnTransformer([("c", IGNORES, slice(0, 1))]), CLASSIFIER),
    "by selector": make_pipeline(
        ColumnTransformer([("c", IGNORES, make_column_selector(pattern="shop"))]), CLASSIFIER
    ),
    "union": make_pipeline(
        make_column_transformer(
            (FeatureUnion([("a", IGNORES), ("b", OrdinalEncoder())]), ["shop"]), (numbers(), ["price"])
        ),
        CLASSIFIER,
    ),
    "searched": GridSearchCV(wrapped(IGNORES), {"logisticregression__C": [1, 2]}, cv=2),
    "calibrated": CalibratedClassifierCV(wrapped(IGNORES), cv=2),
    "stacked": StackingClassifier([("a", wrapped(IGNORES))], cv=2),
}


def saved(model: Any, folder: Any, **options: Any) -> tuple[dict[str, Any], str]:
    out = io.StringIO()
    save(model, folder, out=out, **{"example": FRAME.head(10), **options})
    inputs = json.loads((folder / "signature.json").read_text())["inputs"]
    return {one["name"]: one.get("categories") for one in inputs}, out.getvalue()


@pytest.mark.parametrize("name", MODELS)
def test_the_encoders_categories_are_all_that_is_accepted(name: str, tmp_path: Any):
    model = MODELS[name].fit(FRAME, TARGET)
    found, told = saved(model, tmp_path / "trained")
    assert found == {"shop": SHOPS, "month": None, "price": None}
    assert "3 categories: kiosk, town, web; the encoder's; others are refused" in told


def test_a_number_can_be_a_category(tmp_path: Any):
    model = wrapped(IGNORES, ["shop", "month"]).fit(FRAME, TARGET)
    found, _ = saved(model, tmp_path / "trained")
    assert found == {"shop": SHOPS, "month": [1, 2, 12], "price": None}


def test_an_unknown_value_is_refused_with_those_that_are_known(tmp_path: Any):
    model = wrapped(IGNORES).fit(FRAME, TARGET)
    saved(model, tmp_path / "trained")
    signature = msgspec.json.decode((tmp_path / "trained/signature.json").read_bytes(), type=Signature)
    row = {"shop": "WEB", "month": 1, "price": None}
    with pytest.raises(Problem, match=r"instances\[0\].shop") as caught:
        read_instances({"instances": [row]}, signature)
    assert all(shop in caught.value.detail for shop in SHOPS)
    assert len(read_instances({"instances": [{**row, "shop": "web"}]}, signature).rows) == 1


def test_an_author_can_accept_other_values(tmp_path: Any):
    model = wrapped(IGNORES).fit(FRAME, TARGET)
    for accept in (True, ["shop"]):
        found, told = saved(model, tmp_path / "trained", accept_unknown=accept, overwrite=True)
        assert found["shop"] is None
        assert "its encoder knows 3 values, and others are accepted" in told
    with pytest.raises(CannotSave, match="accept_unknown names shp"):
        saved(model, tmp_path / "other", accept_unknown=["shp"])


def test_an_example_with_other_values_says_that_they_are_meant(tmp_path: Any):
    model = wrapped(IGNORES).fit(FRAME, TARGET)
    example = FRAME.head(10).replace({"shop": {"kiosk": "airport"}})
    found, told = saved(model, tmp_path / "trained", example=example)
    assert found["shop"] is None
    assert "its encoder does not know 'airport'" in told


@pytest.mark.parametrize(
    "model",
    [
        wrapped(make_pipeline(FunctionTransformer(lowered), IGNORES)),
        make_pipeline(make_column_transformer((TfidfVectorizer(), "shop")), CLASSIFIER),
        make_pipeline(make_column_transformer((numbers(), ["price", "month"])), IGNORES, CLASSIFIER),
    ],
)
def test_what_a_step_has_changed_is_not_taken_for_the_callers_values(model: Any):
    assert known_categories(model.fit(FRAME, TARGET), list(FRAME.columns)) == {}


def test_two_encoders_of_one_column_know_what_either_knows():
    one = make_pipeline(ColumnTransformer([("c", IGNORES, [0])]), CLASSIFIER)
    model = BaggingClassifier(one, n_estimators=2, max_samples=4, random_state=1).fit(FRAME, TARGET)
    assert set(known_categories(model.estimators_[0], list(FRAME.columns))["shop"]) < set(SHOPS)
    assert set(known_categories(model, list(FRAME.columns))["shop"]) == set(SHOPS)


def test_a_binarizer_by_itself():
    binarizer = LabelBinarizer().fit(FRAME["shop"])
    assert known_categories(binarizer, ["shop"]) == {"shop": SHOPS}


def test_trees_that_encode_texts_themselves(tmp_path: Any):
    frame = FRAME.astype({"shop": "category"})
    model = HistGradientBoostingClassifier(categorical_features=["shop"], max_iter=3).fit(frame, TARGET)
    found, _ = saved(model, tmp_path / "trained", example=frame.head(10))
    assert found["shop"] == SHOPS


def test_a_column_of_categories_and_an_encoder(tmp_path: Any):
    frame = FRAME.astype({"shop": pd.CategoricalDtype(["web", "town", "kiosk", "closed"])})
    model = wrapped(IGNORES).fit(frame, TARGET)
    found, _ = saved(model, tmp_path / "trained", example=frame.head(10))
    # What the encoder has seen, not all that the column may hold; in the order of the column.
    assert found["shop"] == ["web", "town", "kiosk"]


def test_an_array_of_texts(tmp_path: Any):
    values = FRAME[["shop"]].to_numpy(dtype=object)
    model = make_pipeline(IGNORES, CLASSIFIER).fit(values, TARGET)
    found, _ = saved(model, tmp_path / "trained", example=values[:10])
    assert found == {"x0": SHOPS}


def test_of_many_categories_no_list_is_made():
    column = Column("zip", "BYTES", ["0"])
    (kept,) = with_known_categories([column], {"zip": [str(at) for at in range(10_001)]})
    assert kept.categories is None
    assert "too many" in kept.note()
    (kept,) = with_known_categories([column], {"zip": ["0", 1]})
    assert kept == column


class Hashes:
    """As CatBoost: it knows which columns are categories, and not which values they have."""

    def get_cat_feature_indices(self) -> list[int]:
        return [0]


def test_catboosts_categories_are_those_of_the_training_data():
    columns = [Column("shop", "BYTES", ["web"]), Column("price", "FP64", [1.0])]
    assert catboost_categories(Hashes(), columns, FRAME) == {"shop": ["town", "web", "kiosk"]}
    assert catboost_categories(Hashes(), columns, None) == {}


def test_more_than_a_thousand_categories_are_read_alike(tmp_path: Any):
    frame = pd.DataFrame({"zip": [f"z{at}" for at in range(1_500)]})
    model = make_pipeline(IGNORES, CLASSIFIER).fit(frame, [0, 1] * 750)
    found, _ = saved(model, tmp_path / "trained", example=frame.head(20))
    assert len(found["zip"]) == 1_500


def test_it_is_loaded_with_plain_texts(tmp_path: Any):
    model = wrapped(IGNORES).fit(FRAME, TARGET)
    saved(model, tmp_path / "trained")
    signature = msgspec.json.decode((tmp_path / "trained/signature.json").read_bytes(), type=Signature)
    (file,) = (tmp_path / "trained").glob("model.*")
    described = manifest_of(
        {file.name: file.read_bytes()}, format=file.suffix[1:], signature=plain(signature)
    )
    loaded = load_model(tmp_path / "trained", parse_manifest(msgspec.json.encode(described)))
    table = loaded.table([["web", 1, 2.0]])
    assert not isinstance(table["shop"].dtype, pd.CategoricalDtype)


def test_an_imported_models_encoders_are_asked_too(tmp_path: Any):
    import joblib

    joblib.dump(wrapped(IGNORES).fit(FRAME, TARGET), tmp_path / "model.joblib")
    inputs = [
        {"name": "shop", "datatype": "BYTES"},
        {"name": "month", "datatype": "INT64"},
        {"name": "price", "datatype": "FP64"},
    ]
    (tmp_path / "signature.json").write_text(json.dumps({"inputs": inputs}))
    rows = [{"shop": "web", "month": 1, "price": 2.0}, ["town", 2, None]]
    (tmp_path / "examples.json").write_text(json.dumps(rows))
    assert complete(tmp_path, "joblib") == 2
    signature = json.loads((tmp_path / "signature.json").read_text())
    assert [one.get("categories") for one in signature["inputs"]] == [SHOPS, None, None]
    assert len(json.loads((tmp_path / "samples.json").read_text())) == 2
