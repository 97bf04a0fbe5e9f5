"""Which fields of the configuration are read, by following types through the syntax trees of the package.

A name alone proves little: ``.width`` is read of arrays and of three sections. So every expression gets the classes that
it can be: from annotations of parameters and fields, from assignments, loops and the functions that return them. Where
nothing says what an expression is, an attribute of it can be that of any class.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

SKIPPED = ("schema.py", "setting.py", "values.py", "reference.py")  # of neuroformer/config: they declare, check, print
TRANSPARENT = {"replace", "_replace", "enumerate", "zip", "sorted", "list", "tuple", "next", "iter", "reversed", "cast"}

Types = set[str]


class Reads:
    """The (section, field) pairs that some module reads.

    Parameters
    ----------
    schema : section: {field: section or ""}, what a field holds where it holds sections
    """

    def __init__(self, schema: dict[str, dict[str, str]], root: Path):
        self.schema, self.found = schema, set[tuple[str, str]]()
        # class: {attribute, or method(): what it can be}
        self.classes: dict[str, dict[str, Types]] = {
            section: {field: {held} - {""} for field, held in fields.items()} for section, fields in schema.items()
        }
        self.any: dict[str, Types] = defaultdict(set)
        self.functions: dict[str, Types] = defaultdict(set)
        package = [p for p in sorted(root.rglob("*.py")) if not (p.parent.name == "config" and p.name in SKIPPED)]
        trees = [ast.parse(p.read_text()) for p in package]
        defined = [c for tree in trees for c in ast.walk(tree) if isinstance(c, ast.ClassDef)]
        for one in defined:
            self.classes.setdefault(one.name, {})
        for one in defined:
            self._attributes(one)
        for one in (f for tree in trees for f in ast.walk(tree) if isinstance(f, ast.FunctionDef)):
            self.functions[one.name] |= self.named(one.returns)
        for _ in range(2):  # attributes that are set in one module are read in others
            for tree in trees:
                _Scope(self, {}).body(tree.body)

    def named(self, annotation: ast.AST | None) -> Types:
        """The classes that an annotation names."""
        words = re.findall(r"\w+", ast.unparse(annotation)) if annotation is not None else []
        return {w for w in words if w in self.classes}

    def of_any(self, attribute: str) -> Types:
        """What an attribute can be, of whichever class but the sections."""
        return self.any[attribute]

    def add(self, owner: str, attribute: str, types: Types) -> None:
        self.classes[owner].setdefault(attribute, set()).update(types)
        if owner not in self.schema:
            self.any[attribute] |= types

    def _attributes(self, owner: ast.ClassDef) -> None:
        for one in owner.body:
            if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name):
                self.add(owner.name, one.target.id, self.named(one.annotation))
            elif isinstance(one, ast.FunctionDef):
                is_property = any("property" in ast.unparse(d) for d in one.decorator_list)
                self.add(owner.name, one.name if is_property else f"{one.name}()", self.named(one.returns))


class _Scope(ast.NodeVisitor):
    def __init__(self, reads: Reads, names: dict[str, Types]):
        self.reads, self.names = reads, dict(names)

    def body(self, nodes) -> None:
        for node in nodes:
            self.visit(node)

    # what an expression can be

    def types(self, node: ast.AST | None) -> Types:
        if isinstance(node, ast.Name):
            return self.names.get(node.id, set())
        if isinstance(node, ast.Attribute):
            return self._attribute(self.types(node.value), node.attr)
        if isinstance(node, ast.Call):
            return self._call(node)
        if isinstance(node, (ast.Subscript, ast.Starred, ast.NamedExpr)):
            return self.types(node.value)
        if isinstance(node, (ast.BoolOp, ast.Tuple, ast.List, ast.Set)):
            parts = node.values if isinstance(node, ast.BoolOp) else node.elts
            return set().union(*map(self.types, parts))
        if isinstance(node, ast.IfExp):
            return self.types(node.body) | self.types(node.orelse)
        if isinstance(node, ast.BinOp):
            return self.types(node.left) | self.types(node.right)
        if isinstance(node, (ast.ListComp, ast.GeneratorExp, ast.SetComp)):
            inner = _Scope(self.reads, self.names)
            for each in node.generators:
                inner.bind(each.target, inner.types(each.iter), each.iter)
            return inner.types(node.elt)
        return set()

    def _attribute(self, owners: Types, name: str) -> Types:
        known = [self.reads.classes[c][name] for c in owners if name in self.reads.classes[c]]
        if known or owners & set(self.reads.schema):
            return set().union(*known)
        return self.reads.of_any(name)  # also where a class inherits it

    def _call(self, node: ast.Call) -> Types:
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        if name in self.reads.classes:
            return {name}
        if isinstance(node.func, ast.Attribute):
            of_class = self._attribute(self.types(node.func.value), f"{name}()")
            if of_class:
                return of_class
        if name in TRANSPARENT:
            return set().union(*map(self.types, node.args))
        return set(self.reads.functions.get(name, ()))

    def bind(self, target: ast.AST, types: Types, value: ast.AST | None = None) -> None:
        if isinstance(target, ast.Name):
            self.names[target.id] = types
        elif isinstance(target, ast.Starred):
            self.bind(target.value, types)
        elif isinstance(target, (ast.Tuple, ast.List)):
            same = isinstance(value, (ast.Tuple, ast.List)) and len(value.elts) == len(target.elts)
            parts: list = value.elts if same else [None] * len(target.elts)  # pyright: ignore
            if (
                isinstance(value, ast.Call)
                and getattr(value.func, "id", "") == "zip"
                and len(value.args) == len(target.elts)
            ):
                parts = value.args
            for one, part in zip(target.elts, parts, strict=True):
                self.bind(one, types if part is None else self.types(part), part)
        elif isinstance(target, ast.Attribute):
            for owner in self.types(target.value) - set(self.reads.schema):
                self.reads.add(owner, target.attr, types)

    # what binds names, and what reads fields

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if isinstance(node.ctx, ast.Load):
            for section in self.types(node.value) & set(self.reads.schema):
                self.reads.found.add((section, node.attr))
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        if getattr(node.func, "id", "") == "getattr":
            names = [x.value for x in ast.walk(node.args[1]) if isinstance(x, ast.Constant)]
            pattern = ".*".join(map(re.escape, map(str, names)))
            for section in self.types(node.args[0]) & set(self.reads.schema):
                for field in self.reads.schema[section]:
                    if names and re.fullmatch(
                        pattern + (".*" if isinstance(node.args[1], ast.JoinedStr) else ""), field
                    ):
                        self.reads.found.add((section, field))
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        self.visit(node.value)
        for target in node.targets:
            self.bind(target, self.types(node.value), node.value)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)
        self.bind(node.target, self.reads.named(node.annotation) or self.types(node.value))

    def visit_For(self, node: ast.For) -> None:
        self.visit(node.iter)
        self.bind(node.target, self.types(node.iter), node.iter)
        self.body([*node.body, *node.orelse])

    def _comprehension(self, node) -> None:
        inner = _Scope(self.reads, self.names)
        for each in node.generators:
            inner.visit(each.iter)
            inner.bind(each.target, inner.types(each.iter), each.iter)
            inner.body(each.ifs)
        inner.body([node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt])

    visit_ListComp = visit_SetComp = visit_GeneratorExp = visit_DictComp = _comprehension

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        if node.name in ("__post_init__", "check") or node.name.startswith("_check_"):
            return  # what only a check reads has no effect
        inner = _Scope(self.reads, self.names)
        for arg in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]:
            inner.names[arg.arg] = self.reads.named(arg.annotation) or (
                self.names.get("self", set()) if arg.arg == "self" else set()
            )
        inner.body(node.body)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        _Scope(self.reads, self.names).visit(node.body)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        inner = _Scope(self.reads, self.names)
        inner.names["self"] = {node.name}
        inner.body(node.body)


def unread(schema: dict[str, dict[str, str]], root: Path) -> list[str]:
    """The fields of a schema that no module of the package reads, as ``Section.field``."""
    found = Reads(schema, root).found
    return [
        f"{section}.{field}" for section, fields in schema.items() for field in fields if (section, field) not in found
    ]
