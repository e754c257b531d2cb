"""MJCF, the model files of MuJoCo.

Reference: MuJoCo's documentation, "XML Reference".
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import PurePosixPath
from xml.etree import ElementTree as ET

import numpy as np
from jaxtyping import Float

from msdyn.io.links import Link, number_text, wxyz
from msdyn.writing import atomic_path

__all__ = ["write_mjcf"]

_COMMENT = (
    " Masses are not known from images: MuJoCo computes them from the volumes of the collision "
    "meshes (inertiafromgeom) and the density below, in kg per cubic metre. Change it there, or "
    "give single geoms a density or mass of their own. "
)
_VISUAL, _COLLISION = "2", "3"
"""Groups of geoms, as in MuJoCo's own model collections."""


def write_mjcf(
    path: str | os.PathLike,
    links: Sequence[Link],
    *,
    name: str,
    key: Float[np.ndarray, " positions"],
    floor: bool,
    density: float = 1000.0,
) -> None:
    """Write a model with meshes beside it, atomically.

    A link without a parent is a free body; its position and rotation are those of the key frame.

    Args:
        path: file name, `.xml`.
        links: parents before children, each tree in depth-first order.
        name: of the model.
        key: the positions `qpos` of the key frame `clip`, in the order of the links: seven numbers
            (metres, quaternion wxyz) for a free body, one for a hinge or slider, four for a ball.
        floor: add a plane at z = 0.
        density: kg per cubic metre.
    """
    root = ET.Element("mujoco", model=name)
    root.append(ET.Comment(_COMMENT))
    ET.SubElement(root, "compiler", angle="radian", autolimits="true", inertiafromgeom="true")
    ET.SubElement(root, "option", gravity="0 0 -9.81", integrator="implicitfast")
    default = ET.SubElement(root, "default")
    ET.SubElement(default, "joint", damping="0.01")
    visual = ET.SubElement(default, "default", {"class": "visual"})
    ET.SubElement(
        visual, "geom", type="mesh", contype="0", conaffinity="0", group=_VISUAL, mass="0"
    )
    collision = ET.SubElement(default, "default", {"class": "collision"})
    ET.SubElement(collision, "geom", type="mesh", group=_COLLISION, density=f"{density:g}")
    assets = ET.SubElement(root, "asset")
    for link in links:
        for file in (link.visual, *link.collisions):
            ET.SubElement(assets, "mesh", name=PurePosixPath(file).stem, file=file)
    world = ET.SubElement(root, "worldbody")
    ET.SubElement(world, "light", pos="0 0 3", dir="0 0 -1", directional="true")
    if floor:
        ET.SubElement(
            world, "geom", name="floor", type="plane", size="0 0 0.05", rgba="0.8 0.8 0.8 1"
        )
    elements: list[ET.Element] = []
    for link in links:
        parent = world if link.parent is None else elements[link.parent]
        elements.append(_body(parent, link))
    _exclude(root, links)
    if len(key):
        keys = ET.SubElement(root, "keyframe")
        ET.SubElement(keys, "key", name="clip", qpos=number_text(key))
    ET.indent(root)
    with atomic_path(path) as temporary:
        temporary.write_text(ET.tostring(root, encoding="unicode") + "\n", encoding="utf-8")


def _body(parent: ET.Element, link: Link) -> ET.Element:
    body = ET.SubElement(
        parent,
        "body",
        name=link.name,
        pos=number_text(link.position),
        quat=number_text(wxyz(link.rotation)),
    )
    joint = link.joint
    if link.parent is None:
        ET.SubElement(body, "freejoint", name=link.name)
    elif joint is not None and joint.kind == "ball":
        ET.SubElement(body, "joint", name=link.name, type="ball")
    elif joint is not None:
        ET.SubElement(
            body,
            "joint",
            name=link.name,
            type="hinge" if joint.kind == "hinge" else "slide",
            axis=number_text(joint.axis),
            range=number_text(joint.range),
        )
    ET.SubElement(
        body,
        "geom",
        {"class": "visual"},
        mesh=PurePosixPath(link.visual).stem,
        rgba=number_text([*link.rgb, 1.0]),
    )
    for file in link.collisions:
        ET.SubElement(body, "geom", {"class": "collision"}, mesh=PurePosixPath(file).stem)
    return body


def _exclude(root: ET.Element, links: Sequence[Link]) -> None:
    """Leave out contacts within a tree; MuJoCo itself leaves out those of parent and child."""
    tree: list[int] = []
    for number, link in enumerate(links):
        tree.append(number if link.parent is None else tree[link.parent])
    pairs = [
        (links[a].name, links[b].name)
        for b in range(len(links))
        for a in range(b)
        if tree[a] == tree[b] and a != links[b].parent
    ]
    if pairs:
        contact = ET.SubElement(root, "contact")
        for first, second in pairs:
            ET.SubElement(contact, "exclude", body1=first, body2=second)
