"""SAM 3 in transformers: masks of all objects that phrases name, through a video.

Its detector finds the objects of each phrase in every frame; its tracker, which resembles SAM 2,
follows them, and objects that appear later get numbers of their own. An object that the detector
does not confirm in the frames after its first is removed again. Points and boxes are prompts of the
tracker alone.

The processor of transformers needs torchvision; what it does (resize, normalise, tokenise the
phrases) is a few lines here.

Reference: Carion et al., "SAM 3: Segment Anything with Concepts", 2025.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from msdyn.errors import InputError
from msdyn.preprocess.checkpoints.huggingface import (
    load_pretrained,
    load_tokenizer,
    transformers_class,
)
from msdyn.preprocess.checkpoints.placement import place
from msdyn.preprocess.contracts import (
    BackendOptions,
    CameraSolution,
    Figures,
    Mask,
    MaskResult,
)
from msdyn.preprocess.masks.mask_operations import own_operations
from msdyn.preprocess.masks.named_objects import Found, NamedObjects, index_mask
from msdyn.preprocess.masks.prompts import Prompt, read_phrases, read_prompts
from msdyn.preprocess.masks.sam_video import SamMasks, SceneFrames, forget_outputs
from msdyn.preprocess.progress import progress
from msdyn.preprocess.registry import register_backend
from msdyn.preprocess.streamed import Streamed
from msdyn.reading import load_npz, read_npy
from msdyn.scene import Scene, Tracks, frame_path
from msdyn.writing import scratch_folder

__all__ = ["PhraseFinder", "Sam3Masks"]

_log = logging.getLogger(__name__)

_MEGABYTES = 6000.0
_TOKENS = 32
"""The length that phrases are padded to, as in the network's training."""
_CLICKED_LOGIT = 10.0
"""Of pixels in the mask of a clicked object, which wins over most of what a phrase finds."""


@register_backend("masks", "sam3", needs=("frames", "tracks"), model="facebook/sam3")
@dataclass(frozen=True)
class Sam3Masks(SamMasks):
    """Masks by SAM 3 of named objects, of prompted objects, or of moving objects."""

    phrases: tuple[str, ...] = ()
    """What is to be found; without, and without phrases in the file, as SAM 2.1."""

    architecture = "Sam3TrackerVideo"
    mean = (0.5, 0.5, 0.5)
    std = (0.5, 0.5, 0.5)

    @classmethod
    def from_options(cls, options: BackendOptions) -> Sam3Masks:
        return replace(super().from_options(options), phrases=options.phrases)

    def segment(self, scene: Scene, tracks: Tracks, solution: CameraSolution | None) -> MaskResult:
        """Return the masks.

        The figures, where there are phrases: `prompted_by`; `phrases` and `prompts`, their number;
        `names` of the objects, by label; `unmatched`, phrases without an object; where the network
        ran; `object_share` of the pixels. Otherwise as of `SamMasks`.

        Raises:
            InputError: the checkpoint cannot be loaded, or the prompts are invalid.
        """
        phrases = self.phrases or (read_phrases(self.path) if self.path else ())
        if not phrases:
            return super().segment(scene, tracks, solution)
        clicks = read_prompts(self.path, scene) if self.path else []
        return MaskResult(Streamed(self._find(scene, phrases, clicks)))

    def _find(
        self, scene: Scene, phrases: tuple[str, ...], clicks: list[Prompt]
    ) -> Generator[Mask, None, Figures]:
        """Yield the masks of clicked objects, and of those that the phrases find."""
        finder = PhraseFinder(self.model, scene, phrases, offline=self.offline, device=self.device)
        clicked = {prompt.object: "" for prompt in clicks}
        clicked |= {prompt.object: prompt.name for prompt in clicks if prompt.name}
        objects = _Objects(clicked, phrases, scene)
        with scratch_folder() as folder:
            (folder / "clicked").mkdir()
            for frame, found in enumerate(progress(finder.find(), "masks", total=len(scene))):
                ids = np.array(found.ids, int)
                np.savez(frame_path(folder, frame, ".npz"), ids=ids, logits=found.logits)
            if clicks:
                for frame, mask in enumerate(self._follow(scene, clicks, {})):
                    np.save(frame_path(folder / "clicked", frame, ".npy"), mask)
            yield from objects.masks(folder, finder.phrase_of)
        figures: Figures = {"prompted_by": "phrases", "phrases": len(phrases)}
        if clicks:
            figures |= {"prompted_by": "file", "prompts": len(clicks)}
        return figures | objects.figures | finder.placement.record


