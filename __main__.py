"""`python -m lictor` is the `lictor` command."""

from lictor.cli import main

main()
