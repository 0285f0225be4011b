"""Universal tags by a spaCy model, an alternative to the parser's own tags."""

from collections.abc import Sequence

from diffcontrol.refused import Refused


class SpacyTagger:
    """Tags texts that are already words; loads the model when first asked.

    Raises:
        Refused: the model is not installed.
    """

    def __init__(self, model: str):
        import spacy  # takes a second, and the default needs none

        try:
            self.pipeline = spacy.load(model, exclude=["parser", "ner", "lemmatizer"])
        except OSError as error:
            raise Refused(
                f"tagger={model}: there is no such spaCy model; python -m spacy download {model} installs it"
            ) from error

    def __call__(self, texts: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
        """One universal tag a word."""
        from spacy.tokens import Doc

        docs = self.pipeline.pipe(Doc(self.pipeline.vocab, words=list(words)) for words in texts)
        return [tuple(token.pos_ or "X" for token in doc) for doc in docs]
