"""Words in a picture, with ONNX Runtime and without PyTorch: python examples/onnx_detect.py best.onnx photo.jpg"""

import json
import sys

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
    scores = decoded[:, 4:5] * decoded[:, 5:]
    category, score = scores.argmax(1), scores.max(1)
    corner, wh = decoded[:, :2] - decoded[:, 2:4] / 2, decoded[:, 2:4]
    kept = cv2.dnn.NMSBoxesBatched(np.hstack((corner, wh)), score, category.astype(np.int32), conf_thres, iou_thres)
    kept = np.array(kept, int)
    corners = np.stack((corner[kept], corner[kept] + wh[kept]), 1)  # (n, 2, 2)
    corners = ((corners - [left, top]) / (new / shape)[::-1]).clip(0, shape[::-1])
    rows = np.hstack((corners.reshape(-1, 4), score[kept, None], category[kept, None]))
    return rows[(corners[:, 0] < corners[:, 1]).all(1)]  # none that lies on the grey


if __name__ == '__main__':
    for row in detect(onnxruntime.InferenceSession(sys.argv[1]), cv2.imread(sys.argv[2], cv2.IMREAD_COLOR_RGB)):
        print(*row.round(2))
