"""URDF: a file per object, read by MuJoCo's compiler and by an XML parser."""

import json
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from export.exact_laptop import exact_laptop

from msdyn.export import export_as

pytest.importorskip("coacd")
pytest.importorskip("open3d", exc_type=ImportError)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("laptop") / "urdf"
    export_as(exact_laptop().sequence, "urdf", out, triangles=1000)
    return out


def test_the_tree_of_links(folder):
    assert sorted(p.name for p in folder.iterdir()) == ["manifest.json", "meshes", "object_1.urdf"]
    root = ET.parse(folder / "object_1.urdf").getroot()
    assert root.tag == "robot" and [e.get("name") for e in root.iter("link") if e.get("name")] == [
        "object_1", "object_1_body_1",
    ]  # fmt: skip
    (joint,) = root.findall("joint")
    assert joint.get("type") == "revolute"
    assert joint.find("parent").get("link") == "object_1"
    assert joint.find("child").get("link") == "object_1_body_1"
    assert set(joint.find("limit").attrib) == {"lower", "upper", "effort", "velocity"}
    for mesh in root.iter("mesh"):
        assert (folder / mesh.get("filename")).is_file()


def test_masses_and_inertias_are_those_of_the_meshes(folder):
    trimesh = pytest.importorskip("trimesh")
    for link in ET.parse(folder / "object_1.urdf").getroot().findall("link"):
        mesh = trimesh.load(folder / "meshes" / f"{link.get('name')}.obj")
        mesh.density = 1000
        inertial = link.find("inertial")
        assert float(inertial.find("mass").get("value")) == pytest.approx(mesh.mass, rel=1e-4)
        centre = np.array(inertial.find("origin").get("xyz").split(), float)
        np.testing.assert_allclose(centre, mesh.center_mass, atol=1e-5)
        tensor = {key: float(value) for key, value in inertial.find("inertia").attrib.items()}
        expected = mesh.moment_inertia
        found = [tensor[key] for key in ("ixx", "iyy", "izz", "ixy", "ixz", "iyz")]
        np.testing.assert_allclose(
            found, expected[[0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]], atol=1e-4 * expected.max()
        )


def test_mujoco_reads_the_same_hinge(folder):
    mujoco = pytest.importorskip("mujoco")
    text = (folder / "object_1.urdf").read_text()
    # MuJoCo strips folders of meshes unless it is told not to.
    text = text.replace("<link", '<mujoco><compiler strippath="false"/></mujoco><link', 1)
    (folder.parent / "told.urdf").write_text(text.replace("meshes/", f"{folder}/meshes/"))
    model = mujoco.MjModel.from_xml_path(str(folder.parent / "told.urdf"))
    assert model.njnt == 1 and model.jnt_type[0] == mujoco.mjtJoint.mjJNT_HINGE
    content = json.loads((folder / "manifest.json").read_text())
    assert "qpos" not in content
    root, child = content["bodies"]
    data = mujoco.MjData(model)
    for row in (0, 4, 11):
        data.qpos[:] = child["joint"]["positions"][row]
        mujoco.mj_forward(model, data)
        world = [np.array(body["world_from_body"][row]) for body in (root, child)]
        relative = np.linalg.inv(world[0]) @ world[1]
        found = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, "object_1_body_1")
        np.testing.assert_allclose(data.xpos[found], relative[:3, 3], atol=1e-4)
        np.testing.assert_allclose(data.xmat[found].reshape(3, 3), relative[:3, :3], atol=1e-4)


def test_an_object_is_a_file_each(exact, tmp_path):
    written = export_as(exact, "urdf", tmp_path, time=0.0, triangles=400)
    names = [path.name for path in written.files if path.suffix == ".urdf"]
    assert names == ["object_1.urdf", "object_2.urdf"]
    content = json.loads((tmp_path / "manifest.json").read_text())
    assert content["files"][:2] == names
