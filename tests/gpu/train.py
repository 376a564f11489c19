# SPDX-License-Identifier: Apache-2.0
"""train.py DIR STEPS PAUSE - a training loop that must give the same losses whenever it is run:
fixed seed, deterministic kernels. Uses a stream of its own, a CUDA graph, pinned memory and
events. A line a step to DIR/losses (the float's bits), the last step to DIR/state."""
import os
import struct
import sys
import time

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
import torch  # noqa: E402  pylint: disable=wrong-import-position


def main():
    folder, steps, pause = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    torch.manual_seed(7)
    torch.use_deterministic_algorithms(True)
    device = torch.device("cuda")
    model = torch.nn.Sequential(torch.nn.Linear(512, 2048), torch.nn.ReLU(),
                                torch.nn.Linear(2048, 512)).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, capturable=True)
    pinned = torch.empty(256, 512).pin_memory()
    inputs = torch.zeros(256, 512, device=device)
    loss_at = torch.zeros((), device=device)
    stream = torch.cuda.Stream()
    event = torch.cuda.Event()

    def step():
        optimizer.zero_grad(set_to_none=False)
        loss = torch.nn.functional.mse_loss(model(inputs), inputs.roll(1, 1))
        loss.backward()
        optimizer.step()
        loss_at.copy_(loss.detach())

    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        step()
    torch.cuda.synchronize()
    with open(f"{folder}/losses", "w", encoding="ascii", buffering=1) as losses:
        for n in range(1, steps + 1):
            pinned.copy_(torch.randn(256, 512))
            with torch.cuda.stream(stream):
                inputs.copy_(pinned, non_blocking=True)
                graph.replay()
                event.record(stream)
            event.synchronize()
            bits = struct.pack(">f", loss_at.item()).hex()
            losses.write(f"{n} {bits}\n")
            with open(f"{folder}/state.new", "w", encoding="ascii") as state:
                state.write(f"step={n} counter={n} checksum={bits} ok\n")
            os.rename(f"{folder}/state.new", f"{folder}/state")
            time.sleep(pause)


main()
