"""Where moving pixels lose from fitted to held-out frames: motion, exposure, or the rest.

    msdyn-fit scene --preset quick --epochs 12 --holdout-every 8
    python tools/held_out_frames.py scene

prints the PSNR of the moving pixels of some held-out and some fitted frames, in dB:

    rendered        as msdyn-eval does
    exposure        after one gain and offset of each channel, fitted to the frame
    neighbours      no model: the mean of both neighbouring frames, each warped by half their flow
    interpolated    the motion of the frame interpolated from other key frames
    objects, all    and then fitted to the frame: of the first level, of all; nothing else changes
    smoothed        all key frames averaged with their neighbours (1/4, 1/2, 1/4)
    longer lives    of Gaussians that do not exist always, by half a frame at both ends
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from msdyn.geometry import sixd_from_rotations
from msdyn.motion import MotionField
from msdyn.motion.pattern_field import PatternField
from msdyn.preprocess.imaging.flow import estimate_flow, grey
from msdyn.render import draw
from msdyn.scene import IGNORE, Scene
from msdyn.sequence import GaussianSequence, load_sequence

_NAMES = ("rendered", "exposure", "neighbours", "interpolated", "objects", "all", "smoothed")
_NAMES = (*_NAMES, "longer lives")


def _psnr(image: np.ndarray, truth: np.ndarray, moving: np.ndarray) -> float:
    return float(-10 * np.log10(np.square(image - truth)[moving].mean()))


class _Frames:
    """The frames of a clip beside renderings of its sequence."""

    def __init__(self, scene: Scene, sequence: GaussianSequence) -> None:
        self.scene, self.sequence = scene, sequence
        self.field = sequence.motion
        if not isinstance(self.field, MotionField) or self.field.residual is not None:
            raise SystemExit("expected a fit of --motion hierarchy or single, without --levels 4")
        self.patterns, self.weights = self.field.patterns, self.field.weights

    def truth(self, frame: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the frame and its moving pixels, in the size of the fit."""
        import cv2

        size = (self.sequence.cameras.width, self.sequence.cameras.height)
        image = self.scene.image(frame).astype(np.float32) / 255
        mask = cv2.resize(self.scene.mask(frame), size, interpolation=cv2.INTER_NEAREST)
        return cv2.resize(image, size, interpolation=cv2.INTER_AREA), (mask > 0) & (mask < IGNORE)

    def draw(self, frame: int, patterns: PatternField | None = None, key: int | None = None):
        """Render a frame [H, W, 3], with other patterns, at their key frame of a number."""
        self.sequence.motion = MotionField(patterns or self.patterns, self.weights)
        keys = None if key is None else torch.tensor([key])
        posed = self.sequence.posed(torch.tensor([float(frame)]), keys=keys)
        camera = self.sequence.cameras[frame].tensors()
        return draw(posed, camera, depth=False).features[0, ..., :3]

    @torch.no_grad()
    def interpolated(self, frame: int) -> PatternField:
        """Return two key frames with the motion at a frame, interpolated from other key frames."""
        own, levels = self.patterns, range(self.patterns.num_levels)
        keep = own.key_frames != frame
        others = _with_keys(
            own, [v[:, keep] for v in own.sixd], [v[:, keep] for v in own.translations],
            own.key_frames[keep],
        )  # fmt: skip
        at = [others.at(level, torch.tensor([float(frame)])) for level in levels]
        return _with_keys(
            own,
            [sixd_from_rotations(v.rotation).expand(-1, 2, -1).clone() for v in at],
            [v.translation.expand(-1, 2, -1).clone() for v in at],
            torch.tensor([0.0, 1.0]),
        )

    def refined(self, frame: int, levels: int, steps: int) -> np.ndarray:
        """Return the rendering after fitting the motion of some levels to a frame."""
        import cv2

        image, moving = self.truth(frame)
        near = torch.from_numpy(cv2.dilate(moving.astype(np.uint8), np.ones((9, 9))) > 0)
        truth, patterns = torch.from_numpy(image), self.interpolated(frame)
        depth = self.sequence.cameras[frame].centres[0] - self.sequence.moving.means.numpy()
        metre = float(np.median(np.linalg.norm(depth, axis=-1)))
        optimiser = torch.optim.Adam(
            [
                {"params": list(patterns.sixd[:levels]), "lr": 7e-4},
                {"params": list(patterns.translations[:levels]), "lr": 4e-4 * metre},
            ]
        )
        decay = torch.optim.lr_scheduler.ExponentialLR(optimiser, 0.95)
        for _ in range(steps):
            optimiser.zero_grad()
            (self.draw(frame, patterns, 0) - truth).abs()[near].mean().backward()
            optimiser.step()
            decay.step()
        return _array(self.draw(frame, patterns, 0))

    def neighbours(self, frame: int) -> np.ndarray:
        """Return the mean of both neighbouring frames, each warped by half their optical flow."""
        import cv2

        images = [self.truth(frame + step)[0] for step in (-1, 1)]
        pair = estimate_flow(*(grey((255 * image).astype(np.uint8)) for image in images))
        height, width = pair.first.shape
        grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).astype(np.float32)
        warped = []
        for image, flow in zip(images, (pair.forward, pair.backward), strict=True):
            x, y = np.moveaxis(grid - flow / 2, -1, 0)
            edge = cv2.BORDER_REPLICATE
            warped.append(cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=edge))
        return np.mean(warped, 0)


