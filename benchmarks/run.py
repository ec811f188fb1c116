"""Time every stage next to a plain implementation of the same work, on this machine, in one run.

    python benchmarks/run.py                  # all stages, under 15 minutes on two cores
    python benchmarks/run.py --only train     # those whose title holds the word
    python benchmarks/run.py --device 0

Plain is what benchmarks/plain.py does: float32 on the CPU, float16 autocast on CUDA, unfused networks, default memory
format, features by hooks, loops for masks and matching, pictures decoded for every use. Each contestant has a process
of its own; their rounds alternate, and a ratio is the median of the rounds' own, with the least and the greatest. The
table and bench.json lie in the output folder.
"""

import argparse
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from models.errors import UserError  # noqa: E402
from utils.runtime.cli import positive, run_command  # noqa: E402
from utils.runtime.cores import usual_workers  # noqa: E402
from utils.runtime.run_folder import make_folder, write_json, write_text  # noqa: E402

COLD_STARTS = 4
CPU_BATCH, GPU_BATCH = 8, 64
GPU_STEPS = 10


@dataclass(frozen=True)
class Stage:
    """One row of the table, or several.

    Attributes:
        title: what is timed.
        contestants: {title: (class in contests.py, its options)}; the first is the product's, 'plain' the plain one.
        rounds: timed, on a CPU.
        flops: (teacher, student) whose operations make the floor, or None.
    """

    title: str
    contestants: dict[str, tuple[str, dict]]
    rounds: int
    flops: tuple[str, str] | None = None


def distillation(teacher: str) -> Stage:
    return Stage(
        f'distillation step, {teacher.upper()} teaches N',
        {
            'ours': ('Training', {'teacher': teacher}),
            'plain': ('PlainTraining', {'teacher': teacher}),
            'teacher alone': ('Teacher', {'teacher': teacher}),
            'student alone': ('Training', {}),
            'ours, with loading': ('Training', {'teacher': teacher, 'loading': True}),
        },
        4,
        (teacher, 'n'),
    )


def training(size: str) -> Stage:
    return Stage(
        f'training step, {size.upper()}',
        {
            'ours': ('Training', {'student': size}),
            'plain': ('PlainTraining', {'student': size}),
            'plain, our allocator': ('PlainTraining', {'student': size, 'keep_memory': True}),
        },
        6,
        ('', size),
    )


COLD_START = 'cold start'
STAGES = (
    distillation('x'),
    distillation('l'),
    training('n'),
    training('s'),
    Stage(
        'loading mosaics, one process',
        {'ours': ('Loading', {'workers': 0}), 'plain': ('PlainLoading', {'workers': 0})},
        2,
    ),
    Stage(
        'loading mosaics, worker processes',
        {'ours': ('Loading', {}), 'plain': ('PlainLoading', {}), 'ours, no cache': ('Loading', {'cache': False})},
        3,
    ),
    Stage(
        'validation, files to figures',
        {
            'ours': ('Validation', {'amp': True}),
            'plain': ('PlainValidation', {}),
            'ours, float32': ('Validation', {'amp': False}),
        },
        2,
    ),
    Stage(
        'detection, one picture to boxes',
        {
            'ours': ('Detection', {}),
            'plain': ('PlainDetection', {}),
            'plain, our allocator': ('PlainDetection', {'keep_memory': True}),
        },
        10,
    ),
)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--only', default='', metavar='WORDS', help='stages whose title holds one of these, a|b|c')
    parser.add_argument('--data', metavar='YAML', help='(data/ICDAR.yaml if prepared, else rendered pictures)')
    parser.add_argument(
        '--weights',
        default='teacher/demo/yolov5n.pt',
        metavar='PT',
        help='for validation and detection, without quads (%(default)s)',
    )
    parser.add_argument('--device', default='', help="'cpu' or the number of a GPU (default: a GPU if there is one)")
    parser.add_argument('--imgsz', type=positive, default=640, metavar='PX', help='longer side, pixels (%(default)s)')
    parser.add_argument(
        '--batch-size', type=positive, metavar='N', help=f'pictures a step (CPU {CPU_BATCH}, GPU {GPU_BATCH})'
    )
    parser.add_argument('--workers', type=int, metavar='N', help="loading processes (train.py's default)")
    parser.add_argument('--rounds', type=positive, metavar='N', help='timed rounds of every stage (2 to 10, by stage)')
    parser.add_argument('--out', type=Path, metavar='DIR', help='(runs/bench, with --only runs/bench_only)')
    options = parser.parse_args()
    if options.out is None:  # a part does not replace the whole
        options.out = ROOT / ('runs/bench_only' if options.only else 'runs/bench')
    if options.workers is not None and options.workers < 0:
        parser.error('--workers: 0 or more')
    if options.imgsz < 64 or options.imgsz % 32:
        parser.error('--imgsz: a multiple of 32, at least 64')
    return options


