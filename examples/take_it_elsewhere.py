"""Export: Gaussians for any 3DGS viewer, cameras for COLMAP and nerfstudio, a web page.

python examples/take_it_elsewhere.py scene_dir out
"""

import sys
from pathlib import Path

import msdyn


def main(scene: str, out: str) -> None:
    sequence = msdyn.load_sequence(scene)
    print(sequence.export("ply", Path(out) / "ply", times="0,0.5,1"))
    print(sequence.export("cameras", Path(out) / "cameras"))
    print(sequence.export("points", Path(out) / "points", time=0.5))
    print(sequence.export("html", Path(out) / "sequence.html"))


if __name__ == "__main__":
    main(*sys.argv[1:])
