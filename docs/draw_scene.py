"""A rendered street whose words are known: examples/web/example.jpg.

    python docs/draw_scene.py
    ocrdistill detect examples/web/example.jpg --draw docs

Photographs of ICDAR2015 may not be shown here, and free ones of streets with text were not at hand. So shop fronts,
signs and a road are painted as planes, and put into a street by perspective. The second line makes the README's picture
(docs/example.jpg, kept as docs/demo.jpg).
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from docs.scene import Plane, Street, road, shop, tree, wall  # noqa: E402
from utils.evaluation.grids import save_image  # noqa: E402
from utils.runtime.cli import run_command  # noqa: E402


def build(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The street: the picture (HEIGHT, WIDTH, 3) uint8, the quads (n, 4, 2) of its words in pixels, and which are
    don't-care (n,)."""
    rng = np.random.default_rng(seed)
    street = Street(rng)
    street.put(road(rng), (-8, 0, 46), (1, 0, 0), (0, 0, -1))
    left = [
        (
            6.0,
            (196, 120, 92),
            (28, 62, 50),
            (240, 226, 190),
            'Caladea-Bold',
            'Station Bakery',
            ['Fresh|Bread', 'Cakes|Pies'],
            True,
        ),
        (
            5.2,
            (226, 210, 178),
            (140, 28, 36),
            (255, 248, 236),
            'FredokaOne',
            'Toy Corner',
            ['SALE|50%', 'New|Games'],
            False,
        ),
        (5.6, (150, 96, 82), (24, 34, 74), (250, 214, 92), 'FjallaOne', 'RIVER BOOKS', ['Maps', 'Used|Books'], True),
        (5.4, (214, 216, 204), (58, 58, 62), (240, 240, 240), 'Lato-Bold', 'Hair Studio', ['Open|daily'], False),
        (6.0, (190, 150, 118), (20, 90, 110), (255, 255, 255), 'Roboto-Bold', 'PHARMACY', ['Advice'], True),
    ]
    right = [
        (
            5.8,
            (206, 196, 180),
            (40, 44, 48),
            (250, 186, 70),
            'FredokaOne',
            'Pizza Roma',
            ['Lunch|9.50', 'Take|away'],
            False,
        ),
        (
            5.6,
            (164, 84, 70),
            (236, 232, 220),
            (120, 24, 30),
            'Caladea-Bold',
            'Garden Hotel',
            ['Rooms|free', 'Bar'],
            True,
        ),
        (5.4, (186, 192, 196), (16, 84, 60), (255, 255, 255), 'FjallaOne', 'GREEN GROCER', ['Fruit', 'Juice'], False),
        (5.6, (210, 170, 140), (90, 40, 90), (255, 240, 250), 'Lato-Black', 'Flowers', ['Roses'], True),
        (6.0, (176, 176, 168), (30, 60, 130), (255, 255, 255), 'Roboto-Bold', 'CITY BANK', ['Loans'], False),
    ]
    fronts = []
    ahead = 8.2
    for floors, row in zip((1, 2, 1, 2, 1), left, strict=True):
        fronts.append((ahead, shop(rng, floors, *row), (-4.7, 2.6 * floors + 3.8, ahead), (0, 0, 1), 1.12))
        ahead += row[0]
    ahead = 9.2
    for floors, row in zip((2, 1, 2, 1, 2), right, strict=True):
        ahead += row[0]
        fronts.append((ahead - row[0], shop(rng, floors, *row), (4.9, 2.6 * floors + 3.8, ahead), (0, 0, -1), 0.78))
    end = wall(rng, 16, 9, (168, 160, 150), False)
    for x in np.arange(1, 15, 2.2):
        for y in (1, 3.4, 5.8):
            end.window(x, y, 1.1, 1.5, rng)
    street.put(end, (-8, 9, 46), (1, 0, 0), light=0.95)
    for _, plane, corner, along, light in sorted(fronts, key=lambda front: -front[0]):
        street.put(plane, corner, along, light=light)
    street.shadow([(4.9, 5), (4.9, 46), (1.6, 46), (1.0, 5)], 0.34)
    signs(street)
    quads = np.array(street.words + street.dont_care)
    return street.photograph(), quads, np.arange(len(quads)) >= len(street.words)


def pole(street: Street, x: float, z: float, height: float) -> None:
    street.put(Plane(0.09, height, (92, 94, 96)), (x - 0.045, height, z), (1, 0, 0))


