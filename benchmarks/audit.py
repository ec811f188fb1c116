"""Known vulnerabilities of the locked packages: make audit. Installs none of them; needs pip-audit and its database."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from models.errors import UserError
from utils.runtime.cli import run_command

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ('requirements.lock', 'requirements-dev.lock')
OPTIONS = ('--format', 'json', '--progress-spinner', 'off', '--disable-pip', '--require-hashes', '--timeout', '20')


def audit(lock: Path) -> tuple[list[dict], list[str]]:
    """What pip-audit says of each package that its database knows, and the names of the others. Raises UserError."""
    command = (sys.executable, '-m', 'pip_audit', *OPTIONS, '-r', str(lock))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        packages = json.loads(done.stdout)['dependencies']
    except (ValueError, KeyError):
        last = (done.stderr.strip() or 'no answer').splitlines()[-1]
        raise UserError(f'nothing was audited: the vulnerability database cannot be reached ({last[:200]})') from None
    known = [package for package in packages if 'vulns' in package]
    if not known:  # pip-audit itself calls that a success
        raise UserError('nothing was audited: the vulnerability database cannot be reached, it knows no package')
    return known, [package['name'] for package in packages if 'vulns' not in package]


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    packages, unknown = {}, set()
    for lock in LOCKS:  # some of their versions differ
        known, others = audit(ROOT / lock)
        packages |= {(package['name'], package['version']): package['vulns'] for package in known}
        unknown |= set(others)
    found = [(name, version, each) for (name, version), of_one in packages.items() for each in of_one]
    for name, version, vulnerability in found:
        fixed = ', '.join(vulnerability['fix_versions']) or 'no version'
        print(f'{name} {version}: {vulnerability["id"]}, fixed in {fixed}')
    rest = f'; the database does not know {", ".join(sorted(unknown))}' if unknown else ''
    print(f'{len(packages)} packages audited{rest}')
    if found:
        raise UserError(f'{len(found)} known vulnerabilities')


if __name__ == '__main__':
    run_command(main)
