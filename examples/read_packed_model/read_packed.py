#!/usr/bin/env python3
"""Reads a packed model and prints its perplexity, without quantnoise.

Written from docs/formats.md with numpy alone, as a start for readers of your own; Python is no part of the product.
Meant to be clear rather than fast: it scores one block at a time. Quantized activations are not supported.

Usage: read_packed.py FILE.safetensors DATA [--split test] [--tokens-per-sample N] [--context-window C]
DATA is a folder made by `quantnoise prepare`. The number is that of `quantnoise eval` with the same options.
"""
import argparse
import functools
import json
import math
import pathlib
import re

import numpy as np

END_OF_LINE = 2
ERF = np.vectorize(math.erf, otypes=[np.float32])
DTYPES = {"F32": "<f4", "F16": "<f2", "U8": "u1", "I8": "i1"}
ID_TYPES = {1: "u1", 2: "i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2", 9: "<u4", 10: "<u8"}


def read_model_section(text):
    """{"layers": 6, "adaptive.input": True, ...} from lines `key: value`, those below `adaptive:` indented."""
    lines = re.findall(r"^( *)(\w+): *(\S.*)$", text, re.MULTILINE)
    value = lambda text: json.loads(text) if re.match(r"[-\d\[]|true$|false$", text) else text
    return {"adaptive." * bool(indent) + key: value(text) for indent, key, text in lines}


class PackedFile:
    """Section 1: the container, its metadata, and its weights as float32."""

    def __init__(self, path):
        data = pathlib.Path(path).read_bytes()
        start = 8 + int.from_bytes(data[:8], "little")
        header = json.loads(data[8:start])
        self.metadata = header.pop("__metadata__")
        assert self.metadata["format"] == "quantnoise-packed" and self.metadata["version"] in "12345", "unknown file"
        assert '"activations"' not in self.metadata.get("plan", ""), "quantized activations are not supported"
        self.tensors = {
            name: np.frombuffer(data, DTYPES[t["dtype"]], math.prod(t["shape"]), start + t["data_offsets"][0])
            .reshape(t["shape"]) for name, t in header.items()}
        self.quantized = json.loads(self.metadata.get("quantized", "{}"))

    @functools.cache
    def weight(self, name, shape):
        """The tensor NAME, or None; what a file of version 1 quantizes takes its [R, C] from `shape`."""
        of = lambda value: self.tensors.get(name.removesuffix("weight") + value)
        if of("codes") is None:
            return self.tensors[name].astype(np.float32) if name in self.tensors else None
        if self.metadata["version"] == "1":
            kind, (rows, columns) = "pq", shape
            options = dict(zip(("n_centroids", "block_size"), of("centroids").shape))
        else:
            number, rows, columns = self.quantized["weights"][name]
            kind, options = (self.quantized["quantizers"][number][key] for key in ("type", "options"))
        assert kind in ("pq", "int"), f"{name}: unknown quantizer {kind}"
        levels = int(options["n_centroids"]) if kind == "pq" else 2 ** int(options["bits"])
        n = rows * columns // int(options.get("block_size", 1))
        bits, codes = max(1, (levels - 1).bit_length()), of("codes").reshape(-1)
        if bits != 8:
            codes = np.unpackbits(codes, count=n * bits, bitorder="little").reshape(-1, bits) @ (1 << np.arange(bits))
        if kind == "int":
            return (np.float32(codes.reshape(rows, columns)) - of("zero_point")[:, None]) * of("scale")[:, None]
        centroids = of("centroids").astype(np.float32) * (1 if of("centroids_scale") is None else of("centroids_scale"))
        matrix = centroids[codes.reshape(-1, rows)].transpose(1, 0, 2).reshape(rows, columns)
        if "row_scales" not in options:
            return matrix
        power, (largest, step) = of("row_scales").astype(np.float64), of("row_scales_scale").astype(np.float64)
        scales = np.sign(power) * largest * 2.0 ** ((np.abs(power) - 127) * step)
        return matrix * scales.astype(np.float32)[:, None]


def log_softmax(x):
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


