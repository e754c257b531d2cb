"""Small LeRobot datasets whose images hold their own number, for tests."""

import json

import numpy as np
import pyarrow.parquet as pq

from msdyn.io import (
    DepthCodes,
    LeRobotDataset,
    LeRobotWriter,
    column_values,
    depth_codes,
    read_depth_segment,
    scan_video,
    video_feature,
)

FPS = 10
LENGTHS = (5, 9, 4)
SIZE = (32, 64)
CAMERA = "observation.images.front"
DEPTH = "observation.images.front_depth"
CODES = DepthCodes()
FEATURES = {
    "observation.state": {"dtype": "float32", "shape": [3], "names": ["x", "y", "grip"]},
    "action": {"dtype": "float32", "shape": [2], "names": {"motors": ["a", "b"]}},
    "next.done": {"dtype": "bool", "shape": [1], "names": None},
    "observation.intrinsics.front": {"dtype": "float32", "shape": [3, 3], "names": None},
    "note": {"dtype": "string", "shape": [1], "names": None},
    CAMERA: video_feature(*SIZE, FPS),
    "observation.images.side": video_feature(*SIZE, FPS),
    DEPTH: video_feature(*SIZE, FPS, depth=CODES),
}


def number_image(number):
    """Return an image whose left columns are the bits of a number, black or white."""
    bits = [(number >> bit) & 1 for bit in range(8)]
    image = np.full((*SIZE, 3), 128, np.uint8)
    for bit, value in enumerate(bits):
        image[:, 8 * bit : 8 * bit + 8] = 255 * value
    return image


def number_of(image):
    """Return the number in an image of `number_image`, after compression."""
    return sum(int(image[:, 8 * bit + 2 : 8 * bit + 6].mean() > 128) << bit for bit in range(8))


def depth_image(number):
    """Return depth in metres that depends on a number; unknown in a corner."""
    depth = np.linspace(0.2, 4, SIZE[0] * SIZE[1], dtype=np.float32).reshape(SIZE)
    depth += np.float32(0.01) * number
    depth[:4, :4] = 0
    return depth


def episode_columns(length, seed):
    rng = np.random.default_rng(seed)
    return {
        "observation.state": rng.normal(size=(length, 3)).astype(np.float32),
        "action": rng.normal(size=(length, 2)).astype(np.float32),
        "next.done": np.arange(length) == length - 1,
        "observation.intrinsics.front": np.stack(
            [np.diag([60 + k, 61, 1]) for k in range(length)]
        ).astype(np.float32),
        "note": np.array([f"frame {k}" for k in range(length)]),
    }


def add(writer, length, first, seed, task="pick"):
    """Append an episode whose images have the numbers from `first`; return its columns."""
    columns = episode_columns(length, seed)
    numbers = range(first, first + length)
    writer.add_episode(
        columns,
        {
            CAMERA: (number_image(n) for n in numbers),
            "observation.images.side": (number_image(255 - n) for n in numbers),
            DEPTH: (depth_image(n) for n in numbers),
        },
        task,
    )
    return columns


def write_dataset(root, lengths=(5, 9, 4)):
    """Write a dataset and return the columns of its episodes."""
    columns, first = [], 0
    with LeRobotWriter(root, FEATURES, FPS, robot_type="arm") as writer:
        for seed, length in enumerate(lengths):
            columns.append(add(writer, length, first, seed, task=["pick", "place"][seed % 2]))
            first += length
    return columns


def edit_info(root, change):
    path = root / "meta/info.json"
    info = json.loads(path.read_text())
    change(info)
    path.write_text(json.dumps(info))


def rewrite(path, change):
    """Replace a parquet file by the change of its table."""
    pq.write_table(change(pq.read_table(path)), path)


def read_everything(root):
    dataset = LeRobotDataset(root)
    assert dataset.tasks
    for episode in dataset.episodes():
        table = dataset.frames(episode)
        [column_values(table, name) for name in table.column_names]
        segment = dataset.video_segment(episode, CAMERA)
        scan_video(segment.path, segment=segment.window)
        depth = dataset.video_segment(episode, DEPTH)
        list(read_depth_segment(depth, depth_codes(dataset.info.features[DEPTH], DEPTH)))
