"""Your own code for predictions of the model @NAME@.

What is defined here replaces what chips_backend/predict.py has. Delete what you do not need.
"""

from typing import Any

from chips_backend.model import Model, Rows

# "process" for models in plain Python, which would otherwise run one at a time.
RUNS_IN = "thread"

# Request parameters of your own: name -> type.
PARAMETERS: dict[str, type] = {}


def predict(model: Model, rows: Rows, parameters: dict[str, Any]) -> Any:
    """Predict one value for each row.

    `rows` has its values in the order of the signature. `chips_backend.model.Refused("why")` answers 422.
    """
    table = model.table(rows)  # a DataFrame where the model was trained on one, else an array
    return model.predict(table, parameters)
