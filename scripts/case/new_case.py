"""Write a commented case.toml to fill in, for a model of your own.

Writes  data/<case>/case.toml and data/<case>/model.py, unless they are there already
Runs    on the CPU
Usage   python3 -m scripts.case.new_case data/mask     (or: make new CASE=mask)
Prints  what to do next
"""

import re
from pathlib import Path

import click

from scripts.files import writing

TOML = """\
# What Verdict has to know of this model and its test data. Lines that begin with # are off.
# Every path is relative to this folder and stays inside it; a link to a file elsewhere will do.

precision = 0.9             # wanted share of right answers among the positive verdicts
# skip = ["onnx_fp16"]      # variants to leave out

[model]
factory = "model.py:build"  # a function in a file beside this one, or "package.module:callable",
                            # that returns the torch.nn.Module
# arguments = { width = 8 } # keyword arguments for it
weights = "weights.pth"     # a state_dict, a checkpoint that holds one, or a TorchScript archive
# weights_key = "ema"       # which entry of the checkpoint, where that is not obvious
head = "logit"              # what the output is:
                            #   "logit"        one number per sample, (n,) or (n, 1)
                            #   "two_logits"   (n, 2), before the softmax
                            #   "multiclass"   (n, k), before the softmax; needs positive_class
                            #   "probability"  after a sigmoid, (n,) or (n, 1), or softmax, (n, k)
# positive_class = 1        # the column of the positive class; 0 also turns a single logit round
# output = 0                # which output counts, when there are several: its place or its name
max_batch = 32              # the largest batch that production will send

# One [[inputs]] table for each input of forward(): by name where the names are those of its
# parameters, else in this order. shape is that of one sample, without the batch.
# dtype: float32, float16, uint8, int32, int64 or bool.

# ---- What is asked of the verdicts, with the defaults --------------------------------------------

# [threshold]
# policy = "max_recall"     # of the thresholds that reach the precision the one of the highest recall,
                            # or "widest_gap": the one farthest from any sample
# recall_slack = 0.005      # the share of that recall that "widest_gap" may give up
# guarantee = 0.95          # not by default: with this confidence the precision holds on new data

# [gates]
# flip_rate = 0.001         # the largest share of new samples whose verdict may flip
# confidence = 0.95         # of all bounds
# zero_flips = false        # true: no sample of the test data may flip either
# precision_slack = 0.1     # how far the lower bound of the precision may lie below the precision
# latency_p99_ms = 20.0     # budgets, none by default
# memory_mb = 500.0

# [ranking]
# objective = "latency"     # or "throughput", "memory", "size"; or instead of it weights of these:
# weights = { latency = 0.7, size = 0.3 }

# [data]
# unlabelled = "traffic"    # samples without labels, on which flips are counted too: a folder with a
                            # .npy of the same file name for each input, a folder of images, or a CSV
# groups = "groups.npy"     # the patient, video or user of each sample, numbers or text: no group is
                            # both tuned and judged on. With [images]: a CSV with the header
                            # file,group, and files as "class/name.png"
# group_column = "patient"  # the same with [csv]: the name of a column

# ---- Data, in one of three forms; remove the other two ------------------------------------------

# 1. Arrays: one .npy for each input, and one for the labels. The first axis is the sample.
[[inputs]]
name = "x"
shape = [3, 224, 224]
dtype = "float32"
file = "inputs.npy"

[labels]
file = "labels.npy"         # 0 and 1
positive = 1                # the label that stands for "yes"
# negative = 0              # the other one, where the labels are not 0 and 1

# 2. Images: a folder with one subfolder for each class. Steps are done in the order given here.
# [images]
# folder = "images"
# mode = "rgb"              # "grey": one channel; "rgb": three, grey images repeated
# resize = 256              # the shorter side, or [height, width]
# centre_crop = 224         # or [height, width]
# interpolation = "bilinear"  # of resize: nearest, bilinear, bicubic, lanczos
# divide_by = 255           # pixels are 0 to 255
# mean = [0.485, 0.456, 0.406]  # subtracted, for each channel
# std = [0.229, 0.224, 0.225]   # then divided by
# layout = "chw"            # or "hwc"
#
# [[inputs]]
# name = "x"
# shape = [3, 224, 224]
# dtype = "float32"
#
# [labels]
# positive = "yes"          # the name of the subfolder

# 3. A CSV with a header. Each input takes its numbers from the columns listed, row by row.
# [csv]
# file = "data.csv"
#
# [[inputs]]
# name = "x"
# shape = [2]
# dtype = "float32"
# columns = ["age", "weight"]
#
# [labels]
# column = "label"
# positive = 1
"""

MODEL = '''\
"""The network. case.toml names build(); the weights are loaded into what it returns."""

from torch import nn


def build() -> nn.Module:
    raise NotImplementedError("write the model's definition here, or set factory in case.toml")
'''


@click.command(help=__doc__.splitlines()[0] if __doc__ else None)
@click.argument("folder", type=click.Path(path_type=Path))
def main(folder: Path) -> None:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", folder.name):
        raise click.ClickException(
            f"{folder.name!r} cannot name a case: use letters, digits, _ and -, a letter first."
        )
    toml, model = folder / "case.toml", folder / "model.py"
    if toml.exists():
        raise click.ClickException(
            f"{toml} is there already and stays as it is; name another case, or edit it."
        )
    for path, text in ((model, MODEL), (toml, TOML)):
        if not path.exists():
            with writing(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
    click.echo(
        f"{toml} is written. Put the weights and the data beside it, fill it in, then run: "
        f"make all CASE={folder.name}"
    )


if __name__ == "__main__":
    main()
