"""SAM 2.1, EdgeTAM and SAM 3 in transformers: masks of prompted objects, followed through a video.

The processors of transformers need torchvision; what they do (resize, normalise, scale the prompts,
upsample the masks) is a few lines here.

Reference: Ravi et al., "SAM 2: Segment Anything in Images and Videos", 2024; Zhou et al.,
"EdgeTAM: On-Device Track Anything Model", CVPR 2025.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from msdyn.errors import InputError
from msdyn.preprocess.checkpoints.huggingface import (
    licence_of,
    load_pretrained,
    transformers_class,
)
from msdyn.preprocess.checkpoints.placement import Placement, network_input, place
from msdyn.preprocess.contracts import (
    Backend,
    BackendOptions,
    CameraSolution,
    Figures,
    Mask,
    MaskResult,
)
from msdyn.preprocess.masks.motion import MotionMasks
from msdyn.preprocess.masks.prompts import (
    Prompt,
    prompts_from_masks,
    read_phrases,
    read_prompts,
)
from msdyn.preprocess.phrases import TEXT_MASKS
from msdyn.preprocess.progress import progress
from msdyn.preprocess.registry import register_backend
from msdyn.preprocess.streamed import Streamed
from msdyn.reading import read_npy
from msdyn.scene import STATIC, Scene, Tracks, frame_path
from msdyn.writing import scratch_folder

__all__ = ["EdgeTamMasks", "Sam2Masks", "SamMasks", "SceneFrames", "forget_outputs"]

_MEGABYTES = 1500.0
_BOX_CORNERS = (2, 3)  # the labels of the corners of a box among the points

AnySam = TypeVar("AnySam", bound="SamMasks")


@dataclass(frozen=True)
class SamMasks(Backend):
    """Base of the video segmentation networks, prompted by the user or by `MotionMasks`.

    Attributes:
        architecture: what the names of the network's classes in transformers begin with.
        mean, std: of its training images, RGB in [0, 1].
    """

    # `field()`: not the values of the base class for defaults.
    name: str = field()
    model: str = field()
    """A name on the hub, or a folder."""
    path: Path | None = None
    """The user's prompts; without, the prompts are from the masks of `MotionMasks`."""
    motion: MotionMasks = field(default_factory=MotionMasks)
    """What moves, and so is prompted."""
    offline: bool = field(default=False, metadata={"option": False})
    device: str = field(default="auto", metadata={"option": False})

    architecture: ClassVar[str]
    mean: ClassVar[tuple[float, float, float]] = (0.485, 0.456, 0.406)
    std: ClassVar[tuple[float, float, float]] = (0.229, 0.224, 0.225)

    @classmethod
    def from_options(cls: type[AnySam], options: BackendOptions) -> AnySam:
        """Return the network of a checkpoint."""
        assert options.model is not None, "every one has a default"
        return cls(
            options.name,
            options.model,
            options.prompts,
            MotionMasks.from_options(options),
            offline=options.offline,
            device=options.device,
        )

    @property
    def licence(self) -> str:
        return licence_of(self.model)

    def segment(self, scene: Scene, tracks: Tracks, solution: CameraSolution | None) -> MaskResult:
        """Return the masks.

        Where `MotionMasks` needs the cameras and they are not known yet, the masks are its own: the
        network is run once they are.

        The figures: those of `MotionMasks`, where it made the prompts; `prompted_by`; `prompts`,
        their number; where the network ran; `moving_share` of the pixels; `names`, by label, of
        objects that have one.

        Raises:
            InputError: the checkpoint cannot be loaded, or the prompts are invalid.
        """
        if self.path is not None:
            figures: Figures = {"prompted_by": "file"}
            prompts = read_prompts(self.path, scene)
            figures |= _names_of(prompts)
            if phrases := read_phrases(self.path):
                raise InputError(
                    f"{self.path}: text: {phrases[0]!r} is for a network that takes text; use "
                    f"--masks {TEXT_MASKS}, or add points or a box"
                )
        else:
            motion = self.motion.segment(scene, tracks, solution)
            if solution is None and motion.needs_cameras:
                return motion
            prompts = prompts_from_masks(motion.masks)
            figures = motion.masks.figures | {"prompted_by": "motion"}
        figures["prompts"] = len(prompts)
        if prompts:
            return MaskResult(Streamed(self._follow(scene, prompts, figures)))
        static = (np.full(scene.size, STATIC, np.uint8) for _ in range(len(scene)))
        return MaskResult(Streamed.of(static, figures))

    def _follow(
        self, scene: Scene, prompts: list[Prompt], figures: Figures
    ) -> Generator[Mask, None, Figures]:
        """Yield the masks of prompted objects, in the order of the frames."""
        tracker = _Tracker(type(self), self.model, scene, offline=self.offline, device=self.device)
        with scratch_folder() as folder:
            for frame, mask in progress(tracker.follow(prompts), "masks", total=len(scene)):
                np.save(frame_path(folder, frame, ".npy"), mask)
            shares = []
            for frame in range(len(scene)):
                mask = read_npy(frame_path(folder, frame, ".npy"))
                shares.append(float((mask > 0).mean()))
                yield mask
        share = {"moving_share": round(float(np.mean(shares)), 4)}
        return figures | tracker.placement.record | share


