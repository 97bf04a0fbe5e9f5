"""Conditions on the rows of a table: comparisons of its columns with numbers and words.

    quality == 'good' and rate > 0.5 and area in ['VISp', 'VISl']
    not noise and (0.1 < depth <= 1.2 or `peak channel` not in [3, 7])

The text is parsed by Python's own grammar and never evaluated by it: only names of columns, numbers, words, lists of
them, comparisons, ``and``, ``or``, ``not`` and brackets have a meaning. A name that is no word of Python's stands in
backquotes.
"""

from __future__ import annotations

import ast
import difflib
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from neuroformer.recording.validation import RecordingError

LONGEST = 2000  # characters, and DEEPEST brackets: far above what a person writes
DEEPEST = 20
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"|`([^`]*)`")
_ORDER: dict[type, Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_GRAMMAR = "comparisons of columns with numbers, words in quotes or lists of them, joined by and, or, not and brackets"


class Condition:
    """A condition as it was written, and the conditions that it joins by ``and``.

    Raises
    ------
    RecordingError
        Something else than comparisons; says what and where.
    """

    def __init__(self, text: str):
        self.text = text
        self._names: dict[str, str] = {}  # what stands for a name in backquotes
        if len(text) > LONGEST or "\x00" in text:
            raise RecordingError(
                f"the condition has {len(text):,} characters; expected {LONGEST:,} at most, in plain text"
            )
        source = _QUOTED.sub(self._stand_in, text).strip()
        try:
            self._tree = ast.parse(source, mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as e:
            at = f" near character {e.offset}" if isinstance(e, SyntaxError) and e.offset else ""
            raise RecordingError(
                f"{text!r} is no condition ({getattr(e, 'msg', e)}{at}); expected {_GRAMMAR}"
            ) from None
        self._check(self._tree, 0)

    def terms(self) -> list[str]:
        """The conditions that ``and`` joins, each as text; all of them must hold."""
        return [self._written(t) for t in self._joined()]

    def columns(self) -> list[str]:
        """The columns that it names, in their order."""
        named = [n for n in ast.walk(self._tree) if isinstance(n, ast.Name)]
        named.sort(key=lambda n: n.col_offset)
        return list(dict.fromkeys(self._names.get(n.id, n.id) for n in named))

    def holds(self, table: Mapping[str, np.ndarray]) -> np.ndarray:
        """(terms, rows) whether each of :meth:`terms` holds for each row of a table of columns.

        A missing number (NaN) keeps to no comparison but ``!=``.

        Raises
        ------
        RecordingError
            A column that is not there, or is compared with what it cannot be.
        """
        for name in self.columns():
            if name not in table:
                near = difflib.get_close_matches(name, table, n=1, cutoff=0.5)
                hint = f"; did you mean '{near[0]}'?" if near else ""
                raise RecordingError(f"{self.text!r} names '{name}'{hint}; the units have: {', '.join(table)}")
            if table[name].ndim != 1:
                raise RecordingError(
                    f"{self.text!r}: '{name}' has shape {table[name].shape}; expected one value per unit"
                )
        return np.stack([self._truth(term, table) for term in self._joined()])

    # -- parsing --------------------------------------------------------------------------------------

    def _stand_in(self, found: re.Match) -> str:
        if found[1] is None:
            return found[0]
        name = f"_quoted_{len(self._names)}_"
        self._names[name] = found[1]
        return name

    def _joined(self) -> list[ast.expr]:
        tree = self._tree
        return tree.values if isinstance(tree, ast.BoolOp) and isinstance(tree.op, ast.And) else [tree]

    def _written(self, node: ast.AST) -> str:
        text = ast.unparse(node)
        for stand_in, name in self._names.items():
            text = text.replace(stand_in, f"`{name}`")
        return text

    def _check(self, node: ast.expr, depth: int) -> None:
        """Refuse every construct but those of the module's description."""
        if depth > DEEPEST:
            raise RecordingError(f"{self.text!r} has more than {DEEPEST} brackets within brackets")
        if isinstance(node, ast.BoolOp):
            parts = node.values
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            parts = [node.operand]
        elif isinstance(node, ast.Compare):
            self._check_comparison(node)
            return
        elif isinstance(node, ast.Name):
            return
        else:
            raise RecordingError(f"{self._written(node)!r} is no condition; expected {_GRAMMAR}")
        for part in parts:
            self._check(part, depth + 1)

    def _check_comparison(self, node: ast.Compare) -> None:
        sides = [node.left, *node.comparators]
        for left, op, right in zip(sides, node.ops, sides[1:], strict=False):
            known = isinstance(op, (ast.In, ast.NotIn)) or type(op) in _ORDER
            listed = isinstance(right, (ast.List, ast.Tuple))
            if not known or listed != isinstance(op, (ast.In, ast.NotIn)) or isinstance(left, (ast.List, ast.Tuple)):
                raise RecordingError(f"{self._written(node)!r} is no comparison; expected {_GRAMMAR}")
            for one in (left, right):
                if not isinstance(one, ast.Name):
                    self._constants(one)

    def _constants(self, node: ast.expr) -> list[Any]:
        """The numbers or words of a side of a comparison."""
        if isinstance(node, (ast.List, ast.Tuple)):
            return [value for one in node.elts for value in self._constants(one)]
        try:
            value = ast.literal_eval(node)
        except (ValueError, TypeError, RecursionError):
            value = None
        if not isinstance(value, (bool, int, float, str)):
            raise RecordingError(
                f"{self._written(node)!r} is neither a number nor a word in quotes; expected {_GRAMMAR}"
            )
        return [value]

    # -- evaluation -----------------------------------------------------------------------------------

    def _truth(self, node: ast.expr, table: Mapping[str, np.ndarray]) -> np.ndarray:
        if isinstance(node, ast.BoolOp):
            parts = [self._truth(v, table) for v in node.values]
            return (np.logical_and if isinstance(node.op, ast.And) else np.logical_or).reduce(parts)
        if isinstance(node, ast.UnaryOp):
            return ~self._truth(node.operand, table)
        if isinstance(node, ast.Name):
            name = self._names.get(node.id, node.id)
            if table[name].dtype.kind != "b":
                raise RecordingError(
                    f"{self.text!r}: '{name}' is {_kind(table[name])}, no condition; compare it with something"
                )
            return table[name]
        assert isinstance(node, ast.Compare)
        sides = [node.left, *node.comparators]
        pairs = [self._compare(a, op, b, table) for a, op, b in zip(sides, node.ops, sides[1:], strict=False)]
        count = len(next(iter(table.values())))
        return np.logical_and.reduce([np.broadcast_to(p, count) for p in pairs])

    def _compare(self, left: ast.expr, op: ast.cmpop, right: ast.expr, table: Mapping[str, np.ndarray]) -> np.ndarray:
        one = self._values(left, table)
        if isinstance(op, (ast.In, ast.NotIn)):
            given = [np.asarray(v) for v in self._constants(right)]
            for value in given:
                self._comparable(left, one, right, value)
            found = np.logical_or.reduce([np.broadcast_to(one == v, one.shape) for v in given]) if given else False
            return np.broadcast_to(found, one.shape) == isinstance(op, ast.In)
        other = self._values(right, table)
        self._comparable(left, one, right, other)
        return _ORDER[type(op)](one, other)

    def _values(self, node: ast.expr, table: Mapping[str, np.ndarray]) -> np.ndarray:
        if isinstance(node, ast.Name):
            return table[self._names.get(node.id, node.id)]
        return np.asarray(self._constants(node)[0])

    def _comparable(self, left: ast.expr, one: np.ndarray, right: ast.expr, other: np.ndarray) -> None:
        if (one.dtype.kind == "U") != (other.dtype.kind == "U"):
            raise RecordingError(
                f"{self.text!r} compares {self._written(left)} ({_kind(one)}) with {self._written(right)} ({_kind(other)}); "
                "expected words in quotes beside words, numbers beside numbers"
            )


def _kind(values: np.ndarray) -> str:
    """What a column or a constant holds, as an error says it."""
    if values.dtype.kind != "U":
        return "true or false" if values.dtype.kind == "b" else "numbers" if values.ndim else "a number"
    some = [repr(str(w)) for w in np.unique(values)]
    return "words" + (f" such as {', '.join(some[:4])}" if values.ndim else "")
