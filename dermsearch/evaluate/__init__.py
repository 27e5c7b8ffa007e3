"""Protocols judge an encoder by what its features tell. Importing this is cheap: no scikit-learn, no torch."""

from dermsearch.evaluate.base import PROTOCOLS, Classifier, Features, Given, Images, Ruler, configure, find, judge
from dermsearch.evaluate.guess import Majority, Stratified
from dermsearch.evaluate.handover import LinearHandover
from dermsearch.evaluate.knn import Knn
from dermsearch.evaluate.linear import Linear
from dermsearch.evaluate.pairs import Pairs

_ALL: tuple[Classifier | Ruler, ...] = (
    Knn(),
    Linear(),
    LinearHandover(),
    Pairs(),
    Majority(),
    Stratified(),
)
PROTOCOLS.update({protocol.name: protocol for protocol in _ALL}, finetune="dermsearch.fit.finetune:Finetune")

__all__ = ["PROTOCOLS", "Features", "Given", "Images", "configure", "find", "judge"]
