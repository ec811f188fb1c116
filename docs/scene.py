"""Painted planes put into a street by perspective, whose words are known. docs/draw_scene.py builds with them."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import cv2  # noqa: E402
import numpy as np  # noqa: E402
from PIL import Image, ImageDraw, ImageFont  # noqa: E402

from data.synthesis.fonts import find_fonts  # noqa: E402

WIDTH, HEIGHT = 1280, 720
SCALE = 2  # the street is painted so many times larger, then shrunk
FOCAL, HORIZON = 0.95 * WIDTH, 0.5 * HEIGHT  # pixels
EYE = 1.65  # metres above the road
METRE = 140  # pixels of a plane
LEGIBLE, GONE = 0.2, 0.85  # shares of a word that may be hidden; from which on nobody knows of it
SMALLEST = 9  # pixels of a word's height
NARROWEST = 0.2  # how far a word may be squeezed by perspective
Color = tuple[int, int, int]  # RGB


def font_of(name: str, size: float) -> ImageFont.FreeTypeFont:
    """A shipped font by the beginning of its file's name."""
    paths = [path for paths in find_fonts().values() for path in paths]
    path = next((path for path in paths if Path(path).name.startswith(name)), paths[0])
    return ImageFont.truetype(path, max(round(size), 4))


class Plane:
    """A flat thing in the street: what is painted on it in metres from its top left, and where it stands.

    Args:
        width, height: in metres.
        color: of its ground.
    """

    def __init__(self, width: float, height: float, color: Color):
        self.width, self.height = width, height
        self.image = Image.new('RGBA', (round(width * METRE), round(height * METRE)), (*color, 255))
        self.draw = ImageDraw.Draw(self.image)
        self.words: list[np.ndarray] = []  # (4, 2) in pixels of the plane

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        color: Color,
        edge: Color | None = None,
        round_: float = 0,
    ) -> None:
        """A rectangle, in metres."""
        corners = [value * METRE for value in (x, y, x + width, y + height)]
        self.draw.rounded_rectangle(corners, round_ * METRE, color, edge, max(round(0.03 * METRE), 1))

    def text(self, x: float, y: float, size: float, text: str, font: str, color: Color) -> None:
        """A line of words around x, its capitals `size` metres high, below y; each word is remembered."""
        face = font_of(font, size * METRE * 1.38)
        left = x * METRE - face.getlength(text) / 2
        top = y * METRE - face.getbbox('H')[1]
        self.draw.text((left, top), text, color, face)
        for word in text.split():
            at = left + face.getlength(text[: text.index(word)])
            x1, y1, x2, y2 = face.getbbox(word)
            self.words.append(
                np.array([(at + x1, top + y1), (at + x2, top + y1), (at + x2, top + y2), (at + x1, top + y2)])
            )

    def window(self, x: float, y: float, width: float, height: float, rng: np.random.Generator) -> None:
        """Glass with a frame, something dim behind it and a reflection."""
        self.box(x - 0.06, y - 0.06, width + 0.12, height + 0.12, (225, 222, 214))
        base = rng.uniform(35, 75)
        rows = np.linspace(1.5, 0.7, round(height * METRE))[:, None, None] * (base, base * 1.08, base * 1.2)
        pane = np.repeat(rows, round(width * METRE), 1)
        u = np.linspace(0, 1, pane.shape[1])[None] + np.linspace(0, 0.6, pane.shape[0])[:, None]
        pane += (40 * np.exp(-(((u - rng.uniform(0.4, 1.2)) / 0.12) ** 2)))[..., None]
        self.image.paste(Image.fromarray(pane.clip(0, 255).astype(np.uint8)), (round(x * METRE), round(y * METRE)))


