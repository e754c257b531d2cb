"""A robot dataset in and out: novel views, object poses and tracks for an episode, checked.

python examples/robot_demo.py out [episodes] [motion]

Makes a LeRobotDataset of synthetic episodes (out/pick), preprocesses and fits each with the cameras
and depth of the dataset (out/scene_0, ...), exports all to one LeRobotDataset (out/augmented), and
prints how far poses, tracks and novel views are from the truth. The masks of the objects are the
true ones, as a network with clicks would give them; with "motion" they are estimated by motion,
which takes what the hand holds for a part of it. Minutes per episode on two cores.
"""

import dataclasses
import sys
from pathlib import Path

import numpy as np

from msdyn.cli import export, fit, preprocess
from msdyn.geometry import Cameras, invert_transforms
from msdyn.io import LeRobotDataset, column_values, read_video
from msdyn.scene import write_mask
from msdyn.synthetic import (
    Manipulation,
    Truth,
    make_manipulation,
    render_truth,
    without_views,
    write_manipulations,
)


def main(out: str, episodes: str = "1", masks: str = "files") -> int:
    folder, count = Path(out), int(episodes)
    made = [without_views(make_manipulation(seed=seed)) for seed in range(count)]
    truths = [render_truth(episode.spec, progress=True) for episode in made]
    dataset = folder / "pick"
    if not dataset.exists():
        write_manipulations(dataset, list(zip(made, truths, strict=True)))
    for index in range(count):
        scene = str(folder / f"scene_{index}")
        given = ["--from", "lerobot", str(dataset), "--episode", str(index)]
        given += ["--out", scene, "--preset", "offline", "--masks", masks]
        if masks == "files":
            for frame, mask in enumerate(truths[index].clip.masks):
                write_mask(folder / f"true_{index}", frame, mask)
            given += ["--masks-path", str(folder / f"true_{index}" / "masks")]
        code = preprocess.main(given)
        code = code or fit.main([scene, "--preset", "quick"])
        novel = ["--format", "lerobot", "--out", str(folder / "augmented")]
        code = code or export.main([scene, *novel, *(["--append"] if index else [])])
        if code:
            return code
    augmented = LeRobotDataset(folder / "augmented")
    for index, (episode, truth) in enumerate(zip(made, truths, strict=True)):
        report(augmented, index, episode, truth)
    return 0


def report(dataset: LeRobotDataset, index: int, episode: Manipulation, truth: Truth) -> None:
    """Print the errors of an exported episode."""
    row = dataset.episode(index)
    table = dataset.frames(row)
    columns = {name: column_values(table, name) for name in table.column_names}
    same = all((columns[n] == v).all() for n, v in
               {"observation.state": episode.state, "action": episode.action}.items())  # fmt: skip
    print(f"episode {index}: states and actions {'untouched' if same else 'CHANGED'}")

    def video(name: str) -> np.ndarray:
        segment = dataset.video_segment(row, name)
        return np.stack(list(read_video(segment.path, segment=segment.window)))

    for name in [n for n in columns if n.startswith("observation.object_pose.")]:
        mask = video(f"observation.masks.front.{name.rsplit('.', 1)[1]}")[..., 0] > 128
        true = {label: truth.clip.masks == label for label in episode.poses}
        overlap = {k: (mask & own).sum() / (mask | own).sum() for k, own in true.items()}
        label = max(overlap, key=overlap.__getitem__)
        print(f"  {name}: {('hand', 'block')[label - 1]} (overlap {overlap[label]:.2f}),",
              pose_error(columns[name].astype(float), episode.poses[label]))  # fmt: skip
    print("  tracks:", track_error(columns, truth))
    for name in sorted(n for n in columns if n.startswith("observation.supported.")):
        view = name.rsplit(".", 1)[1]
        k = columns[f"observation.intrinsics.{view}"].astype(float)
        poses = invert_transforms(columns[f"observation.extrinsics.{view}"].astype(float))
        cameras = Cameras(k, poses, truth.spec.width, truth.spec.height)
        true = render_truth(dataclasses.replace(truth.spec, cameras=cameras)).clip.images
        square = (video(f"observation.images.{view}") / 255.0 - true / 255.0) ** 2
        known = video(f"observation.masks.{view}.supported")[..., 0] > 128
        psnr = [-10 * np.log10(part.mean()) for part in (square[known], square[~known], square)]
        print(f"  {view}: {known.mean():.1%} supported; PSNR {psnr[0]:.1f} dB there, "
              f"{psnr[1]:.1f} dB elsewhere, {psnr[2]:.1f} dB in all")  # fmt: skip


def pose_error(values: np.ndarray, true: np.ndarray) -> str:
    """Return the error of the motion since the first frame, at the object's true origin."""
    from scipy.spatial.transform import Rotation

    poses = np.tile(np.eye(4), (len(values), 1, 1))
    poses[:, :3, :3] = Rotation.from_quat(values[:, 3:]).as_matrix()
    poses[:, :3, 3] = values[:, :3]
    motion = poses @ invert_transforms(poses[:1])
    expected = true @ invert_transforms(true[:1])
    moved = np.linalg.norm((motion - expected) @ true[0, :, 3], axis=1)
    relative = Rotation.from_matrix(motion[:, :3, :3] @ expected[:, :3, :3].swapaxes(1, 2))
    path = np.linalg.norm(np.diff(true[:, :3, 3], axis=0), axis=1).sum()
    return (f"position off by {1000 * np.median(moved):.0f} mm (median; "
            f"path {1000 * path:.0f} mm), rotation by "
            f"{np.rad2deg(np.median(relative.magnitude())):.1f} degrees")  # fmt: skip


def track_error(columns: dict[str, np.ndarray], truth: Truth) -> str:
    """Return how far tracks move from where the nearest true surface points move."""
    xyz = columns["observation.tracks.xyz"].astype(float)
    visible, objects = columns["observation.tracks.visible"], columns["observation.tracks.object"]
    errors: dict[bool, list[float]] = {True: [], False: []}
    for track in range(xyz.shape[1]):
        if not visible[:, track].any():
            continue
        frame = int(np.argmax(visible[:, track]))
        seen = np.flatnonzero(truth.tracks.visible[:, frame])
        distance = np.linalg.norm(truth.tracks.xyz[seen, frame] - xyz[frame, track], axis=1)
        nearest = truth.tracks.xyz[seen[np.argmin(distance)]]
        error = (xyz[:, track] - xyz[frame, track]) - (nearest - nearest[frame])
        errors[bool(objects[0, track] > 0)].append(float(np.linalg.norm(error, axis=1).mean()))
    return ", ".join(
        f"{len(e)} {'moving' if moving else 'static'}, off by {1000 * np.median(e):.0f} mm (median)"
        for moving, e in errors.items() if e
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
