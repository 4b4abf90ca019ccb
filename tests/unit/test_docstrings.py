"""What a docstring says is raised exists: a renamed error does not live on in the texts about it."""

import ast
import builtins
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
RAISED = re.compile(r"\bRaises? ((?:`?[A-Z]\w+`?(?:, | or | and )?)+)")


def _docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield getattr(node, "lineno", 1), text


def test_errors_in_docstrings_exist():
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "gateway").rglob("*.py")}
    nodes = [node for tree in trees.values() for node in ast.walk(tree)]
    known = {node.name for node in nodes if isinstance(node, ast.ClassDef)} | set(dir(builtins))
    imports = [node for node in nodes if isinstance(node, ast.ImportFrom)]
    known |= {alias.asname or alias.name for node in imports for alias in node.names}
    known |= {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    found = [
        f"{path.relative_to(ROOT)}:{line} {name}"
        for path, tree in trees.items()
        for line, text in _docstrings(tree)
        for match in RAISED.finditer(text)
        for name in re.findall(r"[A-Z]\w+", match[1])
        if name not in known
    ]
    assert not found
