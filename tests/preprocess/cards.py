"""Scenes of flat textured cards, rendered exactly: a card's picture is a homography of its texture.

Depth, masks and tracks are in closed form, and none of the code under test is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from msdyn.geometry import Cameras
from msdyn.scene import Scene, Timeline, Tracks, create_scene, frame_path, write_image

TEXELS = 400  # side of a texture


@dataclass(frozen=True)
class Card:
    """A rectangle with a texture.

    Attributes:
        width, height: scene units.
        world_from_card: [T, 4, 4]; the card is the plane z = 0 about its origin, x right, y down.
        label: 0 static, 1.. an object.
        seed: of its texture.
        grain: texels, the finest detail.
    """

    width: float
    height: float
    world_from_card: np.ndarray
    label: int = 0
    seed: int = 0
    grain: float = 4.0

    def texture(self) -> np.ndarray:
        """[TEXELS, TEXELS, 3] uint8, noise at several scales."""
        rng = np.random.default_rng(self.seed)
        total = np.zeros((TEXELS, TEXELS, 3))
        for scale in (1, 2, 4, 8, 16):
            side = max(int(TEXELS / (self.grain * scale)), 2)
            noise = rng.normal(size=(side, side, 3)).astype(np.float32)
            total += cv2.resize(noise, (TEXELS, TEXELS), interpolation=cv2.INTER_CUBIC)
        tint = rng.uniform(90, 165, 3)
        return np.clip(tint + 28 * total, 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Rendered:
    """Images [T, H, W, 3] uint8, depths [T, H, W] float64 (0: nothing), labels [T, H, W] uint8."""

    images: np.ndarray
    depths: np.ndarray
    labels: np.ndarray


def placed(
    x: float, y: float, z: float, *, yaw: float = 0.0, pitch: float = 0.0, frames: int = 1
) -> np.ndarray:
    """Return a pose [frames, 4, 4]: turned by degrees about y, then about x, and moved."""
    yaw, pitch = np.radians(yaw), np.radians(pitch)
    about_y = [[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]]
    about_x = [[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]]
    pose = np.eye(4)
    pose[:3, :3] = np.array(about_x) @ np.array(about_y)
    pose[:3, 3] = x, y, z
    return np.tile(pose, (frames, 1, 1))


def room_of_cards(frames: int) -> list[Card]:
    """Return the walls and furniture of a room, and one card that moves."""
    mover = np.concatenate(
        [placed(-0.5 + 0.08 * i, 0.25, 2.9, yaw=5 * i - 30) for i in range(frames)]
    )
    return [
        Card(9, 7, placed(0, 0, 5, frames=frames), seed=1),
        Card(6, 5, placed(0, 1.1, 3.2, pitch=75, frames=frames), seed=2),
        Card(1.0, 1.2, placed(-1.2, -0.2, 3.2, yaw=20, frames=frames), seed=3),
        Card(0.8, 1.0, placed(1.1, 0.1, 2.8, yaw=-15, frames=frames), seed=4),
        Card(0.8, 0.9, mover, label=1, seed=9),
    ]


def render(cards: list[Card], cameras: Cameras) -> Rendered:
    """Render cards into every camera."""
    frames, height, width = len(cameras), cameras.height, cameras.width
    images = np.zeros((frames, height, width, 3), np.uint8)
    depths = np.full((frames, height, width), np.inf)
    labels = np.zeros((frames, height, width), np.uint8)
    ys, xs = np.mgrid[0:height, 0:width] + 0.5
    half = np.array([[1, 0, -0.5], [0, 1, -0.5], [0, 0, 1]])
    for card in cards:
        texture = card.texture()
        card_from_texel = np.array(
            [
                [card.width / TEXELS, 0, card.width * (0.5 / TEXELS - 0.5)],
                [0, card.height / TEXELS, card.height * (0.5 / TEXELS - 0.5)],
                [0, 0, 1],
            ]
        )
        for frame in range(frames):
            pose = cameras.cam_from_world[frame] @ card.world_from_card[frame]
            k = cameras.intrinsics[frame]
            pixel_from_card = k @ pose[:3][:, [0, 1, 3]]
            picture = cv2.warpPerspective(
                texture, half @ pixel_from_card @ card_from_texel, (width, height)
            )
            rays = np.stack([xs, ys, np.ones_like(xs)], -1) @ np.linalg.inv(k).T
            normal = pose[:3, 2]
            depth = (normal @ pose[:3, 3]) / (rays @ normal)
            at = (rays * depth[..., None] - pose[:3, 3]) @ pose[:3, :2]
            on = (np.abs(at) < [card.width / 2, card.height / 2]).all(-1) & (depth > 0)
            nearer = on & (depth < depths[frame])
            images[frame][nearer] = picture[nearer]
            depths[frame][nearer] = depth[nearer]
            labels[frame][nearer] = card.label
    return Rendered(images, np.where(np.isfinite(depths), depths, 0), labels)


def write_frames(directory: Path, images: np.ndarray) -> Scene:
    """Write a scene directory that holds frames alone."""
    frames, height, width = images.shape[:3]
    timeline = Timeline.uniform(frames, 24)
    create_scene(directory, width=width, height=height, fps=24, timeline=timeline)
    for frame, image in enumerate(images):
        write_image(frame_path(directory / "images", frame, ".png"), image)
    return Scene(directory)


def card_tracks(cards: list[Card], cameras: Cameras, rendered: Rendered, side: int) -> Tracks:
    """Return exact tracks of a grid of `side` x `side` points on each card."""
    u = (np.arange(side) + 0.5) / side - 0.5
    xy, visible, labels = [], [], []
    for card in cards:
        grid = np.stack(np.meshgrid(u * card.width, u * card.height), -1).reshape(-1, 2)
        points = np.concatenate([grid, np.zeros((len(grid), 1)), np.ones((len(grid), 1))], 1)
        local = cameras.cam_from_world @ card.world_from_card @ points.T  # [T, 4, P]
        pixel = cameras.intrinsics @ local[:, :3]
        at = (pixel[:, :2] / pixel[:, 2:]).transpose(2, 0, 1)  # [P, T, 2]
        inside = (at >= 0).all(-1) & (at < [cameras.width, cameras.height]).all(-1)
        column, row = np.where(inside[..., None], at, 0).astype(int).transpose(2, 0, 1)
        depth = local[:, 2].T
        seen = np.abs(rendered.depths[np.arange(len(cameras)), row, column] / depth - 1) < 0.02
        xy.append(np.where(inside[..., None], at, 0))
        visible.append(inside & seen)
        labels.append(np.full(len(grid), card.label))
    seen_at_all = np.concatenate(visible).any(1)
    shown = np.concatenate(visible)[seen_at_all]
    return Tracks.from_dense(
        np.concatenate(xy)[seen_at_all],
        shown,
        shown.astype(np.float32),
        np.concatenate(labels)[seen_at_all],
        shown.argmax(1),
    )


def sliding_cameras(frames: int, focal: float, width: int, height: int, reach: float) -> Cameras:
    """Cameras on a sideways path of length `reach`, with small vertical motion and rotation."""
    s = np.linspace(-0.5, 0.5, frames)
    poses = np.concatenate(
        [
            placed(
                reach * a, 0.12 * reach * np.cos(7 * a), 0.1 * reach * a, yaw=-6 * a, pitch=2 * a
            )
            for a in s
        ]
    )
    return Cameras.pinhole(focal, width, height, np.linalg.inv(poses))
