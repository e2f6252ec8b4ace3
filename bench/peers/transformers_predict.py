"""Classifies lines of text with transformers: a folder of `quantnoise export --to hf`, fp32, its own fast tokenizer.

Reads a number N and then N lines from standard input, again and again; answers with N lines: label, probability of each
class. Lines of a turn are sorted by length before they are cut into batches (--sorted), or taken as they come.
"""
import argparse
import json
import os
import sys

import torch
from transformers import RobertaForSequenceClassification, RobertaTokenizer


def make_tokenizer(folder):
    """RoBERTa's from what `prepare --tokenizer` takes: GPT-2's byte pairs under the numbers that dict.txt gives them."""
    with open(os.path.join(folder, "encoder.json"), encoding="utf-8") as file:
        words = {number: word for word, number in json.load(file).items()}
    vocabulary = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}
    with open(os.path.join(folder, "dict.txt"), encoding="utf-8") as file:
        for line in file:
            name = line.split()[0]
            vocabulary[words[int(name)] if name.isdigit() else name] = len(vocabulary)
    vocabulary["<mask>"] = len(vocabulary)
    with open(os.path.join(folder, "vocab.bpe"), encoding="utf-8") as file:
        merges = [tuple(line.split()) for line in file.read().splitlines()[1:]]
    return RobertaTokenizer(vocab=vocabulary, merges=merges)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--tokenizer", required=True, help="folder with encoder.json, vocab.bpe and dict.txt")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sorted", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--longest", type=int, default=128)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokenizer = make_tokenizer(args.tokenizer)
    model = RobertaForSequenceClassification.from_pretrained(args.model, attn_implementation="sdpa",
                                                             dtype=torch.float32).eval()
    run = torch.compile(model, dynamic=True) if args.compile else model

    def classify(lines):
        found = tokenizer(lines, truncation=True, max_length=args.longest)["input_ids"]
        order = sorted(range(len(lines)), key=lambda i: len(found[i])) if args.sorted else range(len(lines))
        order, answers = list(order), [None] * len(lines)
        for begin in range(0, len(order), args.batch):
            batch = order[begin:begin + args.batch]
            padded = tokenizer.pad({"input_ids": [found[i] for i in batch]}, return_tensors="pt")
            with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.bf16):
                logits = run(**padded).logits
            for i, p in zip(batch, torch.softmax(logits.float(), -1).tolist()):
                answers[i] = p
        return answers

    for count in sys.stdin:
        lines = [sys.stdin.readline().rstrip("\n") for _ in range(int(count))]
        for p in classify(lines):
            best = max(range(len(p)), key=p.__getitem__)
            print(model.config.id2label[best], *(f"{x:.4f}" for x in p), sep="\t")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
