"""Compare distillation recipes with their control, over several seeds, in one table.

    python compare.py --recipes control,xn_maskdiff,xn_maskdiff_PFI --seeds 3 --name first
    python compare.py --recipes cwd,mask+pfi=5,my.yaml --seeds 0,3,5 --baselines s,m --epochs 100 --name second
    python compare.py --name first --table

Every run gets the same options. With one seed, the control (train.py) and the recipes (distill.py) start from the same
weights and see the same images in the same order. Every best.pt is then evaluated on the test split, at the threshold
that was chosen on val. What is done is not done again: after an interruption, call the same command once more.

All lies in runs/compare/NAME: table.md, table.csv (a row per recipe), runs.csv (a row per run), table.png
(differences and means), curves.png, comparison.yaml (the settings), and in runs/ a folder and a log of each run.
"""

from pathlib import Path

from models.errors import UserError
from utils.comparison.options import CompareOptions
from utils.runtime.cli import run_command
from utils.runtime.options import parse_given


def parse_options() -> CompareOptions:
    """The options; --table with nothing but --name takes the others from comparison.yaml."""
    options, given = parse_given(CompareOptions, __doc__)
    saved = Path(options.project) / options.name / 'comparison.yaml'
    if options.table and given <= {'table', 'name', 'project'} and saved.is_file():
        from models.yamls import read_yaml

        own = {name: getattr(options, name) for name in given}
        content = read_yaml(saved).get('options')
        if not isinstance(content, dict):
            raise UserError(f'{saved} has no options: it is damaged, or of another program')
        return CompareOptions.from_dict(content, saved, **own)
    return options


def main() -> None:
    options = parse_options()
    from utils.comparison.comparison import Comparison
    from utils.comparison.rows import add_rows
    from utils.loading.config import load_data_config
    from utils.loading.listing import list_images
    from utils.runtime.device import find_device
    from utils.runtime.run_folder import make_folder, sole_writer

    data = load_data_config(options.data)
    if not options.table:
        find_device(options.device)
        for split in dict.fromkeys(('train', 'val', options.task)):
            list_images(data, split)
    comparison = Comparison(options, data)
    add_rows(comparison)
    comparison.refuse_other_settings()
    if options.table:
        comparison.write_table()
        print(comparison.markdown())
        return
    with sole_writer(make_folder(comparison.folder)):
        compare(comparison, options.jobs)


def compare(comparison, count: int) -> None:
    """Run what is not done yet, count runs at once, and write the table. Raises UserError where a run failed."""
    from utils.comparison.runner import Runner

    comparison.save()
    jobs = comparison.jobs()
    print(f'{len(jobs)} to run, {comparison.size - len(jobs)} done before; results: {comparison.folder}', flush=True)
    failed = Runner(jobs, count, comparison.write_table).run()
    comparison.write_table()
    print(comparison.markdown())
    if failed:
        raise UserError(f'{len(failed)} of {len(jobs)} failed: {", ".join(failed)}; see the logs in {comparison.place}')


if __name__ == '__main__':
    run_command(main)
