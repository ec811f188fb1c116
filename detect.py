"""Find text in images, videos and webcams: python detect.py --source photos"""

from utils.detection.options import DetectOptions
from utils.runtime.cli import run_command
from utils.runtime.options import parse

# numpy, OpenCV and torch are imported where they are used: --help and a wrong flag are answered at once, and the
# first result comes within a second of importing torch.


def __getattr__(name: str):
    """For users: `from detect import Detector`."""
    if name != 'Detector':
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    from utils.detection.detector import Detector

    return Detector


def main() -> None:
    options = parse(DetectOptions, __doc__)
    from utils.detection import session
    from utils.detection.sources import find_sources
    from utils.detection.writer import Writer

    sources, left_out = find_sources(options.source, options.project, not options.nosave or options.save_crop)
    if left_out:
        print(left_out)
    session.check_sources(sources, options)
    detector = session.build_detector(options)
    with Writer(options, detector.names, {source.path for source in sources if source.path}) as writer:
        progress = session.run(sources, detector, writer, options)
    session.report(progress, detector, writer)


if __name__ == '__main__':
    run_command(main)
