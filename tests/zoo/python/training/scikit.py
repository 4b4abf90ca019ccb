# Long: one table of models.
"""Kinds of scikit-learn: every family of estimator, and pipelines."""

import joblib
import numpy as np
import own_classes
import pandas as pd
from data import (
    ARRAY_INPUTS,
    ARRAY_ROWS,
    BINARY,
    COUNTS,
    FRAME,
    HOLES,
    LABELS,
    MARKS,
    NUMBERS,
    POSITIVE,
    TARGET,
    TARGETS,
    TEXT_LABELS,
    TEXTS,
    array,
    frame_of,
    inputs_of,
    rows_of,
)  # fmt: skip
from scipy import sparse
from sklearn import (
    calibration,
    cluster,
    compose,
    cross_decomposition,
    decomposition,
    discriminant_analysis,
    dummy,
    ensemble,
    feature_extraction,
    gaussian_process,
    impute,
    isotonic,
    kernel_approximation,
    linear_model,
    mixture,
    model_selection,
    multiclass,
    multioutput,
    naive_bayes,
    neighbors,
    neural_network,
    pipeline,
    preprocessing,
    semi_supervised,
    svm,
    tree,
)  # fmt: skip
from specimen import Specimen


def saved(model, name="model.joblib"):
    def save(folder):
        joblib.dump(model, folder / name)
        return name

    return save


def on_array(family, kind, model, target, features=NUMBERS, **more):
    fitted = model.fit(features, target) if target is not None else model.fit(features)
    rows = more.pop("rows", ARRAY_ROWS if features is NUMBERS else features[:9].tolist())
    width = features.shape[1]
    inputs = more.pop("inputs", [{**ARRAY_INPUTS[0], "name": f"n{at}"} for at in range(width)])
    return Specimen(family, kind, fitted, table=array, inputs=inputs, rows=rows, save=saved(fitted), **more)


def on_frame(family, kind, model, target, columns, frame=FRAME, **more):
    fitted = model.fit(frame[columns], target)
    table = more.pop("table", frame_of(columns, more.pop("dtypes", None)))
    inputs = more.pop("inputs", inputs_of(columns))
    rows = rows_of(frame[columns])
    return Specimen(family, kind, fitted, table=table, inputs=inputs, rows=rows, save=saved(fitted), **more)


def linear():
    name = "Linear models"
    yield on_array(name, "LinearRegression", linear_model.LinearRegression(), TARGET)
    yield on_array(name, "Ridge with two targets", linear_model.Ridge(), TARGETS)
    yield on_array(name, "LogisticRegression, labels are texts", linear_model.LogisticRegression(), LABELS)
    yield on_array(
        name, "LogisticRegression, labels are booleans", linear_model.LogisticRegression(), BINARY > 0
    )
    yield on_array(
        name, "LogisticRegression without a signature", linear_model.LogisticRegression(), BINARY, inputs=[]
    )
    yield on_array(name, "RidgeClassifier", linear_model.RidgeClassifier(), LABELS)
    yield on_array(name, "SGDClassifier", linear_model.SGDClassifier(random_state=1), BINARY)
    yield on_array(name, "PoissonRegressor", linear_model.PoissonRegressor(), POSITIVE)
    yield on_array(name, "BayesianRidge", linear_model.BayesianRidge(), TARGET)
    yield on_array(name, "HuberRegressor", linear_model.HuberRegressor(), TARGET)
    yield on_array(name, "TransformedTargetRegressor", compose.TransformedTargetRegressor(
        linear_model.LinearRegression(), func=np.log1p, inverse_func=np.expm1), POSITIVE)  # fmt: skip
    yield on_array(name, "PLSRegression", cross_decomposition.PLSRegression(2), TARGETS)
    yield on_array(name, "IsotonicRegression, out of its range", isotonic.IsotonicRegression(out_of_bounds="nan"), TARGET,
                   features=NUMBERS[:, :1])  # fmt: skip


