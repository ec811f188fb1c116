"""Formats in JSON: LabelMe, Label Studio."""

import contextlib
import math
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np

from data.formats.common import BadEntry
from data.formats.image_files import ImageFiles
from data.formats.pages import (
    MAX_JSON_BYTES,
    Page,
    Region,
    annotation_files,
    expect,
    image_of,
    load_json,
    own_image,
    points_of,
    to_box,
    to_number,
    to_polygon,
    to_size,
    word_region,
)
from models.errors import UserError
from ocrdistill.files import HEIF, IMAGE_SUFFIXES

MAX_PAGE_BYTES = 64 << 20  # of a LabelMe file, which may hold its picture
SHAPES_OF_LABELME = ('polygon', 'rectangle', 'rotation', 'quadrilateral')  # the last two are X-AnyLabeling's
SHAPES_OF_LABEL_STUDIO = {'x', 'points', 'rle', 'radiusX', 'vertices', 'imageDataURL'}  # any of them: a region


def read_labelme(folder: Path, images: ImageFiles) -> Iterator[Page]:
    """A file for each image; polygons and rectangles, also turned ones; the description is the word."""
    for file, relative in annotation_files(folder, ('.json',)):
        page = Page(relative.as_posix(), own_image(relative, images))
        with page.problems():
            content = expect(load_json(file, MAX_PAGE_BYTES), dict, 'the content')
            shapes = expect(content.get('shapes'), list, '"shapes"')
            page.image = image_of(content.get('imagePath'), relative, images, page)
            if content.get('imageWidth') is not None:  # old versions leave it out
                page.size = to_size(content['imageWidth'], content.get('imageHeight'))
            page.add_rows(shapes, _parse_labelme)
        yield page


def _parse_labelme(shape) -> Region:
    kind = expect(shape, dict, 'a shape').get('shape_type') or 'polygon'
    if kind not in SHAPES_OF_LABELME:
        raise BadEntry(f'the shape {str(kind)[:30]!a} is not supported, use polygons and rectangles')
    points = points_of(shape.get('points'))
    is_box = kind == 'rectangle'  # LabelMe gives two corners, X-AnyLabeling four
    two = is_box and len(points) == 2
    polygon = to_box(*points[0], *points[1]) if two else to_polygon(v for point in points for v in point)
    word, labels = str(shape.get('description') or ''), (str(shape.get('label')),)
    flags = shape.get('flags')  # LabelMe's own; X-AnyLabeling's stands in the shape
    difficult = any(source.get('difficult') is True for source in (shape, flags) if isinstance(source, dict))
    return word_region(polygon, word, difficult, labels, is_box=is_box)


def read_label_studio(file: Path, images: ImageFiles) -> Iterator[Page]:
    """Tasks as Label Studio exports them as JSON; those that nobody has annotated are left out.

    Of several annotations of a task the ground truth counts, or else the newest.
    """
    try:
        tasks = expect(load_json(file, MAX_JSON_BYTES), list, 'the content')
        if not any(isinstance(task, dict) and isinstance(task.get('annotations'), list) for task in tasks):
            raise BadEntry('no task has "annotations"; export as JSON, not as JSON-MIN')
    except BadEntry as error:
        raise UserError(f'{file} is no JSON export of Label Studio: {error}') from None
    for number, task in enumerate(tasks, 1):
        page = Page(f'{file.name} task {number}')
        with page.problems():
            results = _results(expect(task, dict, 'the task'))
            if results is None:
                page.left_out = 'task that nobody has annotated'
                with contextlib.suppress(BadEntry):
                    page.image = _image_of_task(task, images)
                yield page
                continue
            page.image = _image_of_task(task, images)
            regions = _regions_of(results)
            page.size = _size_of(results) if regions else None
            page.add_rows(regions, lambda results, size=page.size: _parse_label_studio(results, size))
        yield page


