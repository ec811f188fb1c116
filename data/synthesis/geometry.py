"""Planes turned in space and seen by a camera, and the quads on them."""

from typing import NamedTuple

import cv2
import numpy as np


class Camera(NamedTuple):
    """How a plane is turned before it is seen: degrees about the vertical, the horizontal and the optical axis."""

    yaw: float
    pitch: float
    roll: float


def draw_camera(rng: np.random.Generator, spread: float) -> Camera:
    """The picture's view: mostly almost upright and frontal, as ICDAR2015's; spread: of the usual roll, degrees."""
    roll = rng.normal(-2, spread) if rng.random() < 0.8 else rng.normal(0, 14)
    yaw, pitch, roll = np.clip([rng.normal(0, 20), rng.normal(0, 9), roll], [-50, -25, -40], [50, 25, 40])
    return Camera(float(yaw), float(pitch), float(roll))


def plane_homography(camera: Camera, width: float, height: float, focal: float) -> np.ndarray:
    """(3, 3): the pixels of a width x height plane, turned about its centre, -> the picture, centre at (0, 0).

    focal: focal length, and distance of the plane's centre, in pixels; so the scale at the centre is 1.
    """
    yaw, pitch, roll = np.radians(camera)
    about_y = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
    about_z = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    turn = about_z @ about_x @ about_y
    view = np.stack([turn[:, 0], turn[:, 1], [0, 0, focal]], 1)  # columns: the plane's x, its y, its centre
    centre = np.array([[1, 0, -width / 2], [0, 1, -height / 2], [0, 0, 1]])
    return np.diag([focal, focal, 1.0]) @ view @ centre


def shifted(homography: np.ndarray, x: float, y: float) -> np.ndarray:
    """A homography followed by a shift."""
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], float) @ homography


def project(homography: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Map points (n, 2) by a homography; (n, 2)."""
    mapped = np.c_[points, np.ones(len(points))] @ homography.T
    return mapped[:, :2] / mapped[:, 2:]


def box_corners(x1: float, y1: float, x2: float, y2: float) -> np.ndarray:
    """(4, 2): corners of a box, clockwise from its top left."""
    return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], float)


def quad_height(quad: np.ndarray) -> float:
    """The mean length of a quad's left and right side."""
    return float(np.linalg.norm(quad[[3, 2]] - quad[[0, 1]], axis=1).mean())


def quad_mask(quad: np.ndarray) -> tuple[tuple[slice, slice], np.ndarray]:
    """Of a quad (4, 2) inside the picture: the slices of its upright box, and the mask (h, w) uint8 0 or 1 in there."""
    x1, y1 = np.maximum(quad.min(0).astype(int), 0)
    x2, y2 = quad.max(0).astype(int) + 1
    inside = np.zeros((y2 - y1, x2 - x1), np.uint8)
    cv2.fillConvexPoly(inside, np.round(quad - (x1, y1)).astype(int), 1)
    return np.s_[y1:y2, x1:x2], inside


def visible_quad(quad: np.ndarray, size: tuple[int, int]) -> np.ndarray | None:
    """The upright box around the part of a quad inside the picture; None if that is smaller than 3 pixels."""
    frame = box_corners(0, 0, size[0] - 1, size[1] - 1).astype(np.float32)
    _, shape = cv2.intersectConvexConvex(quad.astype(np.float32), frame)
    if shape is None:
        return None
    low, high = shape.reshape(-1, 2).min(0), shape.reshape(-1, 2).max(0)
    return box_corners(*low, *high) if (high - low).min() >= 3 else None
