#!/usr/bin/env python3
"""Reads a packed model and evaluates it, without quantnoise.

Written from docs/formats.md with numpy alone, as a start for readers of your own; Python is no part of the product.
Meant to be clear rather than fast: it scores one block at a time. Quantized activations are not supported.

Usage: read_packed.py FILE.safetensors DATA [--split test] [--tokens-per-sample N] [--context-window C]
DATA is a folder made by `quantnoise prepare`. The number is that of `quantnoise eval` with the same options: of language
models and translators the perplexity, of classifiers of sentences the accuracy in percent, of regressions Pearson's r.
"""
import argparse
import functools
import json
import math
import pathlib
import re
import sys

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


class Network:
    """Section 6: what all networks are made of. Shapes are [tokens, width]; names are below `prefix`."""

    def __init__(self, file, prefix):
        self.file, self.m, self.prefix = file, read_model_section(file.metadata["model"]), prefix
        self.d, self.v = self.m["embed_dim"], int(file.metadata["vocabulary"])

    def weight(self, name, *shape):
        return self.file.weight(f"{self.prefix}{name}.weight", shape)

    def bias(self, name):
        return self.file.weight(f"{self.prefix}{name}.bias", ())

    def linear(self, name, x, rows):
        """W x + bias; without bias, or x as it is, where the file has none of that name."""
        matrix, bias = self.weight(name, rows, x.shape[-1]), self.bias(name)
        return x if matrix is None else x @ matrix.T + (0 if bias is None else bias)

    def norm(self, name, x):
        x = x - x.mean(-1, keepdims=True)
        return x * (self.weight(name) / np.sqrt((x * x).mean(-1, keepdims=True) + np.float32(1e-5))) + self.bias(name)

    def positions(self, count):
        if self.m["type"] == "roberta" or self.m["learned_positions"]:
            return self.weight("embed_positions")[2 : count + 2]
        k, step = np.arange(self.d // 2, dtype=np.float32), np.float32(math.log(10000) / (self.d // 2 - 1))
        angles = np.arange(2, count + 2, dtype=np.float32)[:, None] * np.exp(-k * step)
        return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)

    def attention(self, name, x, seen, causal):
        """x sees `seen`: itself, or an encoder's result."""
        q, k, v = (self.linear(f"{name}.{part}_proj", y, self.d).reshape(len(y), self.m["heads"], -1).transpose(1, 0, 2)
                   for part, y in (("q", x), ("k", seen), ("v", seen)))
        scores = q @ k.transpose(0, 2, 1) / np.float32(math.sqrt(q.shape[-1]))
        if causal:
            scores[:, np.triu(np.ones((len(x), len(x)), bool), 1)] = -np.inf
        mixed = (np.exp(log_softmax(scores)) @ v).transpose(1, 0, 2).reshape(x.shape)
        return self.linear(f"{name}.out_proj", mixed, self.d)

    def activation(self, x):
        if self.m["activation"] == "relu": return np.maximum(x, 0)
        exact = self.m["activation"] == "gelu"
        return x * (1 + (ERF(x / math.sqrt(2)) if exact else np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))) / 2

    def layers(self, x, count, ffn, causal, encoded=None):
        shared = self.m.get("share_layers", 1)
        for layer in (f"layers.{n - n % shared}" for n in range(count)):
            parts = [("self_attn_layer_norm", lambda y: self.attention(f"{layer}.self_attn", y, y, causal)),
                     ("encoder_attn_layer_norm", lambda y: self.attention(f"{layer}.encoder_attn", y, encoded, False)),
                     ("final_layer_norm",
                      lambda y: self.linear(f"{layer}.fc2", self.activation(self.linear(f"{layer}.fc1", y, ffn)), self.d))]
            if encoded is None:
                del parts[1]
            for name, part in parts:
                norm = lambda y: self.norm(f"{layer}.{name}", y)
                x = x + part(norm(x)) if self.m["prenorm"] else norm(x + part(x))
        return x


class Roberta(Network):
    """An encoder whose first state is classified."""

    def __init__(self, file):
        super().__init__(file, "encoder.sentence_encoder.")

    def features(self, ids):
        x = self.weight("embed_tokens")[ids] + self.positions(len(ids))
        x = x if self.m["prenorm"] else self.norm("layernorm_embedding", x)
        x = self.layers(self.linear("quant_noise", x, self.d), self.m["layers"], self.m["ffn_dim"], causal=False)
        return self.norm("layer_norm", x) if self.m["prenorm"] else x

    def logits(self, ids):
        head, x = Network(self.file, "classification_heads.sentence_classification_head."), self.features(ids)[:1]
        return head.linear("out_proj", np.tanh(head.linear("dense", x, self.d)), self.d)[0]


