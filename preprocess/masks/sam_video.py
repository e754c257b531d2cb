"""SAM 2.1 and EdgeTAM through transformers: masks that follow prompted objects through a video.

The processors of transformers need torchvision; what they do (resize, normalise, scale the prompts,
enlarge the masks) is a few lines here.

Reference: Ravi et al., "SAM 2: Segment Anything in Images and Videos", 2024; Zhou et al.,
"EdgeTAM: On-Device Track Anything Model", CVPR 2025.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from msdyn.preprocess.checkpoints.huggingface import licence_of, load_pretrained
from msdyn.preprocess.checkpoints.placement import Placement, network_input, place
from msdyn.preprocess.contracts import CameraSolution
from msdyn.preprocess.masks.motion import MotionMasks
from msdyn.preprocess.masks.prompts import Prompt, prompts_from_masks, read_prompts
from msdyn.preprocess.progress import progress
from msdyn.scene import STATIC, Scene, Tracks, frame_path

__all__ = ["SAM_MODELS", "SamMasks"]

SamModel = Literal["sam2", "edgetam"]
SAM_MODELS: dict[SamModel, str] = {
    "sam2": "facebook/sam2.1-hiera-tiny",
    "edgetam": "yonigozlan/EdgeTAM-hf",
}
"""Backends and the checkpoint of each."""

_ARCHITECTURES: dict[SamModel, str] = {"sam2": "Sam2Video", "edgetam": "EdgeTamVideo"}
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_MEGABYTES = 1500.0
_BOX_CORNERS = (2, 3)  # the labels of a box's corners among the points


@dataclass(frozen=True)
class SamMasks:
    """Masks by a video segmentation network, told what to follow by the user or by motion."""

    name: SamModel
    model: str
    """A name on the hub, or a folder."""
    path: Path | None = None
    """The user's prompts; without, objects are those that `MotionMasks` finds."""
    offline: bool = field(default=False, metadata={"option": False})

    @property
    def licence(self) -> str:
        return licence_of(self.model)

    def segment(
        self, scene: Scene, tracks: Tracks, solution: CameraSolution | None
    ) -> tuple[Iterator[np.ndarray], dict[str, Any]]:
        """Return the masks, and figures that are complete when the last mask has been taken.

        Where motion needs the cameras to tell what moves, and they are not known yet, the masks
        are those of motion: the network is asked once they are.

        Raises:
            InputError: the checkpoint cannot be loaded, or the prompts are not as they should be.
        """
        if self.path is not None:
            prompts = read_prompts(self.path, scene)
            quality: dict[str, Any] = {"prompted_by": "file"}
        else:
            motion, quality = MotionMasks().segment(scene, tracks, solution)
            if solution is None and quality["needs_cameras"]:
                return motion, quality
            prompts = prompts_from_masks(motion)
            quality |= {"prompted_by": "motion", "better_with_cameras": False}
        quality["prompts"] = len(prompts)
        return self._masks(scene, prompts, quality), quality

    def _masks(
        self, scene: Scene, prompts: list[Prompt], quality: dict[str, Any]
    ) -> Iterator[np.ndarray]:
        if not prompts:
            yield from (np.full(scene.size, STATIC, np.uint8) for _ in range(len(scene)))
            return
        tracker = _Tracker(self.name, self.model, scene, offline=self.offline)
        quality |= tracker.placement.record
        with tempfile.TemporaryDirectory(prefix="msdyn-masks-") as name:
            folder = Path(name)
            for frame, mask in progress(tracker.follow(prompts), "masks", total=len(scene)):
                np.save(frame_path(folder, frame, ".npy"), mask)
            shares = []
            for frame in range(len(scene)):
                mask = np.load(frame_path(folder, frame, ".npy"))
                shares.append(float((mask > 0).mean()))
                quality["moving_share"] = round(float(np.mean(shares)), 4)
                yield mask


class _Frames(dict):
    """The frames as the network takes them, read when asked for; looks like the session's dict."""

    def __init__(self, scene: Scene, side: tuple[int, int], placement: Placement) -> None:
        super().__init__()
        self._scene, self._side, self._placement = scene, side, placement

    def __len__(self) -> int:
        return len(self._scene)

    def __getitem__(self, frame: int) -> Any:
        image = self._scene.image(frame)[None]
        return network_input(image, self._side, _MEAN, _STD, self._placement)[0]


