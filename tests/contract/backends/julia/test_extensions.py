"""Tables and categories of other packages, stood in for by two with the same names, UUIDs and interface: the real ones cannot be had."""

import json
import tomllib
from pathlib import Path

import pytest

from tests.contract.backends.languages import JULIA_BACKEND, Julia, genie_manifests, make_julia

pytestmark = pytest.mark.timeout(600)

TABLES = "module Tables\nistable(_) = false\nfunction columntable end\nend\n"
DATA_API = "module DataAPI\nunwrap(value) = value\nlevels(column) = unique(column)\nend\n"
CODE = """
import ChipsBackend, DataAPI, Tables
using ChipsBackend.Backend: Signature, answers_of, encode, example_columns, predictions_of

struct Frame
    columns::Any
end
Tables.istable(::Frame) = true
Tables.columntable(frame::Frame) = frame.columns

struct Category
    label::Any
end
DataAPI.unwrap(category::Category) = category.label
DataAPI.levels(::Vector{Category}) = ["blue", "green", "red"]

for returned in (Frame((price = [1.5, 2.5], colour = [Category("red"), Category(missing)])), [Category(3), Category("x")])
    println(String(encode(predictions_of(answers_of(returned, 2, Signature([], []))))))
end
example = Frame((price = [1.5, missing], colour = [Category("red"), Category("green")]))
println(String(encode([column.tensor.categories for column in example_columns(example, nothing)])))
"""


def test_any_table_and_any_category_comes_out_in_the_contracts_form(julia: Julia, tmp_path: Path):
    uuids = tomllib.loads((JULIA_BACKEND / "Project.toml").read_text())["weakdeps"]
    packages = {}
    for name, code in (("Tables", TABLES), ("DataAPI", DATA_API)):
        folder = tmp_path / name
        (folder / "src").mkdir(parents=True)
        (folder / f"src/{name}.jl").write_text(code)
        (folder / "Project.toml").write_text(f'name = "{name}"\nuuid = "{uuids[name]}"\nversion = "1.0.0"\n')
        packages[name] = (uuids[name], folder)
    (tmp_path / "project").mkdir()
    stood_in = make_julia(julia.program, genie_manifests()[0], tmp_path / "project", packages)
    frame, labels, categories = stood_in.run("-e", CODE).splitlines()
    assert json.loads(frame) == [{"price": 1.5, "colour": "red"}, {"price": 2.5, "colour": None}]
    assert json.loads(labels) == [3, "x"]
    assert json.loads(categories) == [None, ["blue", "green", "red"]]
