"""Protocols judge an encoder by what its features tell. Importing this is cheap: no scikit-learn, no torch."""

from dermsearch.downstream.base import PROTOCOLS, Classifier, Features, Given, Images, Ruler, configure, find, judge
from dermsearch.downstream.finetune import Finetune
from dermsearch.downstream.guess import Majority, Stratified
from dermsearch.downstream.handover import LinearHandover
from dermsearch.downstream.knn import Knn
from dermsearch.downstream.linear import Linear
from dermsearch.downstream.pairs import Pairs

_ALL: tuple[Classifier | Ruler, ...] = (
    Knn(),
    Linear(),
    LinearHandover(),
    Finetune(),
    Pairs(),
    Majority(),
    Stratified(),
)
PROTOCOLS.update({protocol.name: protocol for protocol in _ALL})

__all__ = ["PROTOCOLS", "Features", "Given", "Images", "configure", "find", "judge"]
