"""`python -m modelhub` is the command line."""

from modelhub.cli import main

main()
