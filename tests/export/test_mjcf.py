"""Objects as bodies with joints in MuJoCo: its own compiler and physics read what we write."""

import json

import numpy as np
import pytest
from evaluate.exact_fits import moving_points
from export.exact_laptop import (
    BOXES,
    CANONICAL,
    box_surface,
    exact_laptop,
    flat_table,
    linked_sequence,
    true_hinge,
)
from scipy.spatial.transform import Rotation

from msdyn.cli import export
from msdyn.errors import InputError
from msdyn.export import export_as
from msdyn.geometry import Rigid, invert_transforms, transform_points
from msdyn.sequence import object_poses

mujoco = pytest.importorskip("mujoco")
pytest.importorskip("coacd")
pytest.importorskip("open3d", exc_type=ImportError)


@pytest.fixture(scope="module")
def laptop():
    return exact_laptop()


@pytest.fixture(scope="module")
def folder(laptop, tmp_path_factory):
    out = tmp_path_factory.mktemp("laptop") / "mjcf"
    written = export_as(laptop.sequence, "mjcf", out, triangles=1500)
    assert out / "scene.xml" in written.files and out / "manifest.json" in written.files
    assert not [p for p in out.rglob("*") if p.is_file() and p not in written.files]
    return out


@pytest.fixture(scope="module")
def model(folder):
    return mujoco.MjModel.from_xml_path(str(folder / "scene.xml"))


@pytest.fixture(scope="module")
def content(folder):
    return json.loads((folder / "manifest.json").read_text())


def test_the_tree_and_the_hinge(laptop, model, content):
    assert [model.body(k).name for k in (1, 2)] == ["object_1", "object_1_body_1"]
    assert model.body_parentid[2] == 1 and model.nq == 8
    assert [b["joint"] and b["joint"]["kind"] for b in content["bodies"]] == [None, "hinge"]
    data = mujoco.MjData(model)
    data.qpos[:] = content["qpos"][CANONICAL]
    mujoco.mj_forward(model, data)
    # MuJoCo's axis and anchor are in its world; the truth is brought there by the manifest.
    sim = np.array(content["sim_from_world"])
    axis = sim[:3, :3] @ laptop.axis
    assert np.degrees(np.arccos(min(1, abs(data.xaxis[1] @ axis)))) < 0.01
    apart = data.xanchor[1] - transform_points(sim, laptop.point[None])[0]
    assert np.linalg.norm(apart - apart @ axis * axis) < 1e-4
    low, high = model.jnt_range[1]
    assert high - low == pytest.approx(np.ptp(laptop.angles), abs=1e-4)


def test_positions_of_the_clip_are_the_true_poses_of_the_links(laptop, model, content):
    data = mujoco.MjData(model)
    sim = np.array(content["sim_from_world"])
    rest = []
    for frame in (CANONICAL, 0, 3, 11):
        data.qpos[:] = content["qpos"][frame]
        mujoco.mj_forward(model, data)
        found = [
            Rigid(data.xmat[body].reshape(3, 3).copy(), data.xpos[body].copy()) for body in (1, 2)
        ]
        if frame == CANONICAL:
            rest = found
        for link in range(2):
            motion = (found[link] @ rest[link].inverse()).matrix
            # Which of the links is the root is decided by the number of Gaussians: equal here.
            true = [sim @ m.matrix[frame] @ np.linalg.inv(sim) for m in laptop.motions]
            assert min(np.abs(motion - candidate).max() for candidate in true) < 1e-4
        both = [(f @ r.inverse()).matrix for f, r in zip(found, rest, strict=True)]
        if frame != CANONICAL:
            assert np.abs(both[0] - both[1]).max() > 0.1


def test_it_is_still_after_a_while(model):
    data = mujoco.MjData(model)
    mujoco.mj_resetDataKeyframe(model, data, 0)
    for _ in range(200):
        mujoco.mj_step(model, data)
    assert np.isfinite(data.qpos).all() and np.abs(data.qvel).max() < 10
    assert not any(warning.number for warning in data.warning)
    for _ in range(1500):
        mujoco.mj_step(model, data)
    assert np.isfinite(data.qpos).all() and np.abs(data.qvel).max() < 0.2
    assert data.xpos[1:, 2].min() > -0.02 and data.xpos[1:, 2].max() < 0.4  # on the floor


