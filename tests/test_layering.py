"""Who may import whom: two halves, one seam."""

import ast
import inspect
import re
from pathlib import Path

from spectral_tokenizer import SpectralProcessor
from spectral_tokenizer.data.schema import FEATURES, SPECTRUM


PACKAGE = Path(__file__).parent.parent / "spectral_tokenizer"
HUB_FILES = sorted(PACKAGE.glob("*_spectral_tokenizer.py"))


def imports(path):
    """(level, module) of every import in a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.level, node.module or ""


def test_files_that_travel_to_the_hub_are_flat_and_self_contained():
    names = {path.stem for path in HUB_FILES}
    assert len(names) >= 4
    for path in HUB_FILES:
        for level, module in imports(path):
            if level:
                assert level == 1 and module in names, f"{path.name} imports {'.' * level}{module}"
            else:
                allowed = {"torch", "numpy", "transformers", "huggingface_hub", "copy", "math", "collections", "dataclasses",
                           "itertools", "functools", "typing"}  # fmt: skip
                assert module.split(".")[0] in allowed, f"{path.name} imports {module}"
        # Transformers copies files by this pattern, in docstrings too.
        relative = re.findall(r"^\s*from\s+\.(\S+)\s+import", path.read_text(), flags=re.MULTILINE)
        assert set(relative) <= names


def test_no_class_is_called_tokenizer():
    for path in HUB_FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            assert not (isinstance(node, ast.ClassDef) and "Tokenizer" in node.name), node.name


def test_the_halves_do_not_know_each_other():
    for path in (PACKAGE / "data").rglob("*.py"):
        for level, module in imports(path):
            assert "_spectral_tokenizer" not in module and not module.startswith("training"), f"{path} -> {module}"
            assert not (level == 0 and module == "spectral_tokenizer"), f"{path} -> {module}"
    for path in PACKAGE.glob("*.py"):
        for level, module in imports(path):
            assert not (level and module.split(".")[0] == "data"), f"{path} -> {module}"


def test_the_seam_holds():
    """The processor's arguments are the row's columns."""
    arguments = inspect.signature(SpectralProcessor.__call__).parameters
    assert set(SPECTRUM) <= set(arguments) and set(SPECTRUM) <= set(FEATURES)


def test_files_stay_readable():
    for path in [*PACKAGE.rglob("*.py"), *(PACKAGE.parent / "training").rglob("*.py")]:
        assert len(path.read_text().splitlines()) <= 600, path