def trees():
    name = "Trees and ensembles"
    forest = {"n_estimators": 7, "random_state": 1}
    yield on_array(name, "DecisionTreeClassifier", tree.DecisionTreeClassifier(max_depth=4), LABELS)
    yield on_array(name, "RandomForestClassifier", ensemble.RandomForestClassifier(**forest), LABELS)
    yield on_array(name, "RandomForestClassifier with three outputs", ensemble.RandomForestClassifier(**forest), MARKS,
                   note="Probabilities are one list for each output in each row.")  # fmt: skip
    outputs = [{"name": f"mark {at}", "datatype": "INT64", "shape": [-1]} for at in range(3)]
    yield on_array(name, "RandomForestClassifier with three outputs by name", ensemble.RandomForestClassifier(**forest), MARKS,
                   outputs=outputs, note="An object for each row on /predict, three tensors on infer.")  # fmt: skip
    yield on_array(
        name, "ExtraTreesRegressor with two targets", ensemble.ExtraTreesRegressor(**forest), TARGETS
    )
    yield on_array(
        name, "GradientBoostingClassifier", ensemble.GradientBoostingClassifier(n_estimators=5), LABELS
    )
    yield on_array(
        name, "AdaBoostRegressor", ensemble.AdaBoostRegressor(n_estimators=5, random_state=1), TARGET
    )
    yield on_array(
        name, "BaggingClassifier", ensemble.BaggingClassifier(n_estimators=5, random_state=1), BINARY
    )
    yield on_array(name, "HistGradientBoostingRegressor with holes", ensemble.HistGradientBoostingRegressor(max_iter=9),
                   TARGET, features=np.where(NUMBERS > 1.2, np.nan, NUMBERS), rows=ARRAY_ROWS)  # fmt: skip
    frame = FRAME.assign(kind=FRAME["kind"].astype("category"))
    yield on_frame(name, "HistGradientBoostingClassifier with a category column",
                   ensemble.HistGradientBoostingClassifier(max_iter=9, categorical_features="from_dtype"), BINARY,
                   ["kind", "size"], frame, dtypes={"kind": frame["kind"].dtype})  # fmt: skip
    voters = [("a", linear_model.LogisticRegression()), ("b", tree.DecisionTreeClassifier(max_depth=3))]
    yield on_array(name, "VotingClassifier, soft", ensemble.VotingClassifier(voters, voting="soft"), LABELS)
    yield on_array(name, "VotingClassifier, hard", ensemble.VotingClassifier(voters), LABELS)
    yield on_array(name, "StackingClassifier", ensemble.StackingClassifier(voters, cv=2), BINARY)


def neighbours():
    name = "Kernels, neighbours, networks, Bayes"
    yield on_array(name, "SVC", svm.SVC(), LABELS)
    yield on_array(name, "SVR", svm.SVR(), TARGET)
    yield on_array(name, "KNeighborsClassifier with three outputs", neighbors.KNeighborsClassifier(3), MARKS)
    yield on_array(name, "KNeighborsRegressor", neighbors.KNeighborsRegressor(3), TARGET)
    yield on_array(name, "NearestCentroid", neighbors.NearestCentroid(), LABELS)
    yield on_array(
        name, "GaussianProcessRegressor", gaussian_process.GaussianProcessRegressor(), TARGET, tolerance=1e-4
    )
    yield on_array(name, "GaussianNB", naive_bayes.GaussianNB(), LABELS)
    yield on_array(name, "MultinomialNB", naive_bayes.MultinomialNB(), BINARY, features=COUNTS)
    yield on_array(
        name, "LinearDiscriminantAnalysis", discriminant_analysis.LinearDiscriminantAnalysis(), LABELS
    )
    yield on_array(
        name, "QuadraticDiscriminantAnalysis", discriminant_analysis.QuadraticDiscriminantAnalysis(), BINARY
    )
    yield on_array(
        name,
        "MLPClassifier",
        neural_network.MLPClassifier(hidden_layer_sizes=(4,), max_iter=2000, random_state=1),
        BINARY,
    )
    yield on_array(name, "MLPRegressor with two targets", neural_network.MLPRegressor(hidden_layer_sizes=(4,), max_iter=5000, random_state=1),
                   TARGETS)  # fmt: skip
    yield on_array(name, "LabelPropagation", semi_supervised.LabelPropagation(gamma=1), BINARY)
    yield on_array(name, "DummyClassifier", dummy.DummyClassifier(), LABELS)