def signs(street: Street) -> None:
    """What stands on the pavements and hangs over them, from far to near."""
    for x, z, height in ((-3.5, 30, 5.0), (-3.6, 22, 5.4)):
        plane = tree(street.rng, height)
        street.put(plane, (x - plane.width / 2, height, z), (1, 0, 0))
    blade = Plane(1.25, 0.75, (120, 24, 30))
    blade.box(0.05, 0.05, 1.15, 0.65, (120, 24, 30), (236, 220, 190))
    blade.text(0.625, 0.25, 0.25, 'HOTEL', 'Caladea-Bold', (246, 236, 214))
    street.put(blade, (3.6, 4.5, 17), (0.98, 0, 0.2), light=0.95)
    van(street)
    pole(street, -1.95, 8.4, 3.0)
    one_way = Plane(1.0, 0.36, (22, 70, 150))
    one_way.box(0.03, 0.03, 0.94, 0.3, (22, 70, 150), (240, 240, 240))
    one_way.text(0.5, 0.105, 0.145, 'ONE WAY', 'Roboto-Bold', (250, 250, 250))
    street.put(one_way, (-2.45, 3.0, 8.3), (0.995, 0.06, 0.1))
    name = Plane(1.35, 0.3, (244, 244, 240))
    name.box(0.03, 0.03, 1.29, 0.24, (244, 244, 240), (20, 20, 20))
    name.text(0.675, 0.08, 0.14, 'Mill Street', 'FjallaOne', (16, 16, 20))
    street.put(name, (-2.6, 2.58, 8.3), (0.98, -0.05, 0.2))
    board = Plane(0.72, 1.05, (44, 48, 46))
    board.box(0.0, 0.0, 0.72, 1.05, (44, 48, 46), (150, 104, 60))
    for row, (line, size) in enumerate((('Coffee', 0.15), ('Fresh Cake', 0.13), ('3.90', 0.15))):
        board.text(0.36, 0.16 + 0.28 * row, size, line, 'AmaticSC-Bold' if row < 2 else 'FredokaOne', (244, 240, 226))
    street.shadow([(2.5, 6.1), (3.2, 6.3), (3.8, 6.8), (3.1, 6.6)], 0.3, 3)
    street.put(board, (2.45, 1.04, 6.2), (0.96, 0, 0.28), (0, -0.98, -0.12), light=0.98)


def van(street: Street) -> None:
    """A delivery van seen from behind, its side to the left."""
    side = Plane(4.2, 1.9, (238, 238, 236))
    side.text(2.1, 0.45, 0.4, 'Fast Parcel', 'Lato-BlackItalic', (206, 60, 20))
    side.text(2.1, 1.15, 0.16, 'call 555 0142', 'Roboto-Bold', (60, 60, 70))
    back = Plane(1.9, 1.9, (226, 226, 224))
    back.box(0.12, 0.15, 0.8, 0.7, (50, 58, 66), round_=0.05)
    back.box(0.98, 0.15, 0.8, 0.7, (50, 58, 66), round_=0.05)
    back.box(0.05, 1.45, 0.2, 0.25, (170, 24, 24))
    back.box(1.65, 1.45, 0.2, 0.25, (170, 24, 24))
    back.box(0.6, 1.5, 0.7, 0.2, (246, 246, 240), (20, 20, 20))
    back.text(0.95, 1.54, 0.11, 'KT 4827', 'DejaVuSansMono-Bold', (16, 16, 20))
    back.text(0.95, 1.02, 0.2, 'Fast Parcel', 'Lato-BlackItalic', (206, 60, 20))
    wheels = Plane(1.9, 0.5, (24, 24, 26))
    street.shadow([(0.2, 11.6), (2.7, 11.6), (2.8, 16), (0.3, 16)], 0.55, 3)
    street.put(wheels, (0.5, 0.5, 12.05), (1, 0, 0), light=0.7)
    street.put(side, (0.5, 2.3, 16.2), (0, 0, -1), light=1.05)
    street.put(back, (0.5, 2.3, 12), (1, 0, 0), light=0.9)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--seed', type=int, default=0, help='of another street (%(default)s)')
    parser.add_argument('--out', type=Path, default=ROOT / 'examples/web/example.jpg', help='(%(default)s)')
    options = parser.parse_args()
    image, _, dont_care = build(options.seed)
    save_image(image, options.out)
    print(f"{options.out}: {int((~dont_care).sum())} words, {int(dont_care.sum())} don't-care regions")


if __name__ == '__main__':
    run_command(main)
