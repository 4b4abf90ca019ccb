"""docs/architecture.md says what the code does: the stages in their order, the folders and files that there are."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")


def _stages_of_the_page() -> list[str]:
    return [name.replace(" ", "_") for name in re.findall(r"^\| [^#\s]+ \| ([a-z ]+) \|", PAGE, re.MULTILINE)]


def test_the_table_is_the_pipeline():
    tree = ast.parse((ROOT / "gateway/pipeline.py").read_text(encoding="utf-8"))
    pipeline = next(node for node in ast.walk(tree) if getattr(node, "name", "") == "Pipeline")
    way = next(node for node in ast.walk(pipeline) if getattr(node, "name", "") == "__call__")
    calls = sorted(
        (node.lineno, node.col_offset, node.attr.removeprefix("_"))
        for node in ast.walk(way)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
    )
    order = list(dict.fromkeys(name for _, _, name in calls if name not in {"control", "refuse"}))
    assert _stages_of_the_page() == order


def test_each_stage_has_its_file():
    names = {path.stem for path in (ROOT / "gateway/stages").glob("*.py")} - {"__init__"}
    assert names == set(_stages_of_the_page()) - {"record"}


def test_the_layout_is_the_folder():
    tree = PAGE[PAGE.index("```\ngateway/") :].split("```")[1]
    inside = tree[tree.index("gateway/") : tree.index("backends/")]
    named = set(re.findall(r"(?:^|\s)((?:\w+/)|(?:\w+\.py))(?=\s)", inside, re.MULTILINE)) - {"gateway/"}
    for name in named:
        places = [ROOT / "gateway" / name, ROOT / "gateway/cli" / name]
        assert any(place.exists() for place in places), name
    packages = {f"{path.parent.name}/" for path in (ROOT / "gateway").glob("*/__init__.py")}
    modules = {path.name for path in (ROOT / "gateway").glob("*.py")} - {"__init__.py"}
    assert packages | modules <= named
