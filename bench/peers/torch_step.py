"""Training updates of the same Transformer language model in PyTorch, on the same tokens as step_bench.

Reads what `step_bench --describe` and `step_bench --write-tokens` wrote; prints one JSON object.
"""
import argparse
import json
import math
import resource
import statistics
import time

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F


class BlockNoise(torch.autograd.Function):
    """Drops blocks of adjacent columns and rescales the rest; the gradient passes straight through."""

    @staticmethod
    def forward(ctx, weight, block, p):
        drop = torch.empty(weight.shape[0], weight.shape[1] // block, device=weight.device).bernoulli_(p)
        mask = drop.bool().repeat_interleave(block, 1)
        return weight.masked_fill(mask, 0.0) * (1.0 / (1.0 - p))

    @staticmethod
    def backward(ctx, grad):
        return grad, None, None


class Noise:
    """Which groups of weights get noise, as quant_noise.groups says."""

    def __init__(self, spec):
        self.p, self.block, self.groups = spec["noise"], spec["noise_block"], set(spec["noise_groups"])

    def __call__(self, group, weight):
        if self.p > 0 and group in self.groups:
            return BlockNoise.apply(weight, self.block, self.p)
        return weight


class Block(nn.Module):
    def __init__(self, spec, noise):
        super().__init__()
        d, f = spec["width"], spec["ffn"]
        self.heads, self.noise = spec["heads"], noise
        self.p, self.p_attention, self.p_hidden = (
            spec["dropout"], spec["attention_dropout"], spec["activation_dropout"])
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.qkv, self.out = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.fc1, self.fc2 = nn.Linear(d, f), nn.Linear(f, d)

    def apply_linear(self, group, layer, x):
        return F.linear(x, self.noise(group, layer.weight), layer.bias)

    def forward(self, x):
        rows, steps, d = x.shape
        qkv = self.apply_linear("attn", self.qkv, self.norm1(x)).view(rows, steps, 3, self.heads, d // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        a = F.scaled_dot_product_attention(q, k, v, dropout_p=self.p_attention, is_causal=True)
        a = self.apply_linear("attn", self.out, a.transpose(1, 2).reshape(rows, steps, d))
        x = x + F.dropout(a, self.p)
        h = F.dropout(F.relu(self.apply_linear("ffn", self.fc1, self.norm2(x))), self.p_hidden)
        return x + F.dropout(self.apply_linear("ffn", self.fc2, h), self.p)


def sinusoids(count, width):
    half = width // 2
    step = torch.exp(torch.arange(half) * (-math.log(10000.0) / (half - 1)))
    angles = torch.arange(2, count + 2)[:, None] * step[None, :]
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class LanguageModel(nn.Module):
    """Adaptive input and adaptive softmax with shared tables and projections."""

    def __init__(self, spec):
        super().__init__()
        self.spec, self.width, self.noise = spec, spec["width"], Noise(spec)
        ends = spec["cutoffs"] + [spec["vocabulary"]]
        sizes = [end - begin for begin, end in zip([0] + ends, ends)]
        dims = [int(self.width / spec["factor"] ** i) for i in range(len(sizes))]
        self.tables = nn.ParameterList(nn.Parameter(torch.randn(n, m) / math.sqrt(m)) for n, m in zip(sizes, dims))
        self.projections = nn.ParameterList(nn.Parameter(torch.empty(self.width, m)) for m in dims)
        for p in self.projections:
            nn.init.xavier_uniform_(p)
        self.clusters = nn.Parameter(torch.randn(len(sizes) - 1, self.width) / math.sqrt(self.width))
        self.blocks = nn.ModuleList(Block(spec, self.noise) for _ in range(spec["layers"]))
        self.final_norm = nn.LayerNorm(self.width) if spec["final_norm"] else nn.Identity()
        self.register_buffer("positions", sinusoids(spec["time"], self.width))

    def forward(self, shape, source, target, head_target):
        """`source` and `target`: (rows, ids) per band. Sum of losses."""
        tables = [self.noise("embed", t) for t in self.tables]
        projections = [self.noise("embed_proj", p) for p in self.projections]
        rows, steps = shape
        x = tables[0].new_zeros(rows * steps, self.width)
        for (where, ids), table, projection in zip(source, tables, projections):
            part = F.linear(F.embedding(ids, table), projection)
            x = x.index_copy(0, where, part.to(x.dtype))
        x = x.view(rows, steps, self.width) * math.sqrt(self.width) + self.positions
        x = F.dropout(x, self.spec["dropout"])
        for block in self.blocks:
            x = block(x)
        x = F.dropout(self.final_norm(x).reshape(rows * steps, self.width), self.spec["softmax_dropout"])
        head = torch.cat([F.linear(x, tables[0]), F.linear(x, self.clusters)], dim=1)
        loss = F.cross_entropy(head.float(), head_target, reduction="sum")
        for i, (where, ids) in enumerate(target):
            inner = F.dropout(x[where] @ projections[i + 1], self.spec["softmax_dropout"])
            loss = loss + F.cross_entropy(F.linear(inner, tables[i + 1]).float(), ids, reduction="sum")
        return loss


def split(ids, ends):
    """(rows, ids within the band) per band."""
    result, begin = [], 0
    for end in ends:
        rows = ((ids >= begin) & (ids < end)).nonzero(as_tuple=True)[0]
        result.append((rows, ids[rows] - begin))
        begin = end
    return result


def bands_of(spec, tokens, dynamic, device):
    """The model's arguments for one micro-batch of tokens [rows, time + 1]; bands are told apart on the host, as ours."""
    ends = spec["cutoffs"] + [spec["vocabulary"]]
    flat_target = tokens[:, 1:].reshape(-1)
    source = split(tokens[:, :-1].reshape(-1), ends)
    target = split(flat_target, ends)
    head_target = flat_target.clone()
    for i, (rows, _) in enumerate(target[1:]):
        head_target[rows] = ends[0] + i
    if device != "cpu":
        def move(parts):
            return [(rows.to(device, non_blocking=True), ids.to(device, non_blocking=True)) for rows, ids in parts]
        source, target, head_target = move(source), move(target), head_target.to(device, non_blocking=True)
    if dynamic:  # bands have another size in each micro-batch: one compilation must serve all
        for rows, ids in source + target[1:]:
            torch._dynamo.mark_dynamic(rows, 0)
            torch._dynamo.mark_dynamic(ids, 0)
    return (tokens.shape[0], tokens.shape[1] - 1), source, target[1:], head_target


class Nag:
    """fairseq's formula at a constant rate, on all parameters at once."""

    def __init__(self, params, lr, momentum):
        self.params, self.lr, self.momentum = params, lr, momentum
        self.velocity = [torch.zeros_like(p) for p in params]

    @torch.no_grad()
    def step(self):
        grads = [p.grad for p in self.params]
        torch._foreach_add_(self.params, self.velocity, alpha=self.momentum ** 2)
        torch._foreach_add_(self.params, grads, alpha=-(1.0 + self.momentum) * self.lr)
        torch._foreach_mul_(self.velocity, self.momentum)
        torch._foreach_add_(self.velocity, grads, alpha=-self.lr)

    def zero_grad(self):
        for p in self.params:
            p.grad = None


def make_optimizer(spec, params):
    if spec["optimizer"] == "nag":
        return Nag(params, 1e-3, spec["momentum"])
    return torch.optim.AdamW(params, lr=1e-3, betas=(spec["beta1"], spec["beta2"]), eps=spec["eps"],
                             weight_decay=spec["weight_decay"], fused=True)


def update(spec, model, params, optimizer, batches, args):
    optimizer.zero_grad()
    total = 0.0
    for tokens in batches:
        inputs = bands_of(spec, tokens, args.compile, args.device)
        with torch.autocast(args.device, dtype=torch.bfloat16, enabled=args.bf16):
            loss = model(*inputs)
        (loss / (spec["micro_batches"] * spec["rows"] * spec["time"])).backward()
        total = total + loss.detach()
    if spec["clip_norm"] > 0:
        nn.utils.clip_grad_norm_(params, spec["clip_norm"], foreach=True)
    optimizer.step()
    return float(total)  # waits for the device


def matmul_gflops(args):
    """The device's best product, as bench/limits.cpp measures it for a GPU."""
    best = 0.0
    for n in (4096, 8192):
        dtype = torch.bfloat16 if args.bf16 else torch.float32
        a, b = (torch.randn(n, n, device=args.device).to(dtype) for _ in range(2))
        for _ in range(5):
            torch.cuda.synchronize()
            start = time.perf_counter()
            for _ in range(10):
                a @ b.t()
            torch.cuda.synchronize()
            best = max(best, 10 * 2.0 * n ** 3 / (time.perf_counter() - start) * 1e-9)
    return best


def memory_of(args):
    if args.device == "cpu":
        return {"peak_mib_all_ranks": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    return {"gpu_used_mib": torch.cuda.max_memory_reserved() / 2 ** 20, "matmul_gflops": matmul_gflops(args)}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spec", required=True, help="what step_bench --describe printed")
    parser.add_argument("--tokens", required=True, help="what step_bench --write-tokens wrote")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--tf32", action="store_true", help="fp32 products in TF32 (GPU)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    torch.backends.cuda.matmul.allow_tf32 = args.tf32
    with open(args.spec, encoding="utf-8") as file:
        spec = json.load(file)
    if not spec["peer_has_it"]:
        raise SystemExit("torch_step has the pre-norm, tied adaptive ReLU model only")
    shape = (args.warmup + args.steps, spec["micro_batches"], spec["rows"], spec["time"] + 1)
    tokens = torch.from_numpy(np.fromfile(args.tokens, dtype=np.int32).reshape(shape)).long()
    model = LanguageModel(spec).to(args.device).train()
    params = list(model.parameters())
    optimizer = make_optimizer(spec, params)
    run = torch.compile(model) if args.compile else model
    seconds = []
    for step in range(args.warmup + args.steps):
        start = time.perf_counter()
        total = update(spec, run, params, optimizer, tokens[step], args)
        if step >= args.warmup:
            seconds.append(time.perf_counter() - start)
    per_update = spec["micro_batches"] * spec["rows"] * spec["time"]
    median = statistics.median(seconds)
    print(json.dumps({"program": "torch_step", "torch": torch.__version__,
                      "simd": torch.backends.cpu.get_cpu_capability(), "threads": args.threads,
                      "compile": args.compile, "bf16": args.bf16, "tf32": args.tf32, "device": args.device,
                      "parameters": sum(p.numel() for p in params),
                      "seconds": median, "seconds_fastest": min(seconds), "tokens_per_second": per_update / median,
                      "loss_bits": total / per_update / math.log(2),
                      **memory_of(args)}))


if __name__ == "__main__":
    main()
