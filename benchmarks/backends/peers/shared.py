"""The same model for every peer that has no loader of its own: rows as JSON values in, labels out."""

import os

KIND = os.environ["BENCH_KIND"]  # "numbers", "mixed" or "onnx"
FILE = os.environ["BENCH_FILE"]


def load():
    """A function from rows (lists of numbers, or records) to a list of labels."""
    import numpy as np

    if KIND == "onnx":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(FILE, options, providers=["CPUExecutionProvider"])
        name, label = session.get_inputs()[0].name, session.get_outputs()[0].name
        return lambda rows: session.run([label], {name: np.array(rows, dtype=np.float32)})[0].tolist()
    import joblib

    model = joblib.load(FILE)
    if KIND == "mixed":
        import pandas as pd

        return lambda rows: model.predict(pd.DataFrame(rows)).tolist()
    return lambda rows: model.predict(np.asarray(rows, dtype=np.float64)).tolist()
