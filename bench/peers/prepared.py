"""Reads what `quantnoise prepare` (or fairseq-preprocess) wrote: PREFIX.idx and PREFIX.bin (docs/formats.md)."""
import struct

import numpy as np

TYPES = {1: np.uint8, 2: np.int8, 3: np.int16, 4: np.int32, 5: np.int64, 8: np.uint16, 9: np.uint32, 10: np.uint64}


class Stream:
    """Sentences as lists of ids."""

    def __init__(self, prefix):
        with open(prefix + ".idx", "rb") as file:
            magic, _, code, count = struct.unpack("<9sQBQ", file.read(26))
            assert magic == b"MMIDIDX\x00\x00", prefix
            sizes = np.frombuffer(file.read(4 * count), dtype=np.int32)
        ids = np.fromfile(prefix + ".bin", dtype=TYPES[code])
        self.sentences = [part.tolist() for part in np.split(ids, np.cumsum(sizes[:-1]))]

    def __iter__(self):
        return iter(self.sentences)