def choose_data(given: str | None) -> str:
    """The data to measure with; renders the demo's pictures if there are no others."""
    from utils.loading.config import load_data_config
    from utils.loading.listing import list_images

    for candidate in [given] if given else ['data/ICDAR.yaml', 'data/demo.yaml']:
        try:
            for split in ('train', 'test'):
                list_images(load_data_config(candidate), split)
        except UserError:
            if given:
                raise
            continue
        return candidate
    subprocess.run([sys.executable, 'data/synthtext.py'], cwd=ROOT, check=True)
    return 'data/demo.yaml'


def make_settings(options: argparse.Namespace):
    from benchmarks.contests import Settings
    from models.checkpoint import has_quads, read_checkpoint
    from utils.loading.config import load_data_config
    from utils.loading.listing import list_images
    from utils.runtime.device import select_device

    if has_quads(read_checkpoint(options.weights)):
        raise UserError(f'--weights {options.weights}: it predicts quads, which the plain versions do not know')
    device = select_device(options.device)
    gpu = device.type == 'cuda'
    data, batch = choose_data(options.data), options.batch_size or (GPU_BATCH if gpu else CPU_BATCH)
    count = len(list_images(load_data_config(data), 'train'))
    if batch > count:
        raise UserError(f'--batch-size {batch}: {data} has {count} training pictures')
    return Settings(
        data=data,
        weights=options.weights,
        device=str(device.index if gpu else device),
        imgsz=options.imgsz,
        batch=batch,
        steps=min(GPU_STEPS, count // batch) if gpu else 1,
        workers=usual_workers() if options.workers is None else options.workers,
    )


def measure(stage: Stage, settings, rounds: int) -> dict:
    """All figures of a stage; times in milliseconds a picture, memory in MiB."""
    from benchmarks.arena import compete, ratio

    records = compete(stage.contestants, settings, rounds)
    of_step = stage.flops is not None
    result = {'title': stage.title, 'contestants': {}}
    for name, record in records.items():
        images = settings.batch * settings.steps if of_step else record.results['pictures']
        result['contestants'][name] = {
            'ms': 1000 * statistics.median(record.seconds) / images,
            'rounds': [1000 * seconds / images for seconds in record.seconds],
            'found': record.results,
            'peak': record.memory,
            'loaded': record.base,
        }
    ours = records['ours'].seconds
    result['ratios'] = {name: ratio(r.seconds, ours) for name, r in records.items() if name != 'ours'}
    if 'teacher alone' in records:
        parts = zip(records['teacher alone'].seconds, records['student alone'].seconds, strict=True)
        result['over_parts'] = ratio(ours, [a + b for a, b in parts])
    if of_step:
        result['memory'] = records['ours'].memory / records['plain'].memory
        result['floor'] = floor_of(stage.flops, settings, result['contestants']['ours']['ms'])
    return result


def floor_of(models: tuple[str, str], settings, ms: float) -> dict:
    """Operations of teacher forward and student step for one picture, the time that they need, and its share."""
    from benchmarks.contests import new_model
    from benchmarks.floor import matrix_rate, operations
    from utils.runtime.device import network_dtype, select_device

    device = select_device(settings.device)
    rate = matrix_rate(device, network_dtype(device, True))
    teacher, student = models
    cpu = select_device('cpu')
    count = operations(new_model(student, cpu), settings.imgsz, backward=True)
    if teacher:
        count += operations(new_model(teacher, cpu), settings.imgsz, backward=False)
    least = 1000 * count / rate
    return {'gflop': count / 1e9, 'gflops': rate / 1e9, 'ms': least, 'reached': least / ms}


def measure_cold_start(settings) -> dict:
    """Seconds from the start of a process: of `import torch` alone, and of detect.py to its first result."""
    from utils.loading.config import load_data_config
    from utils.loading.listing import list_images

    image = list_images(load_data_config(settings.data), 'test')[0]
    detect = [sys.executable, '-u', 'detect.py', '--weights', settings.weights, '--source', str(image), '--nosave']
    commands = {'import torch': [sys.executable, '-c', 'import torch; print()'], 'detect.py': detect}
    commands['detect.py'] += ['--device', settings.device]
    seconds = {name: [] for name in commands}
    for number in range(COLD_STARTS + 1):
        for name, command in commands.items():
            start = time.perf_counter()
            with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
                process.stdout.readline()  # of detect.py: the words in its first picture
                spent = time.perf_counter() - start
                process.stdout.read()
            if process.returncode:
                raise UserError(f'{" ".join(command)} ended with status {process.returncode}')
            if number:
                seconds[name].append(spent)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {'seconds': medians, 'rounds': seconds, 'over_torch': medians['detect.py'] - medians['import torch']}


def describe_stage(result: dict) -> list[str]:
    """Rows of the Markdown table."""
    rows = []
    for name, entry in result['contestants'].items():
        ratio = result['ratios'].get(name)
        text = '{median:.2f} ({least:.2f} to {greatest:.2f})'.format(**ratio) if ratio else ''
        rows.append(f'| {result["title"]} | {name} | {entry["ms"]:.2f} | {text} | {entry["peak"]:.0f} |')
    return rows


def describe(report: dict) -> str:
    """The report in Markdown."""
    lines = [f'{report["machine"]}', '', '| stage | | ms a picture | times ours (least to greatest) | peak MiB |']
    lines += ['|---|---|---|---|---|']
    for result in report['stages']:
        lines += describe_stage(result)
    lines.append('')
    for result in report['stages']:
        if 'over_parts' in result:
            text = '{median:.3f} ({least:.3f} to {greatest:.3f})'.format(**result['over_parts'])
            lines.append(f'- {result["title"]}: {text} times teacher forward alone + student step alone')
        if 'floor' in result:
            text = '{gflop:.1f} GFLOP a picture at {gflops:.0f} GFLOP/s: at least {ms:.1f} ms'.format(**result['floor'])
            lines.append(f'- {result["title"]}: {text}, {result["floor"]["reached"]:.0%} of the measured time;')
            lines[-1] += f' peak memory {result["memory"]:.2f} of plain'
    if 'cold_start' in report:
        cold = report['cold_start']
        lines.append(
            f'- detect.py to its first result: {cold["seconds"]["detect.py"]:.2f} s, import torch alone '
            f'{cold["seconds"]["import torch"]:.2f} s: {cold["over_torch"]:.2f} s more'
        )
    return '\n'.join(lines) + '\n'


def machine(settings) -> str:
    import torch

    from utils.runtime.device import describe as describe_device
    from utils.runtime.device import select_device

    device = describe_device(select_device(settings.device))
    return f'{device}; {platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}'


def main() -> None:
    options = parse_options()
    settings = make_settings(options)
    wanted = options.only.split('|')
    stages = [stage for stage in STAGES if any(word in stage.title for word in wanted)]
    cold_start = any(word in COLD_START for word in wanted)
    if not stages and not cold_start:
        titles = ', '.join([*(stage.title for stage in STAGES), COLD_START])
        raise UserError(f'--only {options.only}: no stage has that in its name; they are: {titles}')
    report = {'machine': machine(settings), 'settings': asdict(settings), 'stages': []}
    print(f'{report["machine"]}\n{asdict(settings)}', flush=True)
    make_folder(options.out)
    for stage in stages:
        start = time.perf_counter()
        report['stages'].append(measure(stage, settings, options.rounds or stage.rounds))
        print(f'{stage.title}: measured in {time.perf_counter() - start:.0f} s', flush=True)
        write_report(report, options.out)  # what has been measured stays if a later stage fails
    if cold_start:
        report['cold_start'] = measure_cold_start(settings)
    print(f'\n{write_report(report, options.out)}\n{options.out / "bench.json"}')


def write_report(report: dict, folder: Path) -> str:
    """bench.json and bench.md; returns the latter's text."""
    text = describe(report)
    write_json(folder / 'bench.json', report)
    write_text(folder / 'bench.md', text)
    return text


if __name__ == '__main__':
    run_command(main)