def _with_keys(
    like: PatternField, sixd: list[Tensor], translations: list[Tensor], keys: Tensor
) -> PatternField:
    levels = range(like.num_levels)
    return PatternField(
        [like.centres(i) for i in levels], sixd, translations, [like.parents(i) for i in levels],
        keys, like.objects, like.interpolation,
    )  # fmt: skip


def _smoothed(own: PatternField) -> PatternField:
    def smooth(values: Tensor) -> Tensor:
        inner = values[:, 1:-1] / 2 + (values[:, :-2] + values[:, 2:]) / 4
        return torch.cat([values[:, :1], inner, values[:, -1:]], dim=1)

    levels = range(own.num_levels)
    return own.with_poses(
        [smooth(own.sixd[i].detach()) for i in levels],
        [smooth(own.translations[i].detach()) for i in levels],
    )


def _array(image: Tensor) -> np.ndarray:
    return image.detach().numpy().clip(0, 1)


def _exposed(image: np.ndarray, truth: np.ndarray, moving: np.ndarray) -> np.ndarray:
    """Return an image after the gain and offset of each channel that fit the truth best."""
    channels = [np.polyfit(image[moving][:, i], truth[moving][:, i], 1) for i in range(3)]
    return np.stack([np.polyval(fit, image[..., i]) for i, fit in enumerate(channels)], -1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("scene", type=Path)
    parser.add_argument("--fit", type=Path, help="its folder; `fit` in the scene by default")
    parser.add_argument("--frames", type=int, default=6, help="of both kinds, evenly spaced")
    parser.add_argument(
        "--steps", type=int, default=25, help="of Adam, to fit the motion of a frame"
    )
    args = parser.parse_args()
    sequence = load_sequence(args.fit or args.scene)
    sequence.requires_grad_(False)
    frames = _Frames(Scene(args.scene), sequence)
    keys = sequence.motion.key_frames.int().tolist()
    inner = range(keys[0] + 1, keys[-1])
    lives = sequence.moving.life_spans
    print(f"{'':11}" + "".join(f"{name:>14}" for name in _NAMES), flush=True)
    for kind in ("held out", "fitted"):
        chosen = [f for f in inner if (f in keys) == (kind == "fitted")]
        spaced = np.linspace(0, len(chosen) - 1, min(args.frames, len(chosen)))
        rows = []
        for frame in (chosen[i] for i in spaced.round().astype(int)):
            truth, moving = frames.truth(frame)
            image = _array(frames.draw(frame))
            images = [image, _exposed(image, truth, moving), frames.neighbours(frame)]
            images.append(_array(frames.draw(frame, frames.interpolated(frame), 0)))
            images += [
                frames.refined(frame, n, args.steps) for n in (1, frames.patterns.num_levels)
            ]
            images.append(_array(frames.draw(frame, _smoothed(frames.patterns))))
            if lives is not None:
                lives += torch.tensor([-0.5, 0.5])
                images.append(_array(frames.draw(frame)))
                lives -= torch.tensor([-0.5, 0.5])
            rows.append([_psnr(v, truth, moving) for v in images])
            print(f"{frame:11}" + "".join(f"{v:14.2f}" for v in rows[-1]), flush=True)
        print(f"{kind:11}" + "".join(f"{v:14.2f}" for v in np.mean(rows, 0)), flush=True)


if __name__ == "__main__":
    main()