class _Objects:
    """Clicked objects, and those of phrases, as objects of one scene.

    Attributes:
        figures: once all masks have been made.
    """

    def __init__(self, clicked: dict[int, str], phrases: tuple[str, ...], scene: Scene) -> None:
        self._clicked, self._scene = sorted(clicked), scene
        self._named = [label for label in self._clicked if clicked[label]]
        names = [clicked[label] for label in self._clicked]
        self._objects = NamedObjects([*names, *phrases])
        self._objects.phrase_of |= {-label: i for i, label in enumerate(self._clicked)}
        self._first = len(self._clicked)
        self.figures: Figures = {}

    def masks(self, folder: Path, phrase_of: dict[int, int]) -> Iterator[Mask]:
        """Yield the index masks of what is stored of the frames in a folder."""
        objects = self._objects
        objects.phrase_of |= {number: self._first + i for number, i in phrase_of.items()}
        for frame in range(len(self._scene)):
            objects.add(frame, self._read(folder, frame))
        labels, shares = objects.labels(), []
        for frame in range(len(self._scene)):
            found = self._read(folder, frame, full=True)
            mask = index_mask(found.logits, [labels.get(number, 0) for number in found.ids])
            shares.append(float((mask > 0).mean()))
            yield mask
        self._report(round(float(np.mean(shares)), 4))

    def _read(self, folder: Path, frame: int, *, full: bool = False) -> Found:
        """Return what is found in a frame, in the size of the network or the full one."""
        stored = load_npz(frame_path(folder, frame, ".npz"), ("ids", "logits"))
        kept = np.array([n in self._objects.phrase_of for n in stored["ids"]], bool)
        ids = stored["ids"][kept].tolist()
        logits = stored["logits"][kept].astype(np.float32)
        if full:
            logits = _resized(logits, self._scene.size)
        if self._clicked:
            mask = read_npy(frame_path(folder / "clicked", frame, ".npy"))
            own = np.stack([mask == label for label in self._clicked]).astype(np.float32)
            own = 2 * _CLICKED_LOGIT * (own - 0.5)
            logits = np.concatenate([_resized(own, logits.shape[1:]), logits])
            ids = [*(-label for label in self._clicked), *ids]
        return Found(ids, logits)

    def _report(self, share: float) -> None:
        """Fill the figures, and warn of phrases that have no object of their own."""
        unmatched = [p for p in self._objects.unmatched() if p]
        for phrase in unmatched:
            _log.warning("prompts: nothing in the clip is a %r", phrase)
        for phrase, other in self._objects.same():
            if other:
                _log.warning("prompts: %r finds what %r finds, which names it", phrase, other)
        names = {label: name for label, name in self._objects.names().items() if name.strip()}
        self.figures = {"names": names, "unmatched": unmatched, "object_share": share}


def _resized(
    logits: Float[np.ndarray, "objects height width"], size: tuple[int, ...]
) -> Float[np.ndarray, "objects H W"]:
    """Return logits in another size, bilinear."""
    if not len(logits) or logits.shape[1:] == size:
        return np.zeros((0, *size), np.float32) if not len(logits) else logits
    resized = torch.nn.functional.interpolate(
        torch.from_numpy(logits)[:, None], tuple(size), mode="bilinear", align_corners=False
    )
    return resized[:, 0].numpy()


