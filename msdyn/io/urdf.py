"""URDF, the robot description of ROS.

Reference: the ROS wiki, "urdf/XML".
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from xml.etree import ElementTree as ET

import numpy as np
from scipy.spatial.transform import Rotation

from msdyn.io.links import Link, number_text
from msdyn.writing import atomic_path

__all__ = ["write_urdf"]

_COMMENT = (
    " Masses and inertias are those of the closed meshes with a density of {density:g} kg per "
    "cubic metre: PyBullet, Isaac Sim and Gazebo need some, and images do not tell. "
)
_TYPES = {"hinge": "revolute", "slider": "prismatic", "ball": "floating"}
"""URDF has no ball joint."""


def write_urdf(
    path: str | os.PathLike, links: Sequence[Link], *, name: str, density: float = 1000.0
) -> None:
    """Write one tree of links with meshes beside it, atomically.

    Args:
        path: file name, `.urdf`.
        links: the root first, parents before children.
        name: of the robot.
        density: kg per cubic metre.
    """
    root = ET.Element("robot", name=name)
    root.append(ET.Comment(_COMMENT.format(density=density)))
    for link in links:
        _link(root, link, density)
    for link in links:
        if link.parent is not None:
            _joint(root, link, links[link.parent].name)
    ET.indent(root)
    with atomic_path(path) as temporary:
        text = ET.tostring(root, encoding="unicode", xml_declaration=False)
        temporary.write_text(f'<?xml version="1.0"?>\n{text}\n', encoding="utf-8")


def _link(root: ET.Element, link: Link, density: float) -> None:
    element = ET.SubElement(root, "link", name=link.name)
    inertial = ET.SubElement(element, "inertial")
    ET.SubElement(inertial, "origin", xyz=number_text(link.centre), rpy="0 0 0")
    ET.SubElement(inertial, "mass", value=f"{link.volume * density:.9g}")
    tensor = link.inertia * density
    names = {
        "ixx": (0, 0),
        "ixy": (0, 1),
        "ixz": (0, 2),
        "iyy": (1, 1),
        "iyz": (1, 2),
        "izz": (2, 2),
    }
    ET.SubElement(inertial, "inertia", {key: f"{tensor[at]:.9g}" for key, at in names.items()})
    visual = ET.SubElement(element, "visual")
    ET.SubElement(ET.SubElement(visual, "geometry"), "mesh", filename=link.visual)
    material = ET.SubElement(visual, "material", name=link.name)
    ET.SubElement(material, "color", rgba=number_text([*link.rgb, 1.0]))
    for file in link.collisions:
        collision = ET.SubElement(element, "collision")
        ET.SubElement(ET.SubElement(collision, "geometry"), "mesh", filename=file)


def _joint(root: ET.Element, link: Link, parent: str) -> None:
    kind = "fixed" if link.joint is None else _TYPES[link.joint.kind]
    element = ET.SubElement(root, "joint", name=f"{link.name}_joint", type=kind)
    # rpy: rotations about the fixed axes x, y, z of the parent, in this order.
    angles = Rotation.from_matrix(link.rotation).as_euler("xyz")
    ET.SubElement(element, "origin", xyz=number_text(link.position), rpy=number_text(angles))
    ET.SubElement(element, "parent", link=parent)
    ET.SubElement(element, "child", link=link.name)
    if link.joint is not None and link.joint.kind != "ball":
        ET.SubElement(element, "axis", xyz=number_text(link.joint.axis))
        low, high = np.array(link.joint.range).tolist()
        ET.SubElement(
            element, "limit", lower=f"{low:.9g}", upper=f"{high:.9g}", effort="10", velocity="10"
        )
