"""Known vulnerabilities of the locked packages: make audit. Installs none of them; needs pip-audit and its database."""

import json
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from models.errors import UserError
from utils.runtime.cli import run_command

ROOT = Path(__file__).resolve().parents[1]
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
    known, unknown = audit(ROOT / 'requirements-dev.lock')
    found = [(p['name'], p['version'], v) for p in known for v in p['vulns']]
    for name, version, vulnerability in found:
        fixed = ', '.join(vulnerability['fix_versions']) or 'no version'
        print(f'{name} {version}: {vulnerability["id"]}, fixed in {fixed}')
    print(f'{len(known)} packages audited' + (f'; the database does not know {", ".join(unknown)}' if unknown else ''))
    if found:
        raise UserError(f'{len(found)} known vulnerabilities')


if __name__ == '__main__':
    run_command(main)