def test_masses_are_those_of_the_collision_meshes(model):
    """Both links are boxes with volumes of 3.5 and 5.6 litres."""
    for mass in model.body_mass[1:]:
        assert 2 < mass < 14
    assert (model.geom_group == 2).sum() == 2 and (model.geom_group == 3).sum() >= 2


def test_meshes_lie_on_the_true_boxes(laptop, folder, content):
    trimesh = pytest.importorskip("trimesh")
    sim = np.array(content["sim_from_world"])
    for entry in content["bodies"]:
        mesh = trimesh.load(folder / "meshes" / f"{entry['name']}.obj")
        assert mesh.is_watertight and len(mesh.faces) < 1800
        pose = np.array(entry["world_from_body"][CANONICAL])
        world = transform_points(np.linalg.inv(sim) @ pose, np.asarray(mesh.vertices))
        errors = []
        for link, corners in enumerate(BOXES):
            back = invert_transforms(laptop.world_from_link[link])
            local, (low, high) = transform_points(back, world), np.array(corners)
            outside = np.linalg.norm(local - local.clip(low, high), axis=1)
            inside = np.minimum(local - low, high - local).min(1).clip(0)
            errors.append(np.mean(np.maximum(outside, inside)))
        # 9 mm; a pixel is 13 mm wide at the object.
        assert min(errors) < 0.013 and entry["mesh"]["method"] == "poisson"


def test_up_is_the_normal_of_the_table(content):
    assert content["up"]["from"] == "ground plane"
    np.testing.assert_allclose(content["up"]["direction"], [0, 0, 1], atol=0.01)
    sim = np.array(content["sim_from_world"])
    np.testing.assert_allclose(sim[:3, :3] @ sim[:3, :3].T, np.eye(3), atol=1e-9)


def chained(frames=12):
    """Return an object of five boxes: base, drawer, ball, a box that flies off, a lid; motions."""
    rng = np.random.default_rng(4)
    cameras, _ = true_hinge(frames, CANONICAL)
    time = np.arange(frames) - CANONICAL

    def about(point, rotvecs):
        rotation = Rotation.from_rotvec(rotvecs).as_matrix()
        return Rigid(rotation, point - rotation @ point)

    base = Rigid(np.tile(np.eye(3), (frames, 1, 1)), time[:, None] * [0.01, 0.005, 0.0])
    swing = rng.normal(size=(frames, 3)) * 0.5
    swing[CANONICAL] = 0
    fly = rng.normal(size=(frames, 3)) * 0.4
    fly[CANONICAL] = 0
    away = rng.normal(size=(frames, 3)) * 0.1
    away[CANONICAL] = 0
    flight = about(np.array([-0.3, -0.1, 0.2]), fly)
    own = [
        Rigid.identity(frames),
        Rigid(np.tile(np.eye(3), (frames, 1, 1)), time[:, None] * [0.0, -0.02, 0.0]),
        about(np.array([0.2, 0.0, 0.15]), swing),
        Rigid(flight.rotation, flight.translation + away),
        about(np.array([0.0, 0.15, 0.15]), time[:, None] * [0.1, 0, 0]),
    ]
    corners = [
        ((-0.2, -0.15, 0.0), (0.2, 0.15, 0.15)),
        ((-0.1, -0.25, 0.03), (0.1, -0.15, 0.1)),
        ((0.2, -0.05, 0.1), (0.35, 0.05, 0.2)),
        ((-0.4, -0.15, 0.15), (-0.25, -0.05, 0.25)),
        ((-0.1, 0.15, 0.15), (0.1, 0.17, 0.3)),
    ]
    counts = [6000, 2000, 2000, 2000, 2000]
    points = np.concatenate([box_surface(*c, n, rng) for c, n in zip(corners, counts, strict=True)])
    motions = [base @ motion for motion in own]
    owner = np.repeat(np.arange(5), counts)
    return linked_sequence(points, owner, motions, cameras, flat_table(rng)), motions


