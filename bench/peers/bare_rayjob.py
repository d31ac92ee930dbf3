"""The peer of `bench/launch_overhead.py --cluster`: the training of `bare_training.py` as a RayJob written by
hand. Runs on the head; the workers copy model and tokens out of the bucket first.

    python bare_rayjob.py WORKERS S3_URI MODEL_PREFIX PREPARED_PREFIX PLAN OUT_KEY

Writes the Unix time of the first optimizer step to `S3_URI/OUT_KEY`.
"""

import json
import sys
from pathlib import Path
from urllib.parse import urlsplit


def train(config):
    """In each worker, `bare_training.py` being known by its text alone."""
    import types

    import boto3
    import torch.distributed as dist

    bucket, prefix = config["bucket"], config["prefix"]
    client = boto3.client("s3")
    for name in ("model", "prepared"):
        source = f"{prefix}/{config[name]}/"
        for found in client.list_objects_v2(Bucket=bucket, Prefix=source)["Contents"]:
            target = Path("/tmp/bare", name, found["Key"].removeprefix(source))
            target.parent.mkdir(parents=True, exist_ok=True)
            client.download_file(bucket, found["Key"], str(target))
    bare = types.ModuleType("bare_training")
    exec(config["source"], bare.__dict__)
    out = "/tmp/bare/first-step"
    bare.train({**config, "model": "/tmp/bare/model", "prepared": "/tmp/bare/prepared", "out": out})
    if dist.get_rank() == 0:
        body = Path(out).read_bytes()
        client.put_object(Bucket=bucket, Key=f"{prefix}/{config['out']}", Body=body)


def main():
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    workers, uri, model, prepared, plan, out = sys.argv[1:]
    place = urlsplit(uri)
    stages = json.loads(Path(plan).read_text())["stages"]
    config = {
        "bucket": place.netloc,
        "prefix": place.path.strip("/"),
        "model": model,
        "prepared": prepared,
        "out": out,
        "params": next(stage["params"] for stage in stages if stage["kind"] == "train"),
        "source": Path(__file__).with_name("bare_training.py").read_text(),
    }
    TorchTrainer(
        train,
        train_loop_config=config,
        torch_config=TorchConfig(backend="gloo"),
        scaling_config=ScalingConfig(num_workers=int(workers)),
        run_config=RunConfig(storage_path="/tmp/bare/ray"),
    ).fit()


if __name__ == "__main__":
    main()
