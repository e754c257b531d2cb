"""`msdyn-predict`: predict a Gaussian sequence with the feed-forward network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from msdyn.cli.inputs import require_files, require_scene
from msdyn.cli.run import parse, run
from msdyn.feedforward.options import DEFAULT_MODEL, PredictConfig
from msdyn.progress import stage

DESCRIPTION = (
    "Predict a Gaussian sequence for a scene directory with the feed-forward network (MoVieS), "
    "from its frames and cameras. All other commands read the result with --from predict."
)


EXAMPLES = (
    "scene  # with the network that comes with msdyn",
    "scene --model movies.safetensors  # with other weights",
    "scene --frames 8 --every 2  # windows of 8 frames, of which every other one is used",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run(
        _predict, parse(PredictConfig, argv, "msdyn-predict", DESCRIPTION, examples=EXAMPLES)
    )


def _predict(config: PredictConfig) -> None:
    require_scene(config.scene)
    if config.model != DEFAULT_MODEL and Path(config.model).suffix:
        require_files(Path(config.model))
    with stage("loading"):
        from msdyn.feedforward.predict import predict_scene
        from msdyn.feedforward.pretrained import find_model
        from msdyn.scene import Scene

    sequence = predict_scene(Scene(config.scene), config)
    note = find_model(config.model).note
    if note:
        print(note)
    folder = config.out or config.scene / "predict"
    print(f"{sequence!r}\nwritten to {folder}; see it with")
    source = config.out or f"{config.scene} --from predict"
    print(f"  msdyn-render {source} --path auto --out auto.mp4")


if __name__ == "__main__":
    raise SystemExit(main())