def test_every_kind_of_joint_follows_the_clip(tmp_path):
    sequence, motions = chained()
    export_as(sequence, "mjcf", tmp_path, triangles=300, body_tolerance_px=0.5)
    content = json.loads((tmp_path / "manifest.json").read_text())
    kinds = [body["joint"] and body["joint"]["kind"] for body in content["bodies"]]
    assert kinds[0] is None and sorted(kinds[1:]) == ["ball", "free", "hinge", "slider"]
    model = mujoco.MjModel.from_xml_path(str(tmp_path / "scene.xml"))
    assert model.nq == 7 + 1 + 4 + 7 + 1 and model.nexclude == 3  # of the three children
    sim = np.array(content["sim_from_world"])
    data = mujoco.MjData(model)
    poses = {}
    for frame in (CANONICAL, 0, 9):
        data.qpos[:] = content["qpos"][frame]
        mujoco.mj_forward(model, data)
        for number, body in enumerate(content["bodies"]):
            pose = np.eye(4)
            pose[:3, :3], pose[:3, 3] = data.xmat[number + 1].reshape(3, 3), data.xpos[number + 1]
            np.testing.assert_allclose(pose, body["world_from_body"][frame], atol=1e-6)
            poses[number, frame] = pose
    for number in range(5):
        found = poses[number, 9] @ np.linalg.inv(poses[number, 0])
        true = [
            sim @ m.matrix[9] @ np.linalg.inv(m.matrix[0]) @ np.linalg.inv(sim) for m in motions
        ]
        assert min(np.abs(found - candidate).max() for candidate in true) < 1e-3
    (slider,) = [body["joint"] for body in content["bodies"] if (body["joint"] or {}).get(
        "kind") == "slider"]  # fmt: skip
    assert slider["range"][1] - slider["range"][0] == pytest.approx(0.22, abs=1e-3)
    mujoco.mj_resetDataKeyframe(model, data, 0)
    for _ in range(200):
        mujoco.mj_step(model, data)
    assert np.isfinite(data.qpos).all() and not any(w.number for w in data.warning)


@pytest.mark.slow
def test_urdf_of_every_kind_of_joint(tmp_path):
    from xml.etree import ElementTree as ET

    sequence, _ = chained()
    export_as(sequence, "urdf", tmp_path, time=0.0, triangles=300, body_tolerance_px=0.5)
    kinds = {
        path.stem: sorted(joint.get("type") for joint in ET.parse(path).getroot().iter("joint"))
        for path in tmp_path.glob("*.urdf")
    }
    assert kinds.pop("object_1") == ["floating", "prismatic", "revolute"]
    assert list(kinds.values()) == [[]]  # the box that flies off is a file of its own


def test_scale_up_and_one_time(exact, tmp_path, caplog):
    """Two rigid boxes: half the size, up given, without a floor, at one time."""
    export_as(
        exact, "mjcf", tmp_path / "m", units_per_metre=2.0, up="0,0,2", floor=False, time=0.5,
        triangles=400, joints=False,
    )  # fmt: skip
    assert not caplog.records
    content = json.loads((tmp_path / "m" / "manifest.json").read_text())
    sim = np.array(content["sim_from_world"])
    np.testing.assert_allclose(sim[2, :3], [0, 0, 0.5], atol=1e-9)
    assert content["units_per_metre"] == 2 and content["times"] == [0.5]
    model = mujoco.MjModel.from_xml_path(str(tmp_path / "m" / "scene.xml"))
    assert (model.geom_type == mujoco.mjtGeom.mjGEOM_PLANE).sum() == 0 and model.nq == 14
    data = mujoco.MjData(model)
    mujoco.mj_resetDataKeyframe(model, data, 0)
    mujoco.mj_forward(model, data)
    poses = object_poses(exact, np.array([content["key_frame"]]))
    for body, label in ((1, 1), (2, 2)):
        expected = transform_points(sim, poses[label][0, :3, 3][None])[0]
        np.testing.assert_allclose(data.xpos[body], expected, atol=2e-3)
        turned = sim[:3, :3] * 2 @ poses[label][0, :3, :3] @ sim[:3, :3].T * 2
        error = data.xmat[body].reshape(3, 3).T @ turned
        assert np.degrees(Rotation.from_matrix(error).magnitude()) < 0.05
    trimesh = pytest.importorskip("trimesh")
    extents = [trimesh.load(p).extents.max() for p in (tmp_path / "m/meshes").glob("object_?.obj")]
    assert 0.1 < max(extents) < 0.35  # of boxes of up to 0.42 m, written at half the size


