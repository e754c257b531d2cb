"""Packaging of msdyn: the library, its commands and its extras."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
README = HERE / "README.md"
VERSION = re.findall(r'__version__ = "(.+)"', (HERE / "msdyn/version.py").read_text("utf-8"))[0]

setup(
    name="msdyn",
    version=VERSION,
    description="Gaussian sequences with multi-scale dynamics from one monocular video",
    long_description=README.read_text(encoding="utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=[
        *find_packages(include=["msdyn", "msdyn.*"]),
        *(f"msdyn.{name}" for name in find_packages(include=["preprocess", "preprocess.*"])),
    ],
    package_dir={"msdyn.preprocess": "preprocess"},
    package_data={
        "msdyn": [
            "py.typed",
            "*.js",
            "export/*.html",
            "export/*.js",
            "view/*.js",
            "view/*.css",
            "feedforward/weights/*",
        ],  # fmt: skip
    },
    install_requires=[
        "torch>=2.4",
        "numpy>=1.26",
        "numba>=0.60",
        "scipy>=1.11",
        "scikit-learn>=1.3",
        "threadpoolctl>=3",
        "gsplat>=1.5.3,<1.6",
        "roma>=1.5",
        "safetensors>=0.4",
        "msgspec>=0.18",
        "imageio>=2.34",
        "av>=12",
        "pillow>=10",
        "markupsafe>=2.1",
        "tyro>=0.9",
        "tqdm>=4.66",
        "matplotlib>=3.8",
        "plyfile>=1.0",
        "viser>=1.1",
        "jaxtyping>=0.2.30",
        # Weight-free preprocessing and the synthetic scenes of the demo.
        "opencv-python-headless>=4.9",
        "pycolmap>=4.0",
        "trimesh>=4.0",
        "embreex>=2.17.7",
    ],
    extras_require={
        "preprocess": ["transformers>=4.57", "openexr>=3.3"],
        "masks": ["onnxruntime>=1.17"],
        "train": ["tensorboard>=2.14"],
        "wandb": ["wandb>=0.19"],
        "trackio": ["trackio>=0.20"],
        "datasets": ["h5py>=3"],
        "robots": ["mcap>=1.2", "rosbags>=0.10", "lzfse>=0.4.2"],
        "open3d": ["open3d>=0.18"],
        "4dgs": ["fourdgs>=0.6"],
        "spz": ["gsply[spz]>=0.4"],
        "usd": ["usd-core>=26.3"],
        "sim": ["coacd>=1", "mujoco>=3.2", "open3d>=0.18", "scikit-image>=0.22"],
        "rerun": ["rerun-sdk>=0.24"],
        "cluster": ["ray>=2.40", "pyarrow>=15", "fsspec>=2023.10"],
        "test": [
            "pytest>=8",
            "pytest-xdist>=3.5",
            "hypothesis>=6.100",
            "beartype>=0.18",
            "scikit-image>=0.22",
            "transformers>=4.57",
            "openexr>=3.3",
            "onnxruntime>=1.17",
            "tensorboard>=2.14",
            "h5py>=3",
            "mcap>=1.2",
            "rosbags>=0.10",
            "lzfse>=0.4.2",
            "rerun-sdk>=0.24",
            "fourdgs>=0.6",
            "gsply[spz]>=0.4",
            "usd-core>=26.3",
            "pygltflib>=1.16",
            "coacd>=1",
            "mujoco>=3.2",
            "open3d-cpu>=0.19",
            "ray>=2.40",
            "pyarrow>=15",
            "s3fs>=2023.10",
            "moto[s3,server]>=5",
            "ruff",
            "pyright",
        ],
    },
    entry_points={
        "console_scripts": [
            "msdyn-preprocess=msdyn.cli.preprocess:main",
            "msdyn-fit=msdyn.cli.fit:main",
            "msdyn-predict=msdyn.cli.predict:main",
            "msdyn-train=msdyn.cli.train:main",
            "msdyn-clips=msdyn.cli.clips:main",
            "msdyn-render=msdyn.cli.render:main",
            "msdyn-export=msdyn.cli.export:main",
            "msdyn-view=msdyn.cli.view:main",
            "msdyn-eval=msdyn.cli.evaluate:main",
            "msdyn-demo=msdyn.cli.demo:main",
            "msdyn-batch=msdyn.cli.batch:main",
        ]
    },
)
