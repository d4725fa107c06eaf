"""The prose of the package gets no worse: fragments and house words are counted, and their number only falls."""

from __future__ import annotations

from tools.prose import documents, measured

FRAGMENTS, WORDS, WORDS_OF_DOCUMENTS = 0, 9, 0  # lower them with each room that is rewritten


def test_no_docstring_more_begins_as_the_rest_of_a_sentence_and_no_house_word_comes_back() -> None:
    rooms = measured().values()
    fragments = [place for room in rooms for place in room.fragments]
    words = [place for room in rooms for place in room.words]
    found = len(fragments), len(words), len(documents().words)
    assert found == (FRAGMENTS, WORDS, WORDS_OF_DOCUMENTS), (
        "more: `python -m tools.prose ROOM` lists them; tools/prose.py has the words to use; less: lower the figures"
    )