def several():
    name = "Several outputs and labels"
    logistic = linear_model.LogisticRegression()
    yield on_array(name, "MultiOutputClassifier", multioutput.MultiOutputClassifier(logistic), MARKS)
    yield on_array(name, "ClassifierChain", multioutput.ClassifierChain(logistic), MARKS, classes=[],
                   note="One probability for each output: that it is the second label.")  # fmt: skip
    yield on_array(
        name, "RegressorChain", multioutput.RegressorChain(linear_model.LinearRegression()), TARGETS
    )
    yield on_array(
        name, "OneVsRestClassifier, multi-label", multiclass.OneVsRestClassifier(logistic), MARKS, classes=[]
    )
    yield on_array(name, "OneVsRestClassifier, sparse labels", multiclass.OneVsRestClassifier(logistic),
                   sparse.csr_matrix(MARKS), classes=[])  # fmt: skip
    yield on_array(
        name, "CalibratedClassifierCV", calibration.CalibratedClassifierCV(svm.LinearSVC(), cv=2), LABELS
    )
    yield on_array(
        name, "GridSearchCV", model_selection.GridSearchCV(logistic, {"C": [0.1, 1.0]}, cv=2), LABELS
    )
    two = own_classes.Several()
    yield Specimen(name, "A class of one's own that returns a DataFrame with a date", two, table=array, inputs=ARRAY_INPUTS,
                   rows=ARRAY_ROWS, save=saved(two), outputs=[{"name": "price", "datatype": "FP64", "shape": [-1]},
                   {"name": "sold", "datatype": "BYTES", "shape": [-1]}])  # fmt: skip
    named = [
        {"name": "twice", "datatype": "FP64", "shape": [-1]},
        {"name": "up", "datatype": "INT64", "shape": [-1]},
    ]
    matrix = own_classes.Outputs()
    yield Specimen(name, "A class of one's own that returns a matrix for two outputs by name", matrix, table=array,
                   inputs=ARRAY_INPUTS, rows=ARRAY_ROWS, save=saved(matrix), outputs=named)  # fmt: skip


def unsupervised():
    name = "Clusters, outliers, transformers"
    yield on_array(name, "KMeans", cluster.KMeans(3, n_init=2, random_state=1), None)
    yield on_array(name, "MiniBatchKMeans", cluster.MiniBatchKMeans(3, n_init=2, random_state=1), None)
    yield on_array(name, "MeanShift", cluster.MeanShift(bandwidth=1.5), None)
    yield on_array(
        name, "AffinityPropagation", cluster.AffinityPropagation(random_state=1, damping=0.9), None
    )
    yield on_array(name, "GaussianMixture", mixture.GaussianMixture(2, random_state=1), None, classes=[0, 1])
    yield on_array(name, "IsolationForest", ensemble.IsolationForest(n_estimators=20, random_state=1), None)
    yield on_array(
        name,
        "LocalOutlierFactor, for new rows",
        neighbors.LocalOutlierFactor(n_neighbors=5, novelty=True),
        None,
    )
    yield on_array(name, "OneClassSVM", svm.OneClassSVM(), None)
    for kind, model in (
        ("PCA as last step", pipeline.make_pipeline(preprocessing.StandardScaler(), decomposition.PCA(2))),
        ("StandardScaler alone", preprocessing.StandardScaler()),
        ("PolynomialFeatures", preprocessing.PolynomialFeatures(2)),
        (
            "KBinsDiscretizer, sparse",
            preprocessing.KBinsDiscretizer(3, quantile_method="averaged_inverted_cdf"),
        ),
        ("KNNImputer", impute.KNNImputer(n_neighbors=2)),
        ("Nystroem", kernel_approximation.Nystroem(n_components=4, random_state=1)),
    ):
        fitted = model.fit(NUMBERS)
        yield on_array(name, kind, fitted, None, predict=fitted.transform)