@register_backend("masks", "sam2", needs=("frames", "tracks"), model="facebook/sam2.1-hiera-tiny")
class Sam2Masks(SamMasks):
    """Masks by SAM 2.1."""

    architecture = "Sam2Video"


@register_backend("masks", "edgetam", needs=("frames", "tracks"), model="yonigozlan/EdgeTAM-hf")
class EdgeTamMasks(SamMasks):
    """Masks by EdgeTAM."""

    architecture = "EdgeTamVideo"


def _names_of(prompts: list[Prompt]) -> Figures:
    """Return the figure `names` of the objects of prompts, nothing where they have none.

    Raises:
        InputError: an object has two names.
    """
    names: dict[int, str] = {}
    for prompt in prompts:
        if prompt.name and names.setdefault(prompt.object, prompt.name) != prompt.name:
            raise InputError(
                f"prompts: object {prompt.object} is {names[prompt.object]!r} and {prompt.name!r}; "
                "give it one text"
            )
    return {"names": names} if names else {}


class SceneFrames(dict):
    """The frames as input of the network, read on demand; in place of the session's dict."""

    def __init__(
        self, scene: Scene, side: tuple[int, int], placement: Placement, network: type[SamMasks]
    ) -> None:
        super().__init__()
        self._scene, self._side, self._placement = scene, side, placement
        self._mean, self._std = network.mean, network.std

    def __len__(self) -> int:
        return len(self._scene)

    def __getitem__(self, frame: int) -> Float[Tensor, "3 height width"]:
        image = self._scene.image(frame)[None]
        return network_input(image, self._side, self._mean, self._std, self._placement)[0]


class _Tracker:
    """A network and its memory of the objects of one scene."""

    def __init__(
        self, backend: type[SamMasks], model: str, scene: Scene, *, offline: bool, device: str
    ) -> None:
        """Load a checkpoint; see `load_pretrained` for the errors."""
        architecture = backend.architecture
        self._network = load_pretrained(f"{architecture}Model", model, offline=offline)
        self.placement = place(self._network, _MEGABYTES, device)
        self._scene = scene
        side = self._network.config.image_size
        self._side = (side, side) if isinstance(side, int) else tuple(side)
        session = transformers_class(f"{architecture}InferenceSession")(
            video_height=scene.info.height,
            video_width=scene.info.width,
            inference_device=self.placement.device,
            inference_state_device=self.placement.device,
            dtype=torch.float16 if self.placement.half else torch.float32,
        )
        session.processed_frames = SceneFrames(scene, self._side, self.placement, backend)
        self._session = session
        config = self._network.config
        self._memory = max(config.num_maskmem, config.max_object_pointers_in_encoder)

    def follow(self, prompts: list[Prompt]) -> Iterator[tuple[int, Mask]]:
        """Yield the index and the mask of each frame: from the first prompt forward, then back."""
        first = min(prompt.frame for prompt in prompts)
        for frame in sorted({prompt.frame for prompt in prompts}):
            own = [prompt for prompt in prompts if prompt.frame == frame]
            self._add_prompts(own)
            self._network(inference_session=self._session, frame_idx=frame)
        for backward in (False, True):
            for output in self._network.propagate_in_video_iterator(
                self._session, start_frame_idx=first, reverse=backward
            ):
                forget_outputs(self._session, output.frame_idx, first, self._memory)
                if not (backward and output.frame_idx == first):
                    yield output.frame_idx, self._index_mask(output)

    def _add_prompts(self, prompts: list[Prompt]) -> None:
        """Give the session the prompts of one frame, those of each object merged."""
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

    def _index_mask(self, output: Any) -> Mask:
        """Return the index mask of a frame from the logits of each object."""
        logits = torch.nn.functional.interpolate(
            output.pred_masks.float(), self._scene.size, mode="bilinear", align_corners=False
        )[:, 0]
        best, which = logits.max(0)
        labels = torch.tensor(output.object_ids, dtype=torch.uint8, device=which.device)
        return torch.where(best > 0, labels[which], 0).to(torch.uint8).cpu().numpy()


def forget_outputs(session: Any, frame: int, first: int, memory: int) -> None:
    """Drop outputs that a network will not use again, so that memory does not grow.

    It uses those of the frames just before this one, and going backward of those after the first.

    Args:
        session: of the network.
        frame: the present one.
        first: where going backward begins.
        memory: number of frames that the network looks back.
    """
    for outputs in session.output_dict_per_obj.values():
        for kind in ("cond_frame_outputs", "non_cond_frame_outputs"):
            for output in outputs[kind].values():
                output.pop("high_res_masks", None)
        recent = outputs["non_cond_frame_outputs"]
        for other in [t for t in recent if min(abs(t - frame), abs(t - first)) > memory]:
            del recent[other]
