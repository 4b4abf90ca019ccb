"""Write the model as MLflow keeps it: FOLDER."""

import sys

from shared import FILE, KIND

if KIND == "onnx":
    import mlflow.onnx
    import onnx

    mlflow.onnx.save_model(onnx.load(FILE), sys.argv[1])
else:
    import joblib
    import mlflow.sklearn

    mlflow.sklearn.save_model(joblib.load(FILE), sys.argv[1], serialization_format="cloudpickle")