def frames():
    name = "Pipelines on DataFrames"
    columns = ["kind", "mean age", "size", "ok"]
    encoded = compose.ColumnTransformer([
        ("kind", preprocessing.OneHotEncoder(), ["kind"]),
        ("numbers", preprocessing.StandardScaler(), ["mean age", "size"])], remainder="passthrough")  # fmt: skip
    logistic = linear_model.LogisticRegression(max_iter=500)
    yield on_frame(name, "OneHotEncoder with its defaults", pipeline.make_pipeline(encoded, logistic), BINARY, columns,
                   note="A category that it never saw is a 422.")  # fmt: skip
    yield on_frame(name, "OneHotEncoder with its defaults, no samples", pipeline.make_pipeline(encoded, logistic), BINARY,
                   columns, samples=False)  # fmt: skip
    ignoring = compose.ColumnTransformer([
        ("kind", pipeline.make_pipeline(impute.SimpleImputer(strategy="most_frequent"),
                                        preprocessing.OneHotEncoder(handle_unknown="ignore")), ["kind"]),
        ("numbers", impute.SimpleImputer(add_indicator=True), ["mean age", "size"])])  # fmt: skip
    yield on_frame(name, "Imputers, unknown categories ignored, holes in training",
                   pipeline.make_pipeline(ignoring, ensemble.RandomForestClassifier(9, random_state=1)), LABELS,
                   ["kind", "mean age", "size"], HOLES)  # fmt: skip
    ordinal = compose.make_column_transformer(
        (preprocessing.OrdinalEncoder(), ["kind"]), remainder="passthrough"
    )
    yield on_frame(name, "OrdinalEncoder and a tree", pipeline.make_pipeline(ordinal, tree.DecisionTreeRegressor(max_depth=4)),
                   TARGET, ["kind", "size"])  # fmt: skip
    whole = compose.make_column_transformer(
        (preprocessing.OneHotEncoder(handle_unknown="ignore"), ["mean age"])
    )
    yield on_frame(
        name, "OneHotEncoder on whole numbers", pipeline.make_pipeline(whole, logistic), BINARY, ["mean age"]
    )
    text = preprocessing.FunctionTransformer(own_classes.as_text)
    yield on_frame(name, "Whole numbers as texts",
                   pipeline.make_pipeline(text, preprocessing.OneHotEncoder(handle_unknown="ignore"), logistic), BINARY,
                   ["mean age"], note="A row with null does not change the rows next to it.", odd=False)  # fmt: skip
    target = compose.make_column_transformer(
        (preprocessing.TargetEncoder(cv=2, random_state=1), ["kind"]), remainder="passthrough"
    )
    yield on_frame(
        name, "TargetEncoder", pipeline.make_pipeline(target, linear_model.Ridge()), TARGET, ["kind", "size"]
    )
    yield on_frame(name, "Dates as texts, parsed by a class of one's own",
                   pipeline.make_pipeline(own_classes.Days(), tree.DecisionTreeRegressor(max_depth=5)), TARGET, ["when"],
                   note="A date that cannot be parsed is a 422.")  # fmt: skip
    times = FRAME.assign(when=pd.to_datetime(FRAME["when"]))
    month = preprocessing.FunctionTransformer(own_classes.month)
    dated = pipeline.make_pipeline(month, tree.DecisionTreeRegressor(max_depth=5)).fit(
        times[["when"]], TARGET
    )
    yield Specimen(name, "Dates as times", dated, inputs=inputs_of(["when"]), rows=rows_of(FRAME[["when"]]), save=saved(dated),
                   table=lambda rows: pd.DataFrame({"when": pd.to_datetime([row[0] for row in rows])}),
                   note="A BYTES input becomes a column of times where the samples come out right so.")  # fmt: skip
    pandas_out = compose.make_column_transformer(
        (preprocessing.OneHotEncoder(sparse_output=False), ["kind"]), remainder="passthrough").set_output(transform="pandas")  # fmt: skip
    yield on_frame(name, "A transformer that returns a DataFrame", pandas_out, None, ["kind", "size"],
                   predict=lambda table: pandas_out.transform(table))  # fmt: skip


