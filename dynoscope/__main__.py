"""`python -m dynoscope` is the command `dynoscope`."""

from dynoscope.cli import main

main()