def wall(rng: np.random.Generator, width: float, height: float, color: Color, bricks: bool) -> Plane:
    """A house's front."""
    plane = Plane(width, height, color)
    grain = cv2.resize(rng.normal(0, 1, (24, 48)), plane.image.size, interpolation=cv2.INTER_CUBIC) * 5
    grain += rng.normal(0, 5, grain.shape)
    if bricks:
        y, x = np.mgrid[: grain.shape[0], : grain.shape[1]]
        row, high, wide = y // 11, 11, 33
        column = (x + row % 2 * wide // 2) // wide
        grain += rng.normal(0, 12, (row.max() + 1, column.max() + 1))[row, column]
        grain[(y % high < 2) | ((x + row % 2 * wide // 2) % wide < 2)] += 32
    pixels = np.array(color) + grain[..., None]
    plane.image.paste(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)))
    return plane


def shop(
    rng: np.random.Generator,
    floors: int,
    width: float,
    color: Color,
    sign: Color,
    ink: Color,
    font: str,
    name: str,
    notes: list[str],
    bricks: bool,
) -> Plane:
    """A shop: its name above a window and a door, notes behind the glass, two windows of a flat."""
    street = 2.6 * floors  # metres from the roof to the ceiling of the shop
    plane = wall(rng, width, street + 3.8, color, bricks)
    plane.box(0, 0, width, 0.22, tuple(int(c * 0.72) for c in color))
    for floor in range(floors):
        for x in np.arange(0.7, width - 1.2, 1.9):
            plane.window(x, 0.65 + 2.6 * floor, 1.0, 1.5, rng)
    plane.box(0.15, street + 0.15, width - 0.3, 0.85, sign, tuple(int(c * 0.6) for c in sign))
    plane.text(width / 2, street + 0.37, 0.42, name, font, ink)
    plane.window(0.35, street + 1.25, width - 2.0, 1.85, rng)
    plane.window(width - 1.3, street + 1.25, 0.95, 2.5, rng)
    for number, note in enumerate(notes):
        x = 0.35 + (number + 0.5) * (width - 2.0) / len(notes)
        lines = note.split('|')
        paper, dark = ((242, 238, 225), (30, 30, 40)) if number % 2 else ((200, 40, 40), (255, 255, 255))
        plane.box(x - 0.62, street + 1.5, 1.24, 0.34 * len(lines) + 0.14, paper)
        for row, line in enumerate(lines):
            plane.text(x, street + 1.62 + 0.34 * row, 0.2, line, 'Roboto-Bold', dark)
    plane.box(0, street + 3.5, width, 0.3, (88, 84, 80))
    return plane


def project(points: np.ndarray) -> np.ndarray:
    """Metres right of the camera, above the road, ahead of it (n, 3) -> pixels (n, 2)."""
    right, up, ahead = points.T
    return np.stack((WIDTH / 2 + FOCAL * right / ahead, HORIZON + FOCAL * (EYE - up) / ahead), 1)


def sides(quad: np.ndarray) -> tuple[float, float]:
    """Width and height of a quad (4, 2)."""
    return float(np.linalg.norm(quad[1] - quad[0])), float(np.linalg.norm(quad[3] - quad[0]))


def hidden_share(word: np.ndarray, hidden: np.ndarray) -> float:
    """How much of a quad lies where `hidden` (h, w) is true, 0 to 1."""
    mask = np.zeros(hidden.shape, np.uint8)
    cv2.fillConvexPoly(mask, np.round(word).astype(np.int32), 1)
    return float((mask.astype(bool) & hidden).sum() / max(cv2.contourArea(word.astype(np.float32)), 1))


def tree(rng: np.random.Generator, height: float) -> Plane:
    """A trunk and leaves, on nothing."""
    plane = Plane(height * 0.62, height, (0, 0, 0))
    plane.image.putalpha(0)
    wide, high = plane.image.size
    plane.draw.polygon(
        [(wide * 0.47, high), (wide * 0.53, high), (wide * 0.515, high * 0.4), (wide * 0.485, high * 0.4)],
        (74, 60, 48, 255),
    )
    for _ in range(1500):
        angle, reach = rng.uniform(0, 2 * np.pi), rng.uniform(0, 1) ** 0.6
        x, y = wide * (0.5 + 0.42 * reach * np.cos(angle)), high * (0.33 + 0.29 * reach * np.sin(angle))
        bright = 0.75 - 0.5 * (y / high - 0.33) / 0.29 * 0.6 + rng.normal(0, 0.18)
        size = rng.uniform(0.008, 0.02) * high
        color = tuple(int(value) for value in np.clip(np.array((86, 122, 52)) * bright, 0, 255))
        plane.draw.ellipse((x - size, y - size * 0.7, x + size, y + size * 0.7), (*color, 255))
    return plane


class Street:
    """The picture, float32 RGB, SCALE times as large, and the words in it."""

    def __init__(self, rng: np.random.Generator):
        self.rng = rng
        self.words: list[np.ndarray] = []
        self.dont_care: list[np.ndarray] = []  # words that are half hidden, cut by the frame, or tiny
        height, width = HEIGHT * SCALE, WIDTH * SCALE
        rows = np.linspace(0, 1, height)[:, None, None]
        self.image = ((1 - rows) * (118, 160, 214) + rows * 1.25 * (225, 226, 222)).clip(0, 255) * np.ones(
            (1, width, 1)
        )
        clouds = sum(
            cv2.resize(rng.normal(0, 1, (3 * 2**k, 4 * 2**k)), (width, height), interpolation=cv2.INTER_CUBIC) / 1.8**k
            for k in range(6)
        )
        self.image += (255 - self.image) * (clouds - 0.3).clip(0, 1)[..., None] * 0.8

    def put(self, plane: Plane, corner: tuple, along: tuple, down: tuple = (0, -1, 0), light: float = 1.0) -> None:
        """Stand a plane in the street.

        Args:
            corner: its top left: metres right of the camera, above the road, ahead.
            along: direction of its width, of length 1; down: of its height.
            light: how bright it is.
        """
        origin, along, down = np.array(corner, float), np.array(along) * plane.width, np.array(down) * plane.height
        corners = np.stack((origin, origin + along, origin + along + down, origin + down))
        seen = project(corners) * SCALE
        x1, y1 = np.floor(seen.min(0).clip(0)).astype(int)
        x2, y2 = np.ceil(seen.max(0).clip(0, (WIDTH * SCALE, HEIGHT * SCALE))).astype(int)
        if x2 <= x1 or y2 <= y1:
            return
        width, height = plane.image.size
        source = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32)
        matrix = cv2.getPerspectiveTransform(source, (seen - (x1, y1)).astype(np.float32))
        pixels = np.asarray(plane.image).astype(np.float32)
        u, v = np.linspace(0, 1, width)[None], np.linspace(0, 1, height)[:, None]
        ahead = corners[0, 2] + u * (corners[1, 2] - corners[0, 2]) + v * (corners[3, 2] - corners[0, 2])
        haze = 1 - np.exp(-ahead / 140)
        shade = light * (1.04 - 0.12 * v) * (1 - haze)
        pixels[..., :3] = pixels[..., :3] * shade[..., None] + haze[..., None] * (205, 212, 222)
        pixels[..., :3] *= pixels[..., 3:] / 255  # what is transparent has no colour that blurs into the rest
        share = np.ptp(seen[:, 0]) / width
        if share < 0.7:  # painted finer than it is seen: blurred first
            pixels = cv2.GaussianBlur(pixels, (0, 0), 0.35 / max(share, 0.03))
        warped = cv2.warpPerspective(pixels, matrix, (int(x2 - x1), int(y2 - y1)), flags=cv2.INTER_LINEAR)
        opacity = warped[..., 3:] / 255
        here = self.image[y1:y2, x1:x2]
        here[:] = here * (1 - opacity) + warped[..., :3]
        shares = [hidden_share(word * SCALE - (x1, y1), opacity[..., 0] > 0.5) for word in self.words]
        self.dont_care += [word for word, share in zip(self.words, shares, strict=True) if LEGIBLE < share < GONE]
        self.words = [word for word, share in zip(self.words, shares, strict=True) if share <= LEGIBLE]
        for word in plane.words:
            quad = (cv2.perspectiveTransform(word[None].astype(np.float32), matrix)[0] + (x1, y1)) / SCALE
            cut, (wide, high) = quad.clip(0, (WIDTH, HEIGHT)), sides(quad)
            squeezed = wide / high * np.divide(*sides(word)[::-1])
            if (cut == quad).all() and high >= SMALLEST and squeezed >= NARROWEST:
                self.words.append(quad)
            elif (np.ptp(cut, axis=0) > 2).all():
                self.dont_care.append(cut)

    def shadow(self, points: list[tuple[float, float]], strength: float, blur: float = 6) -> None:
        """A shadow on the road: corners in metres right and ahead."""
        corners = project(np.array([(x, 0, z) for x, z in points], float)) * SCALE
        mask = np.zeros(self.image.shape[:2], np.float32)
        cv2.fillPoly(mask, [np.round(corners).astype(np.int32)], strength)
        self.image *= 1 - cv2.GaussianBlur(mask, (0, 0), blur * SCALE)[..., None]

    def photograph(self) -> np.ndarray:
        """(HEIGHT, WIDTH, 3) uint8 as a camera sees it: soft, darker at the corners, with grain."""
        image = cv2.resize(self.image.astype(np.float32), (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
        glow = cv2.GaussianBlur((image - 190).clip(0, None), (0, 0), 14)
        image = cv2.GaussianBlur(image + 0.35 * glow, (0, 0), 0.55)
        x, y = np.linspace(-1, 1, WIDTH)[None], np.linspace(-1, 1, HEIGHT)[:, None]
        image *= (1.03 - 0.2 * (x**2 + y**2) ** 1.2)[..., None] * np.array([1.03, 1.0, 0.95])
        grain = self.rng.normal(0, 3.2, image.shape[:2])[..., None] + cv2.GaussianBlur(
            self.rng.normal(0, 6, image.shape), (0, 0), 1.5
        )
        return (255 * (image.clip(0, 255) / 255) ** 0.95 + grain).clip(0, 255).astype(np.uint8)


def road(rng: np.random.Generator) -> Plane:
    """From the camera's feet to the end of the street: pavements, a kerb, a lane and what is written on it."""
    plane = Plane(16, 44, (96, 97, 100))
    width, height = plane.image.size
    pixels = (
        96
        + rng.normal(0, 9, (height // 2, width // 2))
        + cv2.resize(rng.normal(0, 1, (40, 16)), (width // 2, height // 2)) * 5
    )
    pixels = cv2.resize(pixels, (width, height))[..., None] * (1.0, 1.0, 1.03)
    plane.image.paste(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)))
    for left in (0, 10.7):
        plane.box(left, 0, 5.3, 44, (158, 154, 148))
        for y in np.arange(0, 44, 0.8):
            plane.box(left, y, 5.3, 0.02, (132, 128, 122))
        for x in np.arange(left, left + 5.3, 0.8):
            plane.box(x, 0, 0.02, 44, (136, 132, 126))
    plane.box(5.3, 0, 0.18, 44, (186, 184, 178))
    plane.box(10.52, 0, 0.18, 44, (186, 184, 178))
    for y in np.arange(1, 34, 3.6):
        plane.box(7.93, y, 0.14, 1.8, (214, 212, 204))
    return plane
