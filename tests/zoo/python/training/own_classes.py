"""Classes of one's own, in a module that is installed beside the model: the way that pickles of them can be loaded."""

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin


class Threshold(ClassifierMixin, BaseEstimator):
    """A classifier that nobody but its author knows, on arrays."""

    def fit(self, table, labels):
        self.classes_ = np.unique(labels)
        self.at_ = float(np.mean(np.asarray(table)[:, 0]))
        return self

    def predict(self, table):
        return self.classes_[(np.asarray(table, dtype=float)[:, 0] > self.at_).astype(int)]


class ByColumns(BaseEstimator):
    """It takes a DataFrame by the names of its columns, and says nothing of that anywhere."""

    def fit(self, table, target):
        self.mean_ = float(np.mean(target))
        return self

    def predict(self, table):
        return table["a"] * 2 + table["c"] + self.mean_


class Several(BaseEstimator):
    """Two outputs, as a DataFrame: a price, and the day when it is sold."""

    def predict(self, table):
        values = np.asarray(table, dtype=float)
        days = pd.Timestamp("2026-11-29") + pd.to_timedelta(np.round(values[:, 1] * 10), unit="D")
        return pd.DataFrame({"price": values[:, 0] * 2, "sold": days})


class Outputs(BaseEstimator):
    """Two outputs, as a matrix."""

    def predict(self, table):
        values = np.asarray(table, dtype=float)
        return np.column_stack([values[:, 0] * 2, values[:, 1] > 0])


class Days(TransformerMixin, BaseEstimator):
    """Dates as numbers: texts become times here."""

    def fit(self, table, labels=None):
        self.feature_names_in_ = np.array(list(table.columns), dtype=object)
        return self

    def transform(self, table):
        times = pd.to_datetime(table["when"], format="%Y-%m-%d")
        return np.column_stack([times.dt.dayofyear, times.dt.month])


def clean(texts):
    return [text.lower().strip() for text in texts]


def month(table):
    """It needs times, not texts."""
    return np.column_stack([table["when"].dt.month])


def as_text(table):
    return table.astype(str)
