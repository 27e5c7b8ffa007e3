"""python -m dermsearch"""

from dermsearch.cli.main import main

main()