class PhraseFinder:
    """The network, and its memory of the objects of one scene.

    Attributes:
        placement: where it runs.
        phrase_of: index of the phrase of each object, by its number.
    """

    def __init__(
        self, model: str, scene: Scene, phrases: tuple[str, ...], *, offline: bool, device: str
    ) -> None:
        """Load a checkpoint.

        Raises:
            InputError: it cannot be loaded, or a phrase is too long for it.
        """
        tokens = _tokens(model, phrases, offline=offline)
        self._network = load_pretrained("Sam3VideoModel", model, offline=offline)
        self.placement = place(self._network, _MEGABYTES, device)
        self.phrase_of: dict[int, int] = {}
        self._scene = scene
        side = self._network.config.image_size
        side = (side, side) if isinstance(side, int) else tuple(side)
        device = self.placement.device
        self._session = transformers_class("Sam3VideoInferenceSession")(
            video_height=scene.info.height,
            video_width=scene.info.width,
            inference_device=device,
            inference_state_device=device,
            dtype=torch.float16 if self.placement.half else torch.float32,
        )
        self._session.processed_frames = SceneFrames(scene, side, self.placement, Sam3Masks)
        for phrase, (ids, attention) in zip(phrases, tokens, strict=True):
            number = self._session.add_prompt(phrase)
            self._session.prompt_input_ids[number] = ids.to(device)
            self._session.prompt_attention_masks[number] = attention.to(device)
        tracker = self._network.config.tracker_config
        self._memory = max(tracker.num_maskmem, tracker.max_object_pointers_in_encoder)

    def find(self) -> Iterator[Found]:
        """Yield what is found in each frame, in their order.

        Objects that the network removes in a later frame are among those of the frames before; of
        what was yielded, `phrase_of` has those that stay, once all frames are done.
        """
        session, removed = self._session, set()
        for frame in range(len(self._scene)):
            with own_operations(), _removed_afterwards(session):
                output = self._network(inference_session=session, frame_idx=frame)
            forget_outputs(session, frame, frame, self._memory)
            removed |= output.removed_obj_ids
            hidden = removed | output.suppressed_obj_ids
            masks = {n: m for n, m in sorted(output.obj_id_to_mask.items()) if n not in hidden}
            self.phrase_of |= {n: session.obj_id_to_prompt_id[n] for n in masks}
            yield Found(list(masks), _stacked(masks.values(), self._network.low_res_mask_size))
        for number in removed:
            self.phrase_of.pop(number, None)


@contextlib.contextmanager
def _removed_afterwards(session: Any) -> Iterator[None]:
    """Let a session remove objects at the end of the block only.

    The network's code pairs the masks of a frame with the objects of the session after it has
    removed some of these: masks would go to other objects.
    """
    removed: list[int] = []
    session.remove_object = lambda number, strict=False: removed.append(number)
    try:
        yield
    finally:
        del session.remove_object
    if removed:
        session.obj_ids = [session.obj_idx_to_id(i) for i in range(session.get_obj_num())]
        for number in removed:
            session.remove_object(number)


def _stacked(masks: Any, side: int) -> Float[np.ndarray, "objects height width"]:
    """Return the logits of masks [1, h, w] as half precision, which is enough for their zero."""
    if not masks:
        return np.zeros((0, side, side), np.float16)
    return torch.cat(list(masks)).clamp(-1e4, 1e4).half().cpu().numpy()


def _tokens(
    model: str, phrases: tuple[str, ...], *, offline: bool
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return tokens and attention mask [1, 32] of each phrase.

    Raises:
        InputError: the checkpoint has no tokenizer, or a phrase is too long.
    """
    tokenizer = load_tokenizer("CLIPTokenizer", model, offline=offline)
    tokens = []
    for phrase in phrases:
        encoded = tokenizer(phrase, return_tensors="pt", padding="max_length", max_length=_TOKENS)
        count = encoded.input_ids.shape[1]
        if count > _TOKENS:
            raise InputError(
                f"prompts: {phrase!r} has {count - 2} tokens, expected at most {_TOKENS - 2}: name "
                "the thing in a few words"
            )
        tokens.append((encoded.input_ids, encoded.attention_mask))
    return tokens
