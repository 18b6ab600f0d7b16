"""`python -m podplane`."""

from podplane.cli.main import main

main()