def _results(task: dict) -> list[dict] | None:
    """The results of the annotation that counts; None where there is none. Raises BadEntry."""
    annotations = task.get('annotations') or []
    done = [a for a in expect(annotations, list, '"annotations"') if not expect(a, dict, 'one').get('was_cancelled')]
    if not done:
        return None
    chosen = max(reversed(done), key=lambda a: (a.get('ground_truth') is True, str(a.get('updated_at') or '')))
    return [expect(result, dict, 'a result') for result in expect(chosen.get('result'), list, '"result"')]


def _image_of_task(task: dict, images: ImageFiles) -> Path:
    """The picture that a task's data links to. Raises BadEntry."""
    links = [link for link in expect(task.get('data'), dict, '"data"').values() if isinstance(link, str)]
    names = [name for name in map(_name_of_link, links) if Path(name.lower()).suffix in IMAGE_SUFFIXES | HEIF]
    if len(names) != 1:
        raise BadEntry(f'"data" links to {len(names)} pictures, expected one')
    return images.find(names[0])


def _name_of_link(link: str) -> str:
    """The path that a link ends with: /data/upload/1/x.jpg, /data/local-files/?d=x.jpg, s3://bucket/x.jpg, x.jpg."""
    scheme, mark, rest = link.partition('://')
    if mark and not scheme.startswith('http'):  # of a store, whose names are no links
        return rest.partition('?')[0]
    if not mark and not link.startswith('/data/'):
        return link
    try:
        parts = urlsplit(link)
    except ValueError:
        return link
    place = re.search('(?:^|&)d=([^&]*)', parts.query)
    return unquote(place[1] if place else parts.path)


def _regions_of(results: list[dict]) -> list[list[dict]]:
    """Results with a place in the picture, grouped: a region's shape, labels and word are results of one id."""
    regions = defaultdict(list)
    for number, result in enumerate(results):
        value = result.get('value')
        if isinstance(value, dict) and SHAPES_OF_LABEL_STUDIO & value.keys():
            regions[str(result.get('id', f'number {number}'))].append(result)
    if len({str(result.get('to_name')) for group in regions.values() for result in group}) > 1:
        raise BadEntry('regions of several pictures in one task are not supported')
    return list(regions.values())


def _size_of(results: list[dict]) -> tuple[int, int]:
    """(width, height) of the picture that was annotated. Raises BadEntry."""
    placed = [result for group in _regions_of(results) for result in group]
    if any(result.get('image_rotation') for result in placed):
        raise BadEntry('the picture was turned in Label Studio; turn the file instead, and annotate it again')
    sizes = {to_size(result.get('original_width'), result.get('original_height')) for result in placed}
    if len(sizes) != 1:
        raise BadEntry('its regions give several sizes of the picture')
    return sizes.pop()


def _parse_label_studio(results: list[dict], size: tuple[int, int]) -> Region:
    """Percent of the picture to pixels; a rectangle is turned clockwise around its own top left corner."""
    value, scale = results[0]['value'], np.array(size) / 100
    if 'points' not in value and not {'x', 'y', 'width', 'height'} <= value.keys():
        raise BadEntry(f'{str(results[0].get("type"))[:30]!a} is not supported, use rectangles and polygons')
    is_box = 'points' not in value and not value.get('rotation')
    if 'points' in value:
        polygon = to_polygon(v for point in points_of(value['points']) for v in point) * scale
    else:
        corner = np.array([to_number(value['x']), to_number(value['y'])]) * scale
        width, height = np.array([to_number(value['width']), to_number(value['height'])]) * scale
        angle = math.radians(to_number(value.get('rotation') or 0))
        along = width * np.array([math.cos(angle), math.sin(angle)])
        down = height * np.array([-math.sin(angle), math.cos(angle)])
        polygon = np.array([corner, corner + along, corner + along + down, corner + down])
    values = [result['value'] for result in results]
    labels = [v.get(str(result.get('type'))) for result, v in zip(results, values, strict=True)]
    names = [str(name) for given in labels if isinstance(given, list) for name in given]
    words = [text for v in values for text in (v['text'] if isinstance(v.get('text'), list) else [v.get('text')])]
    word = ' '.join(str(word) for word in words if word)
    return word_region(polygon, word, labels=tuple(names), is_box=is_box)
