"""Word vectors on disk and in search. A new file format is a file of this room and its endings below."""

READERS = {
    ".vec": "text_reader",
    ".txt": "text_reader",
    ".vec.gz": "text_reader",
    ".txt.gz": "text_reader",
    ".bin": "fasttext_reader",
    ".wv": "gensim_reader",
    ".kv": "gensim_reader",
}
"""The module that reads files of an ending, by a function `open_vectors(path, language)`: see `readers.open_file`."""

PICKLES = {"gensim_reader": "gensim"}
"""Those whose files can run code, so that a user must allow it, and whose format it is."""
