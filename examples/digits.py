"""Watch your own loop: three lines around a training.

python examples/digits.py
dynoscope dash runs
"""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

import dynoscope

pixels, labels = load_digits(return_X_y=True)
inputs = torch.tensor(pixels, dtype=torch.float32) / 16
targets = torch.tensor(labels)

torch.manual_seed(0)
model = nn.Sequential(
    nn.Linear(64, 128, bias=False), nn.BatchNorm1d(128), nn.ReLU(), nn.Linear(128, 10)
)
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.3)

with dynoscope.watch(
    model, optimizer, run="runs/digits", every=1, overwrite=True
) as scope:
    for _ in range(1000):
        batch = torch.randint(len(inputs), (64,))
        loss = functional.cross_entropy(model(inputs[batch]), targets[batch])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        scope.log(loss=loss)

run = dynoscope.open_run("runs/digits")
columns = ["angular_update", "pred_angular_update", "weight_norm", "pred_weight_norm"]
print(run.layers(columns, "0.weight", steps=slice(900, None)).mean(numeric_only=True))
