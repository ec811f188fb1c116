"""Words in a picture, with ONNX Runtime and without PyTorch: python examples/onnx_detect.py best.onnx photo.jpg"""

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import onnxruntime


def detect(session, image, iou_thres=0.45):
    """Boxes of a picture (H, W, 3) uint8 RGB, best first: rows x1, y1, x2, y2 in its pixels, score, class."""
    about = {key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items()}
    conf_thres, stride = about['conf_threshold'] or 0.25, about['stride']
    size, shape = np.array(about['imgsz']), np.array(image.shape[:2])  # height, width
    scale = round((size / shape).min() * shape.max()) / shape.max()
    new = np.maximum((shape * scale).round().astype(int), 1)
    whole = -(-new // stride) * stride if about['dynamic'] else size
    resized = cv2.resize(image, new[::-1].tolist(), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    top, left = (whole - new) // 2
    padded = np.full((*whole, 3), 114, np.uint8)
    padded[top : top + new[0], left : left + new[1]] = resized

    images = padded.transpose(2, 0, 1)[None].astype(np.float32) / 255
    decoded = session.run(['boxes'], {'images': images})[0][0]  # (M, 5 + classes)
    scores = decoded[:, 4:5] * decoded[:, 5 : 5 + len(about['names'])]
    category, score = scores.argmax(1), scores.max(1)
    corner, wh = decoded[:, :2] - decoded[:, 2:4] / 2, decoded[:, 2:4]
    kept = cv2.dnn.NMSBoxesBatched(np.hstack((corner, wh)), score, category.astype(np.int32), conf_thres, iou_thres)
    kept = np.array(kept, int)
    corners = np.stack((corner[kept], corner[kept] + wh[kept]), 1)  # (n, 2, 2)
    corners = ((corners - [left, top]) / (new / shape)[::-1]).clip(0, shape[::-1])
    rows = np.hstack((corners.reshape(-1, 4), score[kept, None], category[kept, None]))
    return rows[(corners[:, 0] < corners[:, 1]).all(1)]  # none that lies on the grey


def main(arguments):
    if len(arguments) != 2:
        sys.exit('usage: python examples/onnx_detect.py MODEL.onnx IMAGE')
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from utils.loading.images import Unreadable, read_image  # upright, 8 bits, on white; needs no PyTorch

    try:
        image = read_image(Path(arguments[1]))
    except Unreadable as error:
        sys.exit(f'error: {arguments[1]}: the image cannot be read ({error})')
    try:
        session = onnxruntime.InferenceSession(arguments[0])
    except Exception:  # ONNX Runtime has many, of many lines
        sys.exit(f'error: {arguments[0]} is no ONNX file (python export.py --format onnx writes one)')
    about = session.get_modelmeta().custom_metadata_map
    if about.get('format') != '"ocrdistill"' or about.get('nms') == 'true':
        sys.exit(f'error: {arguments[0]} is not of export.py, or with its --nms')
    for row in detect(session, image):
        print(*row[:4].round(2).tolist(), round(row[4], 5), int(row[5]))


if __name__ == '__main__':
    main(sys.argv[1:])
