"""Evaluates arithmetic given as text, without running it as Python."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["evaluate"]

#: Bounds, because the text comes from users, sometimes through configuration files.
MAX_LENGTH = 60
MAX_MAGNITUDE = 1e9
#: Bounds a power before it is computed: no larger number than MAX_MAGNITUDE ** MAX_EXPONENT ever exists.
MAX_EXPONENT = 30

_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
}


def evaluate(text: str, names: Mapping[str, int]) -> int | float:
    """Compute ``+ - * / // % **``, with brackets, on numbers and the given names.

    Raises
    ------
    ValueError
        If the text is anything else, longer than 60 characters, or gives a number beyond 1e9.
    """
    if len(text) > MAX_LENGTH:
        raise ValueError(f"the expression has more than {MAX_LENGTH} characters")
    try:
        return _compute(ast.parse(text.strip(), mode="eval").body, names)
    except (SyntaxError, ArithmeticError, KeyError, TypeError, RecursionError, MemoryError) as error:
        raise ValueError(f"not arithmetic: {error}") from error


def _compute(node: ast.AST, names: Mapping[str, int]) -> int | float:
    value: Any
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        value = node.value
    elif isinstance(node, ast.Name):
        value = names[node.id]
    elif isinstance(node, ast.UnaryOp):
        value = _OPERATORS[type(node.op)](_compute(node.operand, names))
    elif isinstance(node, ast.BinOp):
        left, right = _compute(node.left, names), _compute(node.right, names)
        if isinstance(node.op, ast.Pow) and abs(right) > MAX_EXPONENT:
            raise ValueError("the exponent is too large")
        value = _OPERATORS[type(node.op)](left, right)
    else:
        raise ValueError(f"{type(node).__name__} is not arithmetic")
    if isinstance(value, complex) or abs(value) > MAX_MAGNITUDE:
        raise ValueError("the number is too large")
    return value  # type: ignore[no-any-return]
