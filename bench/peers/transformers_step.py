"""Training updates of RoBERTa in transformers, on the same prepared data as step_bench, in turns.

Batches are what transformers' own examples make: padded to their longest sentence, with an attention mask. Sentences
come in random order, or those of a batch have similar lengths (--sorted, what `group_by_length` and our batches do);
every turn has the same batches, which stand for all. Reads a line of standard input per turn, prints one JSON object
per turn.
"""
import argparse
import json
import os
import random
import sys
import time

import torch
from transformers import RobertaConfig, RobertaForMaskedLM, RobertaForSequenceClassification

from prepared import Stream

BOS, PAD, EOS = 0, 1, 2


def blocks_of(stream, longest):
    """The text cut into blocks of `longest` tokens, <s> in front of each."""
    ids, step = [token for sentence in stream for token in sentence], longest - 1
    return [[BOS] + ids[i:i + step] for i in range(0, len(ids) - step + 1, step)]


def inputs_of(first, second, longest):
    """<s> a </s>, or <s> a </s> </s> b </s>; sentences come with their </s>."""
    items = [[BOS] + list(a) for a in first]
    if second is not None:
        items = [a + [EOS] + list(b) for a, b in zip(items, second)]
    return [item[:longest] for item in items]


def pack(lengths, max_tokens, max_items):
    """Batches of items of similar length, no larger than max_tokens with their padding."""
    batches, batch, longest = [], [], 0
    for item in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        grown = max(longest, lengths[item])
        if batch and (grown * (len(batch) + 1) > max_tokens or (max_items and len(batch) == max_items)):
            batches.append(batch)
            batch, grown = [], lengths[item]
        batch.append(item)
        longest = grown
    return batches + [batch]


class Batches:
    """A turn's micro-batches, again and again: padded ids, their mask, and how many tokens are real."""

    def __init__(self, items, args):
        self.items, self.args = items, args
        lengths = [len(item) for item in items]
        packed, count = pack(lengths, args.max_tokens, args.max_sentences), args.steps * args.micro_batches
        if not args.sorted:
            size = max(1, round(len(items) / len(packed)))
            order = random.sample(range(len(items)), len(items))
            packed = [order[i:i + size] for i in range(0, len(order), size)][:len(packed)]
        chosen = [packed[(2 * i + 1) * len(packed) // (2 * count)] for i in range(count)]
        self.turn = [chosen[i * args.steps + step] for step in range(args.steps) for i in range(args.micro_batches)]
        self.number = 0

    def next(self):
        batch = self.turn[self.number % len(self.turn)]
        self.number += 1
        longest = max(len(self.items[i]) for i in batch)
        rows = [self.items[i] + [PAD] * (longest - len(self.items[i])) for i in batch]
        ids = torch.tensor(rows)
        mask = (ids != PAD).long()
        return batch, ids, mask, int(mask.sum())


def mask_tokens(ids, mask, mask_id, vocabulary):
    """DataCollatorForLanguageModeling: 15 % to guess, of which 80 % are hidden and 10 % are other words."""
    chosen = (torch.rand(ids.shape) < 0.15) & (mask == 1) & (ids > EOS)
    labels = torch.where(chosen, ids, -100)
    dice = torch.rand(ids.shape)
    ids = torch.where(chosen & (dice < 0.8), mask_id, ids)
    return torch.where(chosen & (dice >= 0.9), torch.randint(4, vocabulary, ids.shape), ids), labels


def make_model(args, vocabulary, classes):
    config = RobertaConfig(
        vocab_size=vocabulary, hidden_size=args.width, num_hidden_layers=args.layers, num_attention_heads=args.heads,
        intermediate_size=args.ffn, max_position_embeddings=args.positions + 2, type_vocab_size=1,
        layer_norm_eps=1e-5, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1, num_labels=max(classes, 2),
        attn_implementation=args.attention)
    return (RobertaForSequenceClassification if classes else RobertaForMaskedLM)(config).train()


class Task:
    """What one micro-batch's loss is."""

    def __init__(self, args):
        folder = args.data
        if os.path.isdir(os.path.join(folder, "input0")):
            first = Stream(os.path.join(folder, "input0", "train"))
            pair = os.path.join(folder, "input1")
            second = Stream(os.path.join(pair, "train")) if os.path.isdir(pair) else None
            items = inputs_of(first, second, args.longest)
            labels = [label[0] for label in Stream(os.path.join(folder, "label", "train"))]
            lowest = min(labels)
            self.labels, self.classes = torch.tensor([label - lowest for label in labels]), len(set(labels))
        else:
            items, self.classes = blocks_of(Stream(os.path.join(folder, "train")), args.longest), 0
        with open(os.path.join(folder, "input0" if self.classes else "", "dict.txt"), encoding="utf-8") as file:
            self.vocabulary = 5 + sum(1 for _ in file)  # four special symbols in front, <mask> behind
        self.batches = Batches(items, args)
        self.model = make_model(args, self.vocabulary, self.classes)

    def inputs(self):
        batch, ids, mask, tokens = self.batches.next()
        if self.classes:
            labels = self.labels[batch]
        else:
            ids, labels = mask_tokens(ids, mask, self.vocabulary - 1, self.vocabulary - 1)
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}, tokens


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="folder made by `quantnoise prepare`")
    for name, default in (("layers", 4), ("width", 256), ("ffn", 1024), ("heads", 4), ("positions", 256),
                          ("longest", 128), ("max-tokens", 1024), ("max-sentences", 0), ("micro-batches", 1),
                          ("steps", 4), ("warmup", 1), ("threads", 2)):
        parser.add_argument("--" + name, type=int, default=default)
    parser.add_argument("--sorted", action="store_true")
    parser.add_argument("--attention", choices=("sdpa", "eager"), default="sdpa")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--bf16", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    random.seed(1)
    task = Task(args)
    optimizer = torch.optim.AdamW(task.model.parameters(), lr=1e-4, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.01,
                                  fused=True)
    run = torch.compile(task.model, dynamic=True) if args.compile else task.model

    def update():
        tokens, loss = 0, 0.0
        optimizer.zero_grad()
        for _ in range(args.micro_batches):
            inputs, real = task.inputs()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.bf16):
                found = run(**inputs).loss / args.micro_batches
            found.backward()
            loss, tokens = loss + found.item(), tokens + real
        optimizer.step()
        return tokens, loss

    for _ in range(args.warmup):  # whole turns
        for _ in range(args.steps):
            update()
    for _ in sys.stdin:
        tokens, start = 0, time.perf_counter()
        for _ in range(args.steps):
            real, loss = update()
            tokens += real
        print(json.dumps({"tokens": tokens, "seconds": time.perf_counter() - start, "loss_bits": loss / 0.6931472}),
              flush=True)


if __name__ == "__main__":
    main()
