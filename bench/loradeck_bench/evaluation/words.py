"""Words in any script: the tokenizer of ROUGE-1 and TF-IDF, which keeps what is not ASCII."""

import re
import unicodedata

_WORD = re.compile(
    # Scripts written without spaces: every character is a word of its own.
    "[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
    # Everything else: runs of letters, digits and combining marks.
    "|(?:(?![\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff])\\w)+"
)

DESCRIPTION = "words: NFKC, case folded, runs of Unicode word characters, one per Chinese or Japanese character"


class UnicodeTokenizer:
    """What rouge-score asks of a tokenizer. Its own default drops every character outside a-z and 0-9."""

    def tokenize(self, text: str) -> list[str]:
        """Words of `text`, in order."""
        return words(text)


def words(text: str) -> list[str]:
    """Case-folded words of `text`, in order, without punctuation."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def word_count(text: str) -> int:
    """Length of an answer in words split at white space, as a reader counts them."""
    return len(text.split())
