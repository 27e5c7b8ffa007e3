"""Protocols judge an encoder from its frozen features. Importing this is cheap: no scikit-learn, no torch."""

from dermsearch.downstream.base import PROTOCOLS, Features, Protocol, configure, find, judge
from dermsearch.downstream.knn import Knn
from dermsearch.downstream.linear import Linear

_ALL: tuple[Protocol, ...] = (Knn(), Linear())
PROTOCOLS.update({protocol.name: protocol for protocol in _ALL})

__all__ = ["PROTOCOLS", "Features", "Protocol", "configure", "find", "judge"]
