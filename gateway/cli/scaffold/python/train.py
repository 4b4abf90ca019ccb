"""Train @NAME@ and save it to trained/. Put your own data and model here.

    python train.py [--overwrite]
"""

import sys
from pathlib import Path

from chips_backend import save
from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

if Path("trained").exists() and "--overwrite" not in sys.argv:
    sys.exit("trained/ is there already: python train.py --overwrite replaces what an earlier run saved")

wine = load_wine(as_frame=True)
x = wine.data.rename(columns=lambda name: name.replace("/", "_"))
train_x, test_x, train_y, test_y = train_test_split(x, wine.target, random_state=7, stratify=wine.target)
model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(train_x, train_y)
print(f"accuracy on {len(test_y)} wines it has not seen: {model.score(test_x, test_y):.3f}")
save(model, "trained", example=test_x, training=train_x, overwrite="--overwrite" in sys.argv)