class _Tracker:
    """A network and its memory of the objects of one scene."""

    def __init__(self, name: SamModel, model: str, scene: Scene, *, offline: bool) -> None:
        import torch
        import transformers

        architecture = _ARCHITECTURES[name]
        self._network = load_pretrained(f"{architecture}Model", model, offline=offline)
        self.placement = place(self._network, _MEGABYTES)
        self._scene = scene
        side = self._network.config.image_size
        self._side = (side, side) if isinstance(side, int) else tuple(side)
        session = getattr(transformers, f"{architecture}InferenceSession")(
            video_height=scene.info.height,
            video_width=scene.info.width,
            inference_device=self.placement.device,
            inference_state_device=self.placement.device,
            dtype=torch.float16 if self.placement.half else torch.float32,
        )
        session.processed_frames = _Frames(scene, self._side, self.placement)
        self._session = session
        config = self._network.config
        self._memory = max(config.num_maskmem, config.max_object_pointers_in_encoder)

    def follow(self, prompts: list[Prompt]) -> Iterator[tuple[int, np.ndarray]]:
        """Yield each frame's index and mask [H, W] uint8, from the first prompt on, then before."""
        first = min(prompt.frame for prompt in prompts)
        for frame in sorted({prompt.frame for prompt in prompts}):
            own = [prompt for prompt in prompts if prompt.frame == frame]
            self._tell(own)
            self._network(inference_session=self._session, frame_idx=frame)
        for backward in (False, True):
            for output in self._network.propagate_in_video_iterator(
                self._session, start_frame_idx=first, reverse=backward
            ):
                self._forget(output.frame_idx, first)
                if not (backward and output.frame_idx == first):
                    yield output.frame_idx, self._paint(output)

    def _tell(self, prompts: list[Prompt]) -> None:
        """Give the session the prompts of one frame; those of one object become one."""
        import torch

        height, width = self._scene.size
        factor = np.array([self._side[1] / width, self._side[0] / height])
        labels = sorted({prompt.object for prompt in prompts})
        for label in labels:
            points, kinds = [], []
            for prompt in (prompt for prompt in prompts if prompt.object == label):
                if prompt.box is not None:
                    points.insert(0, np.array(prompt.box).reshape(2, 2))
                    kinds.insert(0, _BOX_CORNERS)
                points.append(prompt.points)
                kinds.append(tuple(prompt.labels.tolist()))
            xy = torch.tensor(np.concatenate(points) * factor, dtype=torch.float32)
            kind = torch.tensor([k for group in kinds for k in group], dtype=torch.int32)
            if self.placement.half:
                xy = xy.half()
            self._session.add_point_inputs(
                self._session.obj_id_to_idx(label),
                prompts[0].frame,
                {"point_coords": xy[None, None], "point_labels": kind[None, None]},
            )
        self._session.obj_with_new_inputs = labels

    def _forget(self, frame: int, first: int) -> None:
        """Drop what the network will not look at again, so that memory does not grow.

        It looks at the frames just before this one, and going backward at those after the first.
        """
        for outputs in self._session.output_dict_per_obj.values():
            for kind in ("cond_frame_outputs", "non_cond_frame_outputs"):
                for output in outputs[kind].values():
                    output.pop("high_res_masks", None)
            recent = outputs["non_cond_frame_outputs"]
            for other in [t for t in recent if min(abs(t - frame), abs(t - first)) > self._memory]:
                del recent[other]

    def _paint(self, output: Any) -> np.ndarray:
        """Return a frame's index mask [H, W] from the network's logits of each object."""
        import torch

        logits = torch.nn.functional.interpolate(
            output.pred_masks.float(), self._scene.size, mode="bilinear", align_corners=False
        )[:, 0]
        best, which = logits.max(0)
        labels = torch.tensor(output.object_ids, dtype=torch.uint8, device=which.device)
        return torch.where(best > 0, labels[which], 0).to(torch.uint8).cpu().numpy()
