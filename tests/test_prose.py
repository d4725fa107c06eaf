"""The prose of the package gets no worse: fragments and house words are counted, and their number only falls."""

from __future__ import annotations

from tools.prose import SOURCES, documents, measured, names

PUBLIC = {  # a name of the package that has a house word -> why it keeps it
    "batches_apart": "key in the JSON of `diff`",
    "images_apart": "key in the JSON of `diff`",
    "tells_ends_apart": "key of a card",
    "judged": "key of a card",
    "judged_images": "setting",
    "judged_us": "key in the JSON of `drift`",
    "looks": "attribute of `StreamState`",
    "heard": "former name of `StreamState.last_seen`, which is still read",
    "not_asked": "key in the JSON of `status`",
    "letter": "argument and option of `dlq`",
    "letters": "letters of the alphabet, in the summary of `demo`",
    "_LETTERS": "letters of the alphabet, in the summary of `demo`",
    "tell": "method of files",
}
FRAGMENTS, WORDS, WORDS_OF_DOCUMENTS = 0, 4, 0  # lower them with each room that is rewritten


def test_no_docstring_more_begins_as_the_rest_of_a_sentence_and_no_house_word_comes_back() -> None:
    rooms = measured().values()
    fragments = [place for room in rooms for place in room.fragments]
    words = [place for room in rooms for place in room.words]
    found = len(fragments), len(words), len(documents().words)
    assert found == (FRAGMENTS, WORDS, WORDS_OF_DOCUMENTS), (
        "more: `python -m tools.prose ROOM` lists them; tools/prose.py has the words to use; less: lower the figures"
    )


def test_no_name_of_the_package_has_a_house_word_but_those_that_are_public() -> None:
    found = names(SOURCES)
    assert {name: places for name, places in found.items() if name not in PUBLIC} == {}, (
        "tools/prose.py has other words"
    )
    assert PUBLIC.keys() <= found.keys(), "remove what is no longer there"