def test_a_world_without_scale_is_warned_about(exact, tmp_path, caplog):
    from copy import copy

    arbitrary = copy(exact)
    arbitrary.world_units = "arbitrary"
    options = {"time": 0.0, "objects": "1", "triangles": 400}
    export_as(arbitrary, "mjcf", tmp_path / "a", **options)
    assert sum("--units-per-metre" in record.message for record in caplog.records) == 1
    assert mujoco.MjModel.from_xml_path(str(tmp_path / "a" / "scene.xml")).nq == 7
    caplog.clear()
    export_as(arbitrary, "mjcf", tmp_path / "b", units_per_metre=1.0, **options)
    assert not caplog.records


def test_without_open3d_and_coacd_there_are_filled_voxels_and_hulls(
    exact, tmp_path, caplog, monkeypatch
):
    for name in ("open3d", "coacd"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    export_as(exact, "mjcf", tmp_path, objects="1", time=0.0)
    content = json.loads((tmp_path / "manifest.json").read_text())
    assert [body["mesh"]["method"] for body in content["bodies"]] == ["voxels"]
    text = " ".join(record.message for record in caplog.records)
    assert "meshes are filled voxels" in text and "convex hull is the only collision" in text
    assert mujoco.MjModel.from_xml_path(str(tmp_path / "scene.xml")).ngeom == 3


def test_objects_of_one_gaussian_have_a_hull(tmp_path, caplog):
    sequence = moving_points([[0, 0, 2.0]], np.zeros((1, 3, 3)))
    export_as(sequence, "mjcf", tmp_path)
    content = json.loads((tmp_path / "manifest.json").read_text())
    assert content["bodies"][0]["mesh"]["method"] == "hull"
    assert "closed by their convex hull only" in caplog.text
    assert content["up"]["from"] == "cameras"
    np.testing.assert_allclose(content["up"]["direction"], [0, -1, 0], atol=1e-9)
    model = mujoco.MjModel.from_xml_path(str(tmp_path / "scene.xml"))
    data = mujoco.MjData(model)
    for _ in range(50):
        mujoco.mj_step(model, data)
    assert np.isfinite(data.qpos).all()


def test_without_objects_there_is_nothing_to_simulate(exact, tmp_path):
    import torch

    from msdyn.sequence import Gaussians

    nothing = exact.replaced(
        moving=Gaussians.empty(),
        motion=exact.motion.select(torch.zeros(0).long()),
        labels=torch.zeros(0).long(),
    )
    with pytest.raises(InputError, match="expected at least one moving object"):
        export_as(nothing, "mjcf", tmp_path)


@pytest.mark.parametrize(
    "options, text",
    [
        (["--up", "left"], "--up: expected auto, camera or x,y,z"),
        (["--up", "0,0,0"], "--up: expected a direction"),
        (["--units-per-metre", "0"], "--units-per-metre: expected above 0"),
    ],
)
def test_invalid_options_of_simulation(exact_file, tmp_path, capsys, options, text):
    from commands import exit_code

    arguments = [exact_file, "--format", "mjcf", "--out", str(tmp_path / "m"), *options]
    assert exit_code(export.main, arguments) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and text in lines[0]
