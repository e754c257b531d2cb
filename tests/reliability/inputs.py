"""Small valid inputs of every kind that msdyn reads, and what reads them."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image

# It is also run as a script, where pytest does not set the path.
_TESTS = Path(__file__).resolve().parents[1]
sys.path += [str(_TESTS / name) for name in ("", "evaluate", "feedforward/data", "io")]

import dataset_writers  # noqa: E402
from benchmark_writers import write_nvidia, write_realestate10k, write_tapvid3d  # noqa: E402
from dataset_scene import make_disc  # noqa: E402
from exact_fits import moving_points, save_fit  # noqa: E402
from recording_inputs import (  # noqa: E402
    read_record3d,
    read_robots,
    read_vipe,
    write_recordings,
)
from robots import CAMERA, DEPTH, write_dataset  # noqa: E402

from msdyn import io as files  # noqa: E402
from msdyn.cli import evaluate, preprocess, render  # noqa: E402
from msdyn.errors import InputError  # noqa: E402
from msdyn.feedforward.data.convert import find_converter  # noqa: E402
from msdyn.feedforward.data.library import ClipLibrary  # noqa: E402
from msdyn.feedforward.data.shards import ClipWriter  # noqa: E402
from msdyn.io.nvidia_dynamic import NvidiaScene  # noqa: E402
from msdyn.preprocess.depth.from_files import FileDepth  # noqa: E402
from msdyn.preprocess.frames.sources import open_source  # noqa: E402
from msdyn.preprocess.masks.from_files import FileMasks  # noqa: E402
from msdyn.preprocess.masks.prompts import read_prompts  # noqa: E402
from msdyn.preprocess.tracks.from_files import FileTracks  # noqa: E402
from msdyn.reading import read_torch  # noqa: E402
from msdyn.scene import (  # noqa: E402
    Keypoints,
    RobotEpisode,
    Scene,
    check_scene,
    read_keypoints,
    read_robot,
    save_npz,
    stamp_stage,
    write_keypoints,
    write_robot,
    write_tracks,
)
from msdyn.sequence import load_sequence  # noqa: E402
from msdyn.synthetic import make_scene, render_truth, write_priors  # noqa: E402
from msdyn.view import write_report  # noqa: E402

__all__ = ["Target", "targets", "write_inputs"]

FRAMES, WIDTH, HEIGHT = 4, 64, 48


@dataclass(frozen=True)
class Target:
    """Something that reads files.

    Attributes:
        name: of the kind of input.
        folder: below the inputs, copied before it is damaged.
        files: pattern of the files in it that are damaged.
        read: reads all of the folder that it is given.
        slow: takes more than a tenth of a second.
    """

    name: str
    folder: str
    files: str
    read: Callable[[Path], object]
    slow: bool = False


def write_inputs(base: Path) -> None:
    """Write the inputs of `targets`."""
    truth = render_truth(make_scene("demo", frames=FRAMES, width=WIDTH, height=HEIGHT))
    scene = Scene(write_priors(truth, base / "scene", level="sensor"))
    _stamp(scene)
    times = torch.linspace(-0.2, 0.2, 5)
    points = np.stack([times, times, 2 + times], -1)
    sequence = moving_points(points, np.zeros((5, FRAMES, 3)), scale=0.05)
    save_fit(sequence, base / "scene/fit", holdout_every=3)
    row = {"step": 1, "static": 5, "moving": 5, "seconds": 0.1, "loss": 0.2, "psnr": 20.0}
    (base / "scene/fit/metrics.jsonl").write_text(f"{json.dumps(row)}\n" * 3)
    evaluated = {"frames": {"images": 1, "mpsnr": 20.5, "ssim": None}, "tracks": None}
    (base / "scene/fit/eval.json").write_text(json.dumps(evaluated))
    write_keypoints(
        scene.directory, Keypoints(np.array([0, 2]), np.full((2, 3, 2), 5.0), np.ones((2, 3), bool))
    )
    cameras, names = scene.cameras, [f"{i:05d}.png" for i in range(FRAMES)]
    _write_cameras(base / "cameras", cameras, names, scene)
    files.write_dycheck(scene, base / "dycheck")
    tracks = scene.tracks.select(slice(0, 40))
    (base / "tracks").mkdir()
    xy, visible = tracks.xy.swapaxes(0, 1), tracks.visible.swapaxes(0, 1)
    save_npz(base / "tracks/cotracker.npz", pred_tracks=xy, pred_visibility=visible)
    save_npz(
        base / "tracks/tapvid3d.npz",
        tracks_XYZ=np.concatenate([xy / 60, np.ones((*xy.shape[:2], 1))], -1),
        visibility=visible,
        queries_xyt=np.zeros((len(tracks), 3)),
        fx_fy_cx_cy=np.array([60.0, 60, 32, 24]),
    )
    write_tracks(base / "tracks/msdyn.npz", tracks)
    _write_maps(base, scene)
    _write_videos(base / "videos", scene)
    prompts = [
        {"object": 1, "frame": 0, "points": [[12, 20], [30, 9]], "labels": [1, 0]},
        {"object": 2, "frame": 2, "box": [4, 6, 22, 31]},
    ]
    (base / "prompts").mkdir()
    (base / "prompts/prompts.json").write_text(json.dumps({"prompts": prompts}))
    images = [scene.image(i) for i in range(FRAMES)]
    write_realestate10k(base / "realestate", {"a": (images, cameras)})
    write_nvidia(base / "nvidia", [images[:2]] * 2, cameras[:2], [[scene.mask(0) > 0] * 2] * 2)
    write_tapvid3d(
        base / "clips3d/a.npz", images, cameras, np.ones((3, FRAMES, 3)) * [0.1, 0.1, 2],
        np.ones((3, FRAMES), bool), np.zeros(3), np.full((3, 2), 9.0),
    )  # fmt: skip
    write_recordings(base, images, cameras, scene)
    disc = make_disc()
    for name in DATASETS:
        scene_of = disc
        if name == "tartanair":  # of one camera only
            scene_of = make_disc(2, 640, 480, (320.0, 320.0, 320.0, 240.0))
        getattr(dataset_writers, f"write_{name}")(base / "datasets" / name, scene_of)
    with ClipWriter(base / "shards", image_format="png") as writer:
        for name in ("vkitti2", "pointodyssey"):
            for clip in find_converter(name)(base / "datasets" / name):
                writer.add(clip)
    write_dataset(base / "lerobot", (3, 2))
    columns = {"action": np.zeros((4, 2), np.float32), "note": np.array(["a"] * 4)}
    write_robot(
        base / "robot", RobotEpisode("d", "0", 0, "c", 10.0, ("t",) * 4, {}, columns, "arm")
    )
    (base / "weights").mkdir()
    torch.save({"features.0.weight": torch.zeros(2, 3), "a": [1, "x"]}, base / "weights/a.pth")


def targets() -> list[Target]:
    """Return all that reads the inputs."""
    found = [
        Target("scene", "scene", "*.json", _read_scene),
        Target("images of a scene", "scene", "*/*.png", _read_scene),
        Target("depth of a scene", "scene", "depth/*", _read_scene),
        Target("tracks of a scene", "scene", "tracks.npz", _read_scene),
        Target("views of a scene", "scene", "views/**/*", _read_scene),
        Target("sequence", "scene", "fit/sequence.safetensors", _read_sequence),
        Target("camera file", "cameras", "*.json", _read_camera_files),
        Target("COLMAP binary", "cameras", "colmap_bin/*.bin", _posed("colmap_bin")),
        Target("COLMAP text", "cameras", "colmap_txt/*.txt", _posed("colmap_txt")),
        Target("npz of cameras", "cameras", "*.npz", _read_posed_npz),
        Target("TUM", "cameras", "tum.txt", _read_tum),
        Target("DyCheck", "dycheck", "**/*", _read_dycheck),
        Target("tracks", "tracks", "*.npz", _read_tracks),
        Target("depth maps", "depth", "**/*", _read_depth),
        Target("masks", "masks", "*", _read_masks),
        Target("image folder", "pictures", "*", lambda f: open_source(f, 24.0)),
        Target("flow", "flow", "*.flo", lambda f: files.read_flo(f / "a.flo")),
        Target("video", "videos", "*", _read_videos),
        Target("prompts", "prompts", "*.json", _read_prompts),
        Target("RealEstate10K", "realestate", "**/*", _read_realestate),
        Target("NVIDIA", "nvidia", "**/*", _read_nvidia),
        Target("clip of TAPVid-3D", "clips3d", "*.npz", _read_clip3d),
        Target("shards", "shards", "*", _read_shards),
        Target("recording of Record3D", "record3d", "*", read_record3d),
        Target("results of ViPE", "vipe", "**/*", read_vipe),
        Target("recording of a robot", "robots", "*", lambda f: read_robots(f, HEIGHT, WIDTH)),
        Target("LeRobot", "lerobot", "**/*", _read_lerobot),
        Target("robot of a scene", "robot", "*", read_robot),
        Target("weights", "weights", "*", lambda f: read_torch(f / "a.pth")),
        *(Target(name, f"datasets/{name}", "**/*", _converted(name)) for name in DATASETS),
    ]
    commands = [
        ("--check", preprocess.main, lambda f: ["--check", f]),
        ("render", render.main, lambda f: [f, "--time", "0.4", "--out", f / "r.png"]),
        ("eval", evaluate.main, lambda f: [f, "--no-pictures"]),
    ]
    for name, main, arguments in commands:
        read = _command(main, arguments)
        found.append(Target(f"msdyn {name}", "scene", "**/*", read, slow=True))
    found.append(Target("report of a fit", "scene", "**/*", _report, slow=True))
    return found


DATASETS = (
    *("pointodyssey", "dynamic_replica", "tartanair", "vkitti2", "realestate10k", "spring"),
    "matrixcity",
)


def _stamp(scene: Scene) -> None:
    """Write the records of stages as `msdyn-preprocess` does."""
    options = {
        "source": "clip.mp4", "source_frames": list(range(FRAMES)), "source_frame_count": FRAMES,
        "source_width": WIDTH, "source_height": HEIGHT, "source_start_seconds": 0.0, "shots": 1,
        "timestamps": "true",
    }  # fmt: skip
    record = {"input_hash": "0", "seconds": 1.0}
    stamp_stage(scene.directory, "frames", backend="video", options=options, **record)
    verdict = {"grade": "usable", "reason": "r", "cure": "c"}
    quality = {"motion": "moving", "verdict": verdict, "registered_frames": 4, "frames": 4}
    stamp_stage(scene.directory, "cameras", backend="sfm", options={}, quality=quality, **record)


def _write_cameras(folder: Path, cameras, names, scene: Scene) -> None:
    text = files.write_colmap(folder / "colmap_txt", cameras, names, np.ones((5, 3)))
    (folder / "colmap_bin").mkdir()
    model = files.load_pycolmap().Reconstruction(str(text))
    model.write_binary(str(folder / "colmap_bin"))
    times = np.linspace(0, 1, FRAMES)
    files.write_transforms(folder / "transforms.json", cameras, names, times)
    path = [
        {"camera_to_world": np.eye(4).ravel().tolist(), "fov": 50, "render_time": time}
        for time in times.tolist()
    ]
    content = {"camera_type": "perspective", "render_width": WIDTH, "render_height": HEIGHT}
    (folder / "camera_path.json").write_text(json.dumps(content | {"camera_path": path}))
    (folder / "cameras.json").write_bytes((scene.directory / "cameras.json").read_bytes())
    files.write_tum(folder / "tum.txt", np.arange(FRAMES) / 24, cameras.world_from_cam)
    depth = scene.depths()
    save_npz(
        folder / "megasam.npz", images=scene.images(), depths=depth.astype(np.float16),
        intrinsic=cameras.intrinsics[0], cam_c2w=cameras.world_from_cam,
    )  # fmt: skip
    save_npz(
        folder / "da3.npz", depth=depth, conf=depth, extrinsics=cameras.cam_from_world[:, :3],
        intrinsics=cameras.intrinsics,
    )  # fmt: skip


def _write_maps(base: Path, scene: Scene) -> None:
    import OpenEXR

    for name in ("depth", "masks", "pictures", "flow"):
        (base / name).mkdir()
    depth = np.asarray(scene.depth(0), np.float32)
    np.save(base / "depth/0.npy", depth)
    Image.fromarray((depth * 1000).astype(np.uint16)).save(base / "depth/1.png")
    OpenEXR.File({}, {"Z": depth}).write(str(base / "depth/2.exr"))
    (base / "depth/all").mkdir()
    for frame in range(FRAMES):
        np.save(base / f"depth/all/{frame}.npy", depth)
        Image.fromarray(scene.mask(frame)).save(base / f"masks/{frame}.png")
    for suffix in ("png", "jpg", "bmp", "tif", "webp"):
        Image.fromarray(scene.image(0)).save(base / f"pictures/{suffix}.{suffix}")
    files.write_flo(base / "flow/a.flo", np.zeros((HEIGHT, WIDTH, 2), np.float32))


def _write_videos(folder: Path, scene: Scene) -> None:
    folder.mkdir()
    frames = [scene.image(i % FRAMES) for i in range(6)]
    for name, codec, pixels in (
        ("a.mp4", "libx264", "yuv420p"),
        ("a.mkv", "libx264", "yuv420p"),
        ("a.webm", "libvpx-vp9", "yuv420p"),
        ("a.gif", "gif", "rgb8"),
        ("a.avi", "mpeg4", "yuv420p"),
        ("a.mov", "mjpeg", "yuvj420p"),
    ):
        with av.open(str(folder / name), "w") as container:
            stream = container.add_stream(codec, rate=24)
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pixels
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode(None))


def _read_scene(folder: Path) -> None:
    scene = Scene(folder)
    check_scene(scene)
    read_keypoints(folder)
    for view in scene.views.values():
        assert view.tracks3d is None or len(view.tracks3d.xyz)
        for frame in view.frames:
            view.image(frame)
            view.covisible(frame)


def _read_sequence(folder: Path) -> None:
    sequence = load_sequence(folder)
    sequence.posed(torch.tensor([1.5]))


def _read_camera_files(folder: Path) -> None:
    for path in sorted(folder.glob("*.json")):
        files.read_camera_file(path)
        if path.name != "camera_path.json":
            files.read_posed_images(path)


def _posed(name: str) -> Callable[[Path], object]:
    return lambda folder: files.read_posed_images(folder / name)


def _read_posed_npz(folder: Path) -> None:
    for path in folder.glob("*.npz"):
        files.read_posed_images(path)


def _read_tum(folder: Path) -> None:
    files.read_posed_images(folder / "tum.txt", (60.0, 60.0, 32.0, 24.0), (HEIGHT, WIDTH))


def _read_dycheck(folder: Path) -> None:
    sequence = files.Dycheck(folder)
    for name in sequence.names:
        sequence.image(name)
        sequence.depth(name)
    for view in sequence.views.values():
        for name in view.names.values():
            sequence.covisible(name)
    sequence.keypoints()
    files.read_posed_images(folder)


def _whole_scene(folder: Path) -> Scene:
    return Scene(folder.parent / "base/scene")


def _read_tracks(folder: Path) -> None:
    for path in folder.glob("*.npz"):
        FileTracks(path).track(_whole_scene(folder))


def _read_depth(folder: Path) -> None:
    scene = _whole_scene(folder)
    for path in sorted(folder.glob("[0-9].*")):
        files.read_depth_map(path)
    for _ in FileDepth(folder / "all").estimate(scene, None, None, None).maps:
        pass


def _read_masks(folder: Path) -> None:
    scene = _whole_scene(folder)
    for _ in FileMasks(folder).segment(scene, scene.tracks, None).masks:
        pass


def _read_videos(folder: Path) -> None:
    for path in folder.iterdir():
        count = len(files.scan_video(path, thumbnail_side=160).seconds)
        for _ in files.read_video(path, range(min(count, 3))):
            pass


def _read_prompts(folder: Path) -> None:
    read_prompts(folder / "prompts.json", _whole_scene(folder))


def _read_realestate(folder: Path) -> None:
    for clip in files.RealEstate10K(folder).clips():
        for frame in range(len(clip)):
            clip.image(frame)


def _read_nvidia(folder: Path) -> None:
    scene = NvidiaScene(folder)
    for frame in range(scene.frames):
        scene.image(frame)
        scene.moving(frame, 0)


def _read_clip3d(folder: Path) -> None:
    clip = files.read_tapvid3d_clip(folder / "a.npz")
    for frame in range(len(clip)):
        clip.image(frame)


def _read_lerobot(folder: Path) -> None:
    dataset = files.LeRobotDataset(folder)
    assert isinstance(dataset.tasks, dict)
    for episode in dataset.episodes():
        table = dataset.frames(episode)
        for name in table.column_names:
            files.column_values(table, name)
        files.find_calibration(dataset, table, CAMERA)
        segment = dataset.video_segment(episode, CAMERA)
        list(files.read_video(segment.path, segment=segment.window))
        codes = files.depth_codes(dataset.info.features[DEPTH], DEPTH)
        list(files.read_depth_segment(dataset.video_segment(episode, DEPTH), codes))


def _read_shards(folder: Path) -> None:
    library = ClipLibrary(folder)
    for entry in library.entries:
        clip = library.clip(entry.key).clip()
        for frame in range(len(clip.times)):
            clip.frame(frame)


def _converted(name: str) -> Callable[[Path], object]:
    def read(folder: Path) -> None:
        for clip in find_converter(name)(folder):
            for frame in range(len(clip)):
                clip.frame(frame)

    return read


def _command(main: Callable, arguments: Callable[[Path], list]) -> Callable[[Path], object]:
    """Return what runs a command, which ends with 0, 2 or 3 and at most one line of error."""

    def read(folder: Path) -> None:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = main([str(argument) for argument in arguments(folder)])
            except SystemExit as end:
                code = end.code
        errors = [line for line in err.getvalue().splitlines() if line.startswith("error: ")]
        if code not in (0, 2, 3) or (code == 2) != (len(errors) == 1):
            raise RuntimeError(f"exit {code}, {err.getvalue()[-300:]!r}")
        if code == 2:
            raise InputError(errors[0])

    return read


def _report(folder: Path) -> None:
    write_report(Scene(folder))
