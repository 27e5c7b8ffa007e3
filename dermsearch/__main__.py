"""python -m dermsearch"""

from dermsearch.cli.main import program

program()
