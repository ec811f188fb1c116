"""`python -m ocrdistill`: the command."""

from ocrdistill.cli import main

main()
