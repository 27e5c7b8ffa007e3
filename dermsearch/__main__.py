"""python -m dermsearch"""

from dermsearch.cli import main

main()