def texts():
    name = "Texts"
    inputs = [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
    rows = [[text] for text in TEXTS[:9]]
    vectorizer = feature_extraction.text
    for kind, model in (
        ("TfidfVectorizer and LogisticRegression", pipeline.make_pipeline(
            vectorizer.TfidfVectorizer(), linear_model.LogisticRegression())),
        ("CountVectorizer and MultinomialNB", pipeline.make_pipeline(vectorizer.CountVectorizer(), naive_bayes.MultinomialNB())),
        ("HashingVectorizer and SGDClassifier", pipeline.make_pipeline(
            vectorizer.HashingVectorizer(n_features=64), linear_model.SGDClassifier(random_state=1))),
        ("A cleaner of one's own before the vectorizer", pipeline.make_pipeline(
            preprocessing.FunctionTransformer(own_classes.clean), vectorizer.TfidfVectorizer(), linear_model.LogisticRegression())),
    ):  # fmt: skip
        fitted = model.fit(TEXTS, TEXT_LABELS)
        yield Specimen(name, kind, fitted, table=lambda rows: [row[0] for row in rows], inputs=inputs, rows=rows,
                       save=saved(fitted))  # fmt: skip
    frame = FRAME.assign(text=TEXTS)
    both = compose.make_column_transformer(
        (vectorizer.TfidfVectorizer(), "text"), (preprocessing.StandardScaler(), ["size"])
    )
    fitted = pipeline.make_pipeline(both, linear_model.LogisticRegression()).fit(
        frame[["text", "size"]], TEXT_LABELS
    )
    yield Specimen(name, "A text column next to numbers", fitted, table=lambda rows: pd.DataFrame(rows, columns=["text", "size"]),
                   inputs=[*inputs, ARRAY_INPUTS[0] | {"name": "size"}], rows=rows_of(frame[["text", "size"]]),
                   save=saved(fitted))  # fmt: skip
    dicts = pipeline.make_pipeline(feature_extraction.DictVectorizer(), linear_model.LogisticRegression())
    records = [{"kind": kind, "size": size} for kind, size in zip(FRAME["kind"], FRAME["size"], strict=True)]
    fitted = dicts.fit(records, BINARY)
    yield Specimen(name, "DictVectorizer", fitted, table=lambda rows: [
                       {k: v for k, v in zip(("kind", "size"), row, strict=True) if v is not None} for row in rows],
                   inputs=inputs_of(["kind", "size"]), rows=rows_of(FRAME[["kind", "size"]]), save=saved(fitted))  # fmt: skip


def own():
    name = "Classes of one's own"
    yield on_array(name, "A classifier in a module that is installed", own_classes.Threshold(), BINARY)
    model = own_classes.ByColumns().fit(NUMBERS, TARGET)
    yield Specimen(name, "A class that wants a DataFrame and does not say so", model, inputs=ARRAY_INPUTS, rows=ARRAY_ROWS,
                   table=lambda rows: pd.DataFrame(array(rows), columns=list("abc")), save=saved(model))  # fmt: skip
    yield vector(name)


def vector(name):
    model = linear_model.Ridge().fit(NUMBERS, TARGET)
    return Specimen(name, "One input that is a vector", model, table=lambda rows: array([row[0] for row in rows]),
                    inputs=[{"name": "vector", "datatype": "FP64", "shape": [-1, 3]}], rows=[[row] for row in ARRAY_ROWS],
                    save=saved(model), odd=False)  # fmt: skip


GROUPS = (linear, trees, neighbours, several, unsupervised, frames, texts, own)
