"""No file has more than 400 lines, no function more than 50: a file that must says why in its first line."""

import ast
from pathlib import Path

import pytest

from tests.house.checkout import git

ROOT = Path(__file__).parents[2]
FILE_LINES = 400
FUNCTION_LINES = 50  # of the body, without its docstring: a command's options are its signature
REASON = "# Long: "


def _files() -> list[str]:
    return git("ls-files", "*.py", "*.R", "*.jl").split()


def _body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    body = function.body
    if isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant) and len(body) > 1:
        body = body[1:]
    last = body[-1].end_lineno
    assert last is not None
    return last - body[0].lineno + 1


def _problems(name: str, text: str) -> list[str]:
    """What is too long in one file; nothing where its first line has a reason."""
    lines = text.splitlines()
    if lines and lines[0].startswith(REASON):
        assert len(lines[0]) > len(REASON) + 10, f"{name}: the first line gives no reason"
        return []
    found = [f"{name} has {len(lines)} lines"] if len(lines) > FILE_LINES else []
    if name.endswith(".py"):
        found += [
            f"{name}:{node.lineno} {node.name} has {_body_lines(node)} lines"
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and _body_lines(node) > FUNCTION_LINES
        ]
    return found


def test_files_and_functions_are_short_or_say_why():
    found = []
    for name in _files():
        path = ROOT / name
        if path.is_file():
            found += _problems(name, path.read_text(encoding="utf-8"))
    assert not found, "split it by idea, or begin the file with '# Long: REASON':\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x = 1\n" * 400, 0),
        ("x = 1\n" * 401, 1),
        ("# Long: one table, read from top to bottom\n" + "x = 1\n" * 401, 0),
        ("def f():\n    '''Text.'''\n" + "    x = 1\n" * 50, 0),
        ("def f():\n" + "    x = 1\n" * 51, 1),
    ],
)
def test_the_limits_hold(text, expected):
    assert len(_problems("f.py", text)) == expected
