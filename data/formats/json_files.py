"""Formats in JSON: COCO-Text, LabelMe, Label Studio."""

import math
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
from tqdm import tqdm

from data.formats.common import BadEntry
from data.formats.pages import (
    SUFFIXES,
    ImageFiles,
    Page,
    Region,
    annotation_files,
    expect,
    load_json,
    to_box,
    to_number,
    to_polygon,
)
from models.errors import UserError

MAX_BYTES = 1 << 30  # of a file for all pictures; COCO_Text.json has less than 100 MiB
MAX_PAGE_BYTES = 64 << 20  # of a LabelMe file, which may hold its picture
UPLOAD = re.compile(r'[0-9a-f]{8}-(?=.)')  # what Label Studio puts before the name of an uploaded file
SHAPES_OF_LABEL_STUDIO = {'x', 'points', 'rle', 'radiusX', 'vertices', 'imageDataURL'}  # any of them: a region


def read_coco_text(file: Path, pictures: ImageFiles) -> Iterator[Page]:
    """COCO_Text.json, versions 1 and 2. Sets of which no annotation was published are left out."""
    try:
        content = expect(load_json(file, MAX_BYTES), dict, 'the content')
        images, annotations = expect(content.get('imgs'), dict, '"imgs"'), expect(content.get('anns'), dict, '"anns"')
    except BadEntry as error:
        raise UserError(f'{file} is no COCO-Text file: {error}') from None
    of_image = defaultdict(list)
    for annotation in annotations.values():
        of_image[str(annotation.get('image_id')) if isinstance(annotation, dict) else ''].append(annotation)
    sets = {str(image.get('set')) for key, image in images.items() if isinstance(image, dict) and key in of_image}
    for key, image in images.items():
        page = Page(f'{file.name} image {key[:40]}')
        try:
            page.split = str(expect(image, dict, 'the image').get('set'))
            if page.split not in sets:
                continue
            if page.split not in ('train', 'val', 'test'):
                raise BadEntry(f'"set" is {page.split[:30]!a}, expected train, val or test')
            page.size = _size(image.get('width'), image.get('height'))
            page.image = pictures.find(expect(image.get('file_name'), str, '"file_name"'))
        except BadEntry as error:
            page.problem = str(error)
        else:
            page.add_rows(of_image[key], _parse_coco_text)
        yield page


def _parse_coco_text(annotation) -> Region:
    """A polygon ('polygon' in version 1, 'mask' in version 2) or else the box."""
    annotation = expect(annotation, dict, 'the annotation')
    corners = annotation.get('mask') or annotation.get('polygon')
    if isinstance(corners, list) and len(corners) >= 6:
        polygon = to_polygon(corners)
    else:
        box = expect(annotation.get('bbox'), list, '"bbox"')
        x, y, w, h = map(to_number, box) if len(box) == 4 else _refuse(f'"bbox" has {len(box)} numbers')
        polygon = to_box(x, y, x + w, y + h)
    return Region(polygon, str(annotation.get('utf8_string') or ''), annotation.get('legibility') == 'illegible')


def read_labelme(folder: Path, images: ImageFiles) -> Iterator[Page]:
    """A file for each picture; polygons and rectangles, the description is the word."""
    for file in tqdm(annotation_files(folder, ('.json',)), 'reading', unit='file', leave=False, delay=2):
        page = Page(file.relative_to(folder).as_posix())
        try:
            content = expect(load_json(file, MAX_PAGE_BYTES), dict, 'the content')
            shapes = expect(content.get('shapes'), list, '"shapes"')
            page.image = _image_of_labelme(content.get('imagePath'), file.relative_to(folder), images)
            if content.get('imageWidth') is not None:  # old versions leave it out
                page.size = _size(content['imageWidth'], content.get('imageHeight'))
            for shape in shapes:
                kind = expect(shape, dict, 'a shape').get('shape_type') or 'polygon'
                if kind not in ('polygon', 'rectangle'):
                    raise BadEntry(f'the shape {str(kind)[:30]!a} is not supported, use polygons and rectangles')
        except BadEntry as error:
            page.problem = str(error)
        else:
            page.add_rows(shapes, _parse_labelme)
        yield page


def _image_of_labelme(path, file: Path, images: ImageFiles) -> Path:
    """By the file's own word, or else the picture of the same name as the file. Raises BadEntry."""
    try:
        return images.find(expect(path, str, '"imagePath"'))
    except BadEntry as error:
        try:
            return images.find_stem(file)
        except BadEntry:
            raise error from None


