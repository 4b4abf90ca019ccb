"""What many write by hand: FastAPI and joblib, under uvicorn."""

from fastapi import FastAPI
from pydantic import BaseModel
from shared import KIND, load

predict = load()
app = FastAPI()


class Row(BaseModel):
    x0: float
    x1: float
    x2: float
    x3: float
    x4: float
    x5: float
    x6: float
    x7: float
    colour: str
    shape: str


class Numbers(BaseModel):
    instances: list[list[float]]


class Records(BaseModel):
    instances: list[Row]


if KIND == "mixed":

    @app.post("/predict")
    def answer_records(request: Records):
        return {"predictions": predict([row.model_dump() for row in request.instances])}

else:

    @app.post("/predict")
    def answer_numbers(request: Numbers):
        return {"predictions": predict(request.instances)}
