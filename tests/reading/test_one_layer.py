"""Files are read by `msdyn.reading` alone, so that no reader can forget a limit or an error."""

import ast
from pathlib import Path

import msdyn
import msdyn.preprocess

FOLDERS = {
    "msdyn": Path(msdyn.__file__).parent,
    "preprocess": Path(msdyn.preprocess.__file__).parent,
}
READERS = {
    *("np.load", "np.loadtxt", "np.genfromtxt", "np.fromfile", "np.memmap"),
    *("json.load", "pickle.load", "pickle.loads", "yaml.load", "yaml.safe_load", "tomllib.load"),
    *("Image.open", "iio.imread", "iio.imiter", "iio.imopen", "cv2.imread", "cv2.VideoCapture"),
    *("torch.load", "safe_open", "load_file", "safetensors.torch.load_file"),
    *("OpenEXR.File", "h5py.File", "gzip.open", "pycolmap.Reconstruction"),
    *("pq.read_table", "pq.ParquetFile", "parquet.read_table", "parquet.ParquetFile"),
}
"""Calls that read a file of some format, by the name of the function."""
OPENERS = {"open", "av.open", "ZipFile", "zipfile.ZipFile"}
"""Calls that read unless they are given a mode that writes; `.open(...)` of a path likewise."""
METHODS = {"read_text", "read_bytes"}
ALLOWED = {
    # Files of our own package, or of the system.
    "msdyn/jit.py read_bytes": "our own source",
    "msdyn/writing/processes.py read_text": "/proc",
    "msdyn/machine_limits.py read_text": "/proc and /sys/fs/cgroup",
    "msdyn/batch/supervisor.py read_text": "/proc",
    "msdyn/cli/help.py read_text": "/proc",
    "msdyn/plugins.py read_text": "modules of Python, which are imported when they are used",
    "msdyn/view/page.py read_text": "files of our package and of viser's",
    "msdyn/synthetic/textures.py iio.imread": "an image of an installed package",
    # Text that is not of a file.
    "msdyn/writing/locks.py json.loads": "65 kB of a lock, any failure means that it is no lock",
    "msdyn/writing/locks.py path.open": "65 kB of a lock, any failure means that it is no lock",
    "msdyn/writing/step_log.py json.loads": "a line of a log, any failure means that it is cut off",
    "msdyn/writing/step_log.py read_bytes": "a line of a log, any failure means that it is cut off",
    # Bytes that are not parsed.
    "msdyn/fit/fingerprint.py path.open": "a digest",
    "preprocess/records.py file.open": "a digest",
    "msdyn/batch/workspace.py path.open": "a digest, and the end of a log that people read",
    "preprocess/checkpoints/torch_hub.py path.open": "a digest",
    "msdyn/io/video_ends.py path.open": "the boxes of a container, of declared sizes",
    # COLMAP's own database, which the same command has written.
    "preprocess/multiview/colmap_mapping.py pycolmap.Database.open": "our own database",
    "preprocess/multiview/colmap_matching.py pycolmap.Database.open": "our own database",
    "preprocess/multiview/colmap_matching.py load_pycolmap().Database.open": "our own database",
}


def reads(call):
    """Return the name of a call that reads a file; None for others."""
    name = ast.unparse(call.func)
    last = name.rsplit(".", 1)[-1]
    if name in READERS or name == "json.loads":
        made_here = call.args and ast.unparse(call.args[0]).startswith("json.dumps(")
        return None if made_here else name
    if last in METHODS and isinstance(call.func, ast.Attribute):
        return None if "files(" in name else last  # of importlib.resources
    if name in OPENERS or (last == "open" and isinstance(call.func, ast.Attribute)):
        modes = [a.value for a in call.args if isinstance(a, ast.Constant)]
        modes += [k.value.value for k in call.keywords if k.arg == "mode"]
        written = any(isinstance(m, str) and set(m) & set("wxa") for m in modes)
        return None if written or name == "os.open" else name
    return None


def readers(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = (reads(node) for node in ast.walk(tree) if isinstance(node, ast.Call))
    return {name for name in found if name}


def test_only_the_one_layer_reads_files():
    found = set()
    for package, folder in FOLDERS.items():
        for path in sorted(folder.rglob("*.py")):
            part = path.relative_to(folder).as_posix()
            if package == "msdyn" and part.startswith(("reading/", "preprocess/")):
                continue
            found |= {f"{package}/{part} {name}" for name in readers(path)}
    assert found - set(ALLOWED) == set()


def test_calls_that_read(tmp_path):
    path = tmp_path / "a.py"
    path.write_text(
        "a = np.load(f)\nb = Image.open(f)\nc = json.loads(t)\nd = json.loads(json.dumps(t))\n"
        "e = path.open()\ng = path.open('wb')\nh = open(f, 'rb')\ni = open(f, mode='a')\n"
        "j = ZipFile(f, 'w')\nk = ZipFile(f)\nl = folder.read_bytes()\nm = files('x').read_text()\n"
    )
    expected = {"np.load", "Image.open", "json.loads", "path.open", "open", "ZipFile", "read_bytes"}
    assert readers(path) == expected
