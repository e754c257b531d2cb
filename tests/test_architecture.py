"""Imports go down the layers only, and importing msdyn stays light."""

import ast
import pkgutil
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# From the bottom up. Packages of one row do not import one another.
LAYERS = [
    ["msdyn.errors", "msdyn.indices", "msdyn.lazy", "msdyn.machine_limits", "msdyn.version"],
    ["msdyn.events"],
    ["msdyn.interruption", "msdyn.options", "msdyn.reading", "msdyn.thread_share"],
    ["msdyn.memory"],
    [
        "msdyn.colours",
        "msdyn.devices",
        "msdyn.html",
        "msdyn.jit",
        "msdyn.plugins",
        "msdyn.progress",
        "msdyn.threads",
        "msdyn.writing",
    ],
    ["msdyn.estimates", "msdyn.logs"],
    ["msdyn.geometry", "msdyn.raster"],
    ["msdyn.scene"],
    ["msdyn.io"],
    ["msdyn.synthetic", "msdyn.preprocess"],
    ["msdyn.motion"],
    ["msdyn.sequence"],
    ["msdyn.render"],
    ["msdyn.feedforward"],
    ["msdyn.fit"],
    ["msdyn.evaluate", "msdyn.export", "msdyn.view"],
    ["msdyn.batch", "msdyn.demo", "msdyn.notebook"],
    ["msdyn.cli"],
]
LEVEL = {name: level for level, row in enumerate(LAYERS) for name in row}
# What people do with a sequence knows the sequence, not how it came about.
FORBIDDEN = {
    (a, b)
    for a in ("msdyn.evaluate", "msdyn.export", "msdyn.view")
    for b in ("msdyn.fit", "msdyn.feedforward")
} | {("msdyn.fit", "msdyn.feedforward")}
# Only these may import gsplat; heavy packages are imported where they are used.
GSPLAT = {"msdyn/raster/gsplat_cuda.py", "msdyn/fit/density.py"}
HEAVY = {"gsplat", "transformers", "pycolmap", "viser", "open3d", "cv2", "trimesh", "embreex", "av"}
HEAVY |= {"coacd", "mujoco"}


def sources():
    for folder, package in (("msdyn", "msdyn"), ("preprocess", "msdyn.preprocess")):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            name = ".".join([package, *(p for p in parts if p != "__init__")])
            yield path, name


def imports(tree):
    """Yield (module name, is at the top level) of every import statement."""
    top = set(map(id, tree.body))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the layer"
            yield node.module, id(node) in top
            yield from ((f"{node.module}.{alias.name}", id(node) in top) for alias in node.names)


def layer(module):
    return next((p for p in LEVEL if module == p or module.startswith(p + ".")), None)


@pytest.mark.parametrize("path, name", [pytest.param(*s, id=s[1]) for s in sources()])
def test_imports_go_down(path, name):
    own = layer(name)
    assert own or name == "msdyn", f"{name} is in no layer"
    for module, top in imports(ast.parse(path.read_text(encoding="utf-8"))):
        root = module.split(".")[0]
        relative = path.relative_to(ROOT).as_posix()
        if root == "gsplat":
            assert relative in GSPLAT, f"{relative} imports gsplat"
        if root in HEAVY:
            assert not top, f"{relative} imports {root} at its top level"
        target = layer(module)
        if own and target and target != own:
            assert LEVEL[target] < LEVEL[own], f"{name} imports {module}, which is not below it"
            assert (own, target) not in FORBIDDEN, f"{name} imports {module}"


def test_no_circle():
    """Modules import one another in no loop, not even inside functions or for types alone."""
    names = {name for _, name in sources()}
    graph = {}
    for path, name in sources():
        graph[name] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                graph[name] |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                full = {f"{node.module}.{alias.name}" for alias in node.names}
                graph[name] |= full & names or {node.module}
        graph[name] &= names - {name}
    graph["msdyn"] = set()  # it hands on names, when they are asked for
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"circle: {' -> '.join(error.args[1])}")


def test_importing_msdyn_is_light():
    code = "import sys, msdyn; print(*(m for m in sys.modules if '.' not in m))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not HEAVY & set(run.stdout.split())


@pytest.mark.parametrize(
    "script", ["render", "fit", "preprocess", "train", "clips", "demo", "batch"]
)
def test_commands_answer_before_heavy_packages_are_imported(script, tmp_path):
    """Help, a wrong option and a missing file need no package that takes a second to import."""
    heavy = HEAVY | {"torch", "numba", "scipy", "sklearn", "matplotlib", "imageio"}
    code = f"""
import contextlib, sys
from msdyn.cli.{script} import main
missing = {{"clips": ["list", "none"], "train": ["x", "--recipe=static", "--data=none"]}}
missing["batch"] = ["status", "none"]
for arguments in (["--help"], ["--version"], ["--wrong"], missing.get({script!r}, ["none"])):
    try:
        code = main(arguments)
    except SystemExit as end:
        code = end.code
    assert code == (0 if arguments[0] in ("--help", "--version") else 2), (arguments, code)
    assert not set(sys.modules) & {heavy!r}, (arguments, set(sys.modules) & {heavy!r})
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, capture_output=True)


def test_names_of_lazy_packages():
    """Each is found, is listed for type checkers too, and is not that of a module."""
    found = 0
    for path, name in sources():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if "lazy_names" not in {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}:
            continue
        if path.name != "__init__.py":
            continue
        found += 1
        package = import_module(name)
        modules = {module.name for module in pkgutil.iter_modules(package.__path__)}
        (block,) = (node for node in tree.body if isinstance(node, ast.If))
        imported = {a.asname or a.name for node in block.body for a in node.names}
        assert set(package.__all__) == imported and not modules & imported, name
        for exported in package.__all__:
            getattr(package, exported)
    assert found > 5
