"""Annotation formats. Each is read by one function: read(annotations, pictures) yields a Page for each picture."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from data.formats import coco, json_files, text_files, xml_files
from data.formats.image_files import ImageFiles
from data.formats.pages import Page


class Format(NamedTuple):
    """How to read a format.

    read: from the annotations (a folder or a file, as `place` says) and the pictures to their pages.
    place: 'folder' or 'file'.
    form: what the annotations look like, for messages and --help.
    labels: regions carry labels, so that --ignore-label has a meaning.
    sets: the annotations themselves say which pictures are for training and which for validation.
    suffixes: of the annotations in a folder.
    """

    read: Callable[[Path, ImageFiles], Iterator[Page]]
    place: str
    form: str
    labels: bool = False
    sets: bool = False
    suffixes: tuple[str, ...] = ('.txt',)


FORMATS = {
    'icdar2013': Format(text_files.read_icdar2013, 'folder', 'gt_NAME.txt, x1 y1 x2 y2 "word" (or with commas)'),
    'icdar2015': Format(text_files.read_icdar2015, 'folder', 'gt_NAME.txt, x1,y1,x2,y2,x3,y3,x4,y4,word'),
    'icdar2017-mlt': Format(text_files.read_mlt, 'folder', 'gt_NAME.txt, x1,y1,x2,y2,x3,y3,x4,y4,script,word'),
    'total-text': Format(
        text_files.read_total_text,
        'folder',
        "poly_gt_NAME.txt, x: [[..]], y: [[..]], ornt: [u'c'], transcriptions: [u'word'], or poly_gt_NAME.mat",
        suffixes=('.txt', '.mat'),
    ),
    'yolo': Format(
        text_files.read_yolo,
        'folder',
        "NAME.txt, '0 x y w h' or '0 x1 y1 x2 y2 ...', 0..1 of the picture",
        labels=True,
    ),
    'coco-text': Format(coco.read_coco_text, 'file', '"imgs" and "anns", as COCO_Text.json', sets=True),
    'coco': Format(coco.read_coco, 'file', '"images" and "annotations", as COCO has its objects', labels=True),
    'labelme': Format(json_files.read_labelme, 'folder', 'NAME.json with "shapes"', labels=True, suffixes=('.json',)),
    'label-studio': Format(
        json_files.read_label_studio,
        'file',
        'tasks with "data" and "annotations", as it exports JSON (not JSON-MIN)',
        labels=True,
    ),
    'voc': Format(
        xml_files.read_voc, 'folder', 'NAME.xml with <object>, as Pascal VOC', labels=True, suffixes=('.xml',)
    ),
    'cvat': Format(xml_files.read_cvat, 'file', "<image> with shapes, as 'CVAT for images 1.1'", labels=True),
    'ppocrlabel': Format(
        text_files.read_ppocrlabel,
        'file',
        'rows of a path, a tab and JSON, as Label.txt of PPOCRLabel',
        labels=True,
    ),
}