class Model:
    """Section 6: from token ids to log-probabilities. Shapes are [tokens, width]."""

    def __init__(self, file):
        self.file, self.m = file, read_model_section(file.metadata["model"])
        if self.m["type"] != "transformer_lm":
            raise SystemExit(f"this reader computes language models, not {self.m['type']}; the weights it can read")
        self.d, self.v = self.m["embed_dim"], int(file.metadata["vocabulary"])
        self.input_dim, self.output_dim = (self.m[key] or self.d for key in ("input_dim", "output_dim"))
        ends = [c for c in self.m["adaptive.cutoffs"] if c < self.v] + [self.v]
        self.bands = list(zip(range(len(ends)), [0] + ends, ends))  # number, first id, last id + 1
        self.shrink = lambda width, b: int(width / self.m["adaptive.factor"] ** b)

    def weight(self, name, *shape):
        return self.file.weight(f"decoder.{name}.weight", shape)

    def linear(self, name, x, rows):
        """W x + bias; without bias, or x as it is, where the file has none of that name."""
        matrix, bias = self.weight(name, rows, x.shape[-1]), self.file.weight(f"decoder.{name}.bias", ())
        return x if matrix is None else x @ matrix.T + (0 if bias is None else bias)

    def norm(self, name, x):
        x = x - x.mean(-1, keepdims=True)
        scale = self.weight(name) / np.sqrt((x * x).mean(-1, keepdims=True) + np.float32(1e-5))
        return x * scale + self.file.weight(f"decoder.{name}.bias", ())

    def band(self, b, part):
        """Part 0, the table of band b, or 1, its projection."""
        rows = self.d if part else self.bands[b][2] - self.bands[b][1]
        return self.weight(f"embed_tokens.embeddings.{b}.{part}", rows, self.shrink(self.input_dim, b))

    def embed(self, ids):
        scale = np.float32(math.sqrt(self.d) if self.m["scale_embedding"] else 1)
        if not self.m["adaptive.input"]:
            x = scale * self.weight("embed_tokens", self.v, self.input_dim)[ids]
            return self.linear("project_in_dim", self.linear("quant_noise", x, self.input_dim), self.d)
        x = np.empty((len(ids), self.d), np.float32)
        for b, begin, end in self.bands:
            here = (begin <= ids) & (ids < end)
            x[here] = scale * self.band(b, 0)[ids[here] - begin] @ self.band(b, 1).T
        return x

    def positions(self, count):
        if self.m["learned_positions"]:
            return self.weight("embed_positions")[2 : count + 2]
        k, step = np.arange(self.d // 2, dtype=np.float32), np.float32(math.log(10000) / (self.d // 2 - 1))
        angles = np.arange(2, count + 2, dtype=np.float32)[:, None] * np.exp(-k * step)
        return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)

    def attention(self, layer, x):
        q, k, v = (self.linear(f"{layer}.self_attn.{part}_proj", x, self.d)
                   .reshape(len(x), self.m["heads"], -1).transpose(1, 0, 2) for part in "qkv")
        scores = q @ k.transpose(0, 2, 1) / np.float32(math.sqrt(q.shape[-1]))
        scores[:, np.triu(np.ones((len(x), len(x)), bool), 1)] = -np.inf
        mixed = (np.exp(log_softmax(scores)) @ v).transpose(1, 0, 2).reshape(x.shape)
        return self.linear(f"{layer}.self_attn.out_proj", mixed, self.d)

    def activation(self, x):
        if self.m["activation"] == "relu": return np.maximum(x, 0)
        exact = self.m["activation"] == "gelu"
        return x * (1 + (ERF(x / math.sqrt(2)) if exact else np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))) / 2

    def feed_forward(self, layer, x):
        x = self.linear(f"{layer}.fc1", x, self.m["ffn_dim"])
        x = self.activation(x)
        return self.linear(f"{layer}.fc2", x, self.d)

    def features(self, ids):
        x = self.embed(ids) + self.positions(len(ids))
        shared = self.m.get("share_layers", 1)
        for layer in (f"layers.{n - n % shared}" for n in range(self.m["layers"])):
            for block, name in ((self.attention, "self_attn_layer_norm"), (self.feed_forward, "final_layer_norm")):
                norm = lambda y: self.norm(f"{layer}.{name}", y)
                x = x + block(layer, norm(x)) if self.m["prenorm"] else norm(x + block(layer, x))
        x = self.norm("layer_norm", x) if self.m["final_norm"] else x
        return self.linear("project_out_dim", x, self.output_dim)

    def output(self, name, shape, b, part):
        """A matrix of the adaptive softmax: its own, or where there is none, the part of band b it is tied to."""
        own = self.weight(f"adaptive_softmax.{name}", *shape)
        return self.band(b, part) if own is None else own

    def log_probabilities(self, ids, targets):
        x, rows = self.features(ids), np.arange(len(ids))
        if not self.m["adaptive.softmax"]:
            own = self.weight("output_projection", self.v, self.output_dim)
            logits = x @ (self.weight("embed_tokens", self.v, self.input_dim) if own is None else own).T
            return log_softmax(logits)[rows, targets]
        shortlist, tails, tied = self.bands[0][2], len(self.bands) - 1, self.m["adaptive.tie_projections"]
        if self.m["adaptive.tie_weights"]:
            head = np.concatenate([self.output("head.word_proj", (shortlist, self.output_dim), 0, 0),
                                   self.weight("adaptive_softmax.head.class_proj", tails, self.output_dim)])
        else:
            head = self.weight("adaptive_softmax.head", shortlist + tails, self.output_dim)
        head = log_softmax(x @ head.T)
        result = head[rows, np.minimum(targets, shortlist - 1)]
        for b, begin, end in self.bands[1:]:
            here, width = (begin <= targets) & (targets < end), self.shrink(self.output_dim, b)
            projection = self.output(f"tail.{b - 1}.0", (self.d, width) if tied else (width, self.output_dim), b, 1)
            z = x[here] @ (projection if tied else projection.T)
            inside = log_softmax(z @ self.output(f"tail.{b - 1}.2", (end - begin, width), b, 0).T)
            result[here] = head[here, shortlist + b - 1] + inside[np.arange(len(z)), targets[here] - begin]
        return result


def read_tokens(stem):
    """Section 3: the ids of a split as one stream."""
    index = stem.with_suffix(".idx").read_bytes()
    assert index[:17] == b"MMIDIDX\0\0" + (1).to_bytes(8, "little"), f"{stem}.idx is not an index of version 1"
    return np.fromfile(stem.with_suffix(".bin"), ID_TYPES[index[17]]).astype(np.int64)


def perplexity(model, ids, length, context):
    stream, loss = np.concatenate([[END_OF_LINE], ids]), 0.0
    for begin in range(1, len(stream), length - context):
        first, end = begin - 1 - min(context, begin - 1), min(begin + length - context, len(stream))
        scores = model.log_probabilities(stream[first : end - 1], stream[first + 1 : end])
        loss -= scores[begin - end :].sum(dtype=np.float64)
    return math.exp(loss / len(ids))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--tokens-per-sample", type=int)
    parser.add_argument("--context-window", type=int, default=0)
    options = parser.parse_args()
    model = Model(PackedFile(options.file))
    length = options.tokens_per_sample or int(model.file.metadata["tokens_per_sample"])
    print(perplexity(model, read_tokens(options.data / options.split), length, options.context_window))