def _parse_labelme(shape: dict) -> Region:
    points = _points(shape.get('points'))
    is_box = shape.get('shape_type') == 'rectangle' and len(points) == 2
    polygon = to_box(*points[0], *points[1]) if is_box else to_polygon(v for point in points for v in point)
    return Region(polygon, str(shape.get('description') or ''), labels=(str(shape.get('label')),))


def read_label_studio(file: Path, images: ImageFiles) -> Iterator[Page]:
    """Tasks as Label Studio exports them as JSON; those that nobody annotated are left out.

    Of several annotations of a task the ground truth counts, or else the newest.
    """
    try:
        tasks = expect(load_json(file, MAX_BYTES), list, 'the content')
        if not any(isinstance(task, dict) and isinstance(task.get('annotations'), list) for task in tasks):
            raise BadEntry('no task has "annotations"; export as JSON, not as JSON-MIN')
    except BadEntry as error:
        raise UserError(f'{file} is no JSON export of Label Studio: {error}') from None
    for number, task in enumerate(tasks, 1):
        page = Page(f'{file.name} task {number}')
        try:
            results = _results(expect(task, dict, 'the task'))
            if results is None:
                continue
            page.image = _image_of_task(task, images)
            regions = _regions_of(results)
            page.size = _size_of(results) if regions else None
        except BadEntry as error:
            page.problem = str(error)
        else:
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
    names = [name for name in map(_name_of_link, links) if Path(name.lower()).suffix in SUFFIXES]
    if len(names) != 1:
        raise BadEntry(f'"data" links to {len(names)} pictures, expected one')
    try:
        return images.find(names[0])
    except BadEntry as error:
        folder, slash, name = names[0].rpartition('/')
        if not UPLOAD.match(name):
            raise
        try:
            return images.find(folder + slash + UPLOAD.sub('', name, count=1))
        except BadEntry:
            raise error from None


def _name_of_link(link: str) -> str:
    """The path that a link ends with: /data/upload/1/x.jpg, /data/local-files/?d=x.jpg, s3://bucket/x.jpg, x.jpg."""
    if '://' not in link and not link.startswith('/data/'):
        return link
    try:
        parts = urlsplit(link)
    except ValueError:
        return link
    return parse_qs(parts.query).get('d', [unquote(parts.path)])[0]


def _regions_of(results: list[dict]) -> list[list[dict]]:
    """Results with a place in the picture, grouped: a region's shape, labels and word are results of one id."""
    regions = defaultdict(list)
    for number, result in enumerate(results):
        value = result.get('value')
        if isinstance(value, dict) and SHAPES_OF_LABEL_STUDIO & value.keys():
            regions[str(result.get('id', f'number {number}'))].append(result)
            if 'points' not in value and not {'x', 'y', 'width', 'height'} <= value.keys():
                kind = str(result.get('type'))[:30]
                raise BadEntry(f'{kind!a} is not supported, use rectangles and polygons')
    if len({str(result.get('to_name')) for group in regions.values() for result in group}) > 1:
        raise BadEntry('regions of several pictures in one task are not supported')
    return list(regions.values())


def _size_of(results: list[dict]) -> tuple[int, int]:
    """(width, height) of the picture that was annotated. Raises BadEntry."""
    placed = [result for group in _regions_of(results) for result in group]
    if any(result.get('image_rotation') for result in placed):
        raise BadEntry('the picture was turned in Label Studio; turn the file instead, and annotate it again')
    sizes = {_size(result.get('original_width'), result.get('original_height')) for result in placed}
    if len(sizes) != 1:
        raise BadEntry('its regions give several sizes of the picture')
    return sizes.pop()


def _parse_label_studio(results: list[dict], size: tuple[int, int]) -> Region:
    """Percent of the picture to pixels; a rectangle is turned clockwise around its own top left corner."""
    value, scale = results[0]['value'], np.array(size) / 100
    if 'points' in value:
        polygon = to_polygon(v for point in _points(value['points']) for v in point) * scale
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
    return Region(polygon, ' '.join(str(word) for word in words if word), labels=tuple(names))


def _points(points) -> list[tuple]:
    """[[x, y], ...]. Raises BadEntry."""
    points = [tuple(expect(point, list, 'a point')) for point in expect(points, list, '"points"')]
    if any(len(point) != 2 for point in points):
        raise BadEntry('a point is not [x, y]')
    return points


def _size(width, height) -> tuple[int, int]:
    width, height = to_number(width), to_number(height)
    if width < 1 or height < 1:
        raise BadEntry(f'the picture is {width:g}x{height:g} pixels large')
    return round(width), round(height)


def _refuse(message: str):
    raise BadEntry(message)