class Translator:
    """An encoder, and a decoder that sees its result."""

    def __init__(self, file):
        self.encoder, self.decoder = Network(file, "encoder."), Network(file, "decoder.")
        self.m = self.encoder.m

    def embed(self, side, table, ids, noise_first):
        x = table[ids] * np.float32(math.sqrt(side.d) if self.m["scale_embedding"] else 1)
        steps = [lambda y: side.linear("quant_noise", y, side.d), lambda y: y + side.positions(len(ids))]
        for step in steps if noise_first else reversed(steps):
            x = step(x)
        return x

    def log_probabilities(self, source, previous):
        m, norm = self.m, lambda side, x: side.norm("layer_norm", x) if self.m["prenorm"] else x
        table = self.encoder.weight("embed_tokens")
        z = self.encoder.layers(self.embed(self.encoder, table, source, False), m["encoder_layers"] or m["layers"],
                                m["encoder_ffn_dim"] or m["ffn_dim"], causal=False)
        table = table if m["share_all_embeddings"] else self.decoder.weight("embed_tokens")
        x = self.decoder.layers(self.embed(self.decoder, table, previous, True), m["layers"], m["ffn_dim"], True,
                                norm(self.encoder, z))
        own = self.decoder.weight("output_projection")
        return log_softmax(norm(self.decoder, x) @ (table if own is None else own).T)


class LanguageModel(Network):
    """From token ids to log-probabilities of the next ones."""

    def __init__(self, file):
        super().__init__(file, "decoder.")
        self.input_dim, self.output_dim = (self.m[key] or self.d for key in ("input_dim", "output_dim"))
        ends = [c for c in self.m["adaptive.cutoffs"] if c < self.v] + [self.v]
        self.bands = list(zip(range(len(ends)), [0] + ends, ends))  # number, first id, last id + 1
        self.shrink = lambda width, b: int(width / self.m["adaptive.factor"] ** b)

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

    def features(self, ids):
        x = self.layers(self.embed(ids) + self.positions(len(ids)), self.m["layers"], self.m["ffn_dim"], causal=True)
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


def read_lines(stem):
    """Section 3: the ids of every line of a split."""
    index = pathlib.Path(f"{stem}.idx").read_bytes()
    assert index[:17] == b"MMIDIDX\0\0" + (1).to_bytes(8, "little"), f"{stem}.idx is not an index of version 1"
    ids = np.fromfile(f"{stem}.bin", ID_TYPES[index[17]]).astype(np.int64)
    sizes = np.frombuffer(index, "<i4", int.from_bytes(index[18:26], "little"), 26)
    return np.split(ids, np.cumsum(sizes)[:-1])


def shortened(parts, longest, keep_end):
    """[[<s>], A] or [[<s>], A, separator, B] as one input of `longest` tokens at most (section 6)."""
    lengths, room = [len(sentence) for sentence in parts[1::2]], longest - sum(map(len, parts[0::2]))
    if keep_end and sum(lengths) > room:
        least = min(lengths + [room // len(lengths)])
        keep = [least, room - least] if lengths[0] <= lengths[-1] else [room - least, least]
        parts[1::2] = [np.append(s[: n - 1], s[-1]) for s, n in zip(parts[1::2], keep if len(lengths) > 1 else [room])]
    return np.concatenate(parts).astype(np.int64)[:longest]


def correctness(model, folder, split):
    """Of a classifier of sentences: accuracy, or of a regression the correlation."""
    task = dict(re.findall(r"^(\w+): (\S+)", model.file.metadata["task"], re.MULTILINE))
    first, separator = [int(task["init_token"])], [int(task["separator_token"])]
    inputs = [[first, ids] for ids in read_lines(folder / "input0" / split)]
    if (folder / "input1").is_dir():
        inputs = [parts + [separator, ids] for parts, ids in zip(inputs, read_lines(folder / "input1" / split))]
    longest = min(int(model.file.metadata["tokens_per_sample"]), model.m["max_positions"] or 1 << 30)
    logits = [model.logits(shortened(parts, longest, task["shorten"] == "keep_end")) for parts in inputs]
    if not model.file.metadata["labels"]:
        return np.corrcoef(np.array(logits)[:, 0], np.loadtxt(folder / "label" / f"{split}.label"))[0, 1]
    labels = [line[0] - 4 for line in read_lines(folder / "label" / split)]
    return 100 * np.mean(np.argmax(logits, axis=1) == labels)


def translation_perplexity(model, folder, split):
    stems = sorted({path.with_suffix("") for path in folder.glob(f"{split}.*-*.*.idx")})
    source, target = (next(s for s in stems if s.name.split(".")[1].split("-")[side] == s.suffix[1:]) for side in (0, 1))
    loss = count = 0
    for x, y in zip(read_lines(source), read_lines(target)):
        scores = model.log_probabilities(x, np.concatenate([[END_OF_LINE], y[:-1]]))
        loss -= scores[np.arange(len(y)), y].sum(dtype=np.float64)
        count += len(y)
    return math.exp(loss / count)


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
    file = PackedFile(options.file)
    kind = read_model_section(file.metadata["model"])["type"]
    if kind == "transformer":
        print(translation_perplexity(Translator(file), options.data, options.split))
    elif kind == "roberta" and "type: sentence_prediction" in file.metadata["task"]:
        print(correctness(Roberta(file), options.data, options.split))
    elif kind == "roberta":
        sys.exit("what a masked language model is asked is drawn by quantnoise: this reader gives Roberta.features() only")
    elif kind == "bert":
        sys.exit("this reader does not compute BERT, which adds types of tokens to RoBERTa; it decodes its weights")
    else:
        model, ids = LanguageModel(file), np.concatenate(read_lines(options.data / options.split))
        length = options.tokens_per_sample or int(file.metadata["tokens_per_sample"])
        print(perplexity(model, ids, length, options.context_window))
