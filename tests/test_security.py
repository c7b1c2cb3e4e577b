"""What hostile data, folders and checkpoints come to. SECURITY.md says which of these tests stands for what."""

import json
import pickle
import struct
import tarfile
import threading
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
import torch
from click.testing import CliRunner
from fakes import NAMES, build_fakes, job_config, picture, write_shard
from safetensors.torch import save_file
from tars import read_all

from capfilt.cli import cli
from capfilt.config import BootstrapConfig, Cluster, Config, load
from capfilt.errors import CapfiltError, CheckpointError, ConfigError, RunError
from capfilt.med.weights import load_tensors
from capfilt.runs import load_run
from capfilt.shards import open_shard, write_tar
from capfilt.training.folder import TrainingRun
from capfilt.verify import verify
from pipelines import bootstrap
from workers.pool import session

HOSTILE_TEXT = 'my red car<script>alert(1)</script><img src=x onerror="alert(1)"> \x1b[2J\u202egnp.exe\u2066 \0'
HOSTILE_JSON = {
    "nested": b"[" * 100_000,
    "huge": b'{"n": ' + b"9" * 10_000 + b"}",
    "nan": b'{"caption": "my red car", "n": NaN, "m": 1e999}',
    "twice": b'{"caption": "a", "caption": "my red car"}',
    "binary": b"\x80\x04\x95",
}


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, (f"open({str(self.target)!r}, 'w').close()",)


@pytest.fixture
def bombed(tmp_path: Path) -> Iterator[Path]:
    """The file that a pickle would leave; it must not be there in the end."""
    target = tmp_path / "bombed"
    pickle.loads(pickle.dumps(Bomb(target)))
    assert target.exists()  # the bomb is live
    target.unlink()
    yield target
    assert not target.exists()


def test_a_shard_full_of_traps_becomes_a_clean_run(tmp_path, bombed):
    """Names that lead out, pickles, scripts and odd JSON: all of it is data, and none of it reaches a path or code."""
    red, bomb = picture("red"), pickle.dumps(Bomb(bombed))
    members = [(f"{name}.jpg", red) for name in HOSTILE_JSON] + [
        (f"{k}.json", data) for k, data in HOSTILE_JSON.items()
    ]
    members += [("../../out.jpg", red), ("../../out.txt", HOSTILE_TEXT.encode()), ("../../out.pyd", bomb)]
    members += [(f"{tmp_path}/absolute.jpg", red), (f"{tmp_path}/absolute.txt", b"my red car"), ("x.pickle", bomb)]
    members += [("__init__.py", b"raise SystemExit"), ("\x1b]0;owned\x07.jpg", red), ("x" * 5000 + ".jpg", red)]
    (tmp_path / "in").mkdir()
    write_tar(tmp_path / "in" / "00000.tar", members)
    before = set(tmp_path.rglob("*"))

    config = job_config(tmp_path, export=True)
    bootstrap.run(config, build_fakes, NAMES, local=True)

    assert verify(load_run(config.run)) == []
    assert {path for path in set(tmp_path.rglob("*")) - before if not path.is_relative_to(tmp_path / "run")} == set()
    clean = next((tmp_path / "run/clean").rglob("*.tar"))
    with tarfile.open(clean) as tar:
        tar.extractall(tmp_path / "extracted", filter="data")  # refuses names that lead out
        assert all(name.startswith("00000") and "/" not in name for name in tar.getnames())
    texts = [path.read_text() for path in (tmp_path / "extracted").glob("*.txt")]
    assert "my red car [2Jgnp.exe" in texts
    assert all(text.isprintable() and "<" not in text for text in texts)
    for path in (tmp_path / "extracted").glob("*.json"):
        row = json.loads(path.read_text(), parse_constant=pytest.fail)
        if row["metadata"]:
            json.loads(row["metadata"], parse_constant=pytest.fail)


def test_extension_types_of_arrow_are_not_unpickled(tmp_path, bombed):
    """Old releases of pyarrow loaded a class from the schema's metadata (CVE-2023-47248)."""
    metadata = {
        b"ARROW:extension:name": b"arrow.py_extension_type",
        b"ARROW:extension:metadata": pickle.dumps(Bomb(bombed)),
    }
    schema = pa.schema([pa.field("jpg", pa.binary()), pa.field("caption", pa.string(), metadata=metadata)])
    pq.write_table(pa.table({"jpg": [b"x"], "caption": ["a dog"]}, schema), tmp_path / "0.parquet")

    (sample,) = read_all(open_shard(str(tmp_path / "0.parquet")))

    assert sample.text == "a dog"


@pytest.mark.parametrize("name", ["model.pth", "pytorch_model.bin"])
def test_code_in_a_checkpoint_is_never_run(tmp_path, bombed, name):
    torch.save({"model": Bomb(bombed)}, tmp_path / name)

    with pytest.raises(CheckpointError, match="never unpickled"):
        load_tensors(tmp_path / name)


def test_code_in_a_state_of_a_training_is_never_run(tmp_path, bombed):
    (tmp_path / "states").mkdir()
    torch.save({"step": 10, "objective": Bomb(bombed)}, tmp_path / "states" / "000000010.pt")

    with pytest.raises(RunError, match="every state is damaged"):
        TrainingRun(tmp_path, Config()).restore()


def test_a_pickle_under_the_name_of_safetensors_is_no_checkpoint(tmp_path, bombed):
    (tmp_path / "model.safetensors").write_bytes(pickle.dumps(Bomb(bombed)))

    with pytest.raises(CheckpointError, match="cannot be read as tensors"):
        load_tensors(tmp_path / "model.safetensors")
    save_file({"a": torch.ones(1)}, tmp_path / "model.safetensors")
    assert set(load_tensors(tmp_path / "model.safetensors")) == {"a"}


def test_yaml_makes_values_and_no_objects(tmp_path, bombed):
    (tmp_path / "job.yaml").write_text(f"run: !!python/object/apply:os.mknod ['{bombed}']\n")

    with pytest.raises(ConfigError, match="is not YAML"):
        load(BootstrapConfig, tmp_path / "job.yaml")
    with pytest.raises(ConfigError, match="is not YAML"):
        load(BootstrapConfig, tmp_path / "job.yaml", [f"run=!!python/object/apply:os.mknod ['{bombed}']"])


def test_a_list_makes_no_request_to_another_host(tmp_path):
    asked: list[str] = []

    class Inside(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)

        do_HEAD = do_GET

    server = ThreadingHTTPServer(("127.0.0.1", 0), Inside)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    address = f"127.0.0.1:{server.server_address[1]}"
    paths = [
        f"http://{address}/a.jpg",
        f"//{address}/a.jpg",
        f"simplecache::http://{address}/a.jpg",
        f"a.jpg::http://{address}",
    ]
    (tmp_path / "list.jsonl").write_text("\n".join(json.dumps({"image": path}) for path in paths))

    samples = read_all(open_shard(str(tmp_path / "list.jsonl")))
    server.shutdown()

    assert [sample.status for sample in samples] == ["outside_folder"] * 4
    assert asked == []


SECRET = "s3cr3t-value"
URLS = [
    f"s3://AKIA123:{SECRET}@bucket/in",
    f"https://bucket.s3.amazonaws.com/00000.tar?X-Amz-Signature={SECRET}&X-Amz-Expires=60",
    f"https://account.blob.core.windows.net/c/00000.tar?sv=2024-01-01&sig={SECRET}",
    f"https://host/00000.tar?token={SECRET}",
]


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize("key", ["input", "run", "captioner"])
def test_a_url_with_credentials_is_refused_and_not_repeated(tmp_path, url, key):
    value = [url] if key == "input" else url
    values = {"input": ["in"], "run": "run", "captioner": "c", "filter": "f"} | {key: value}
    (tmp_path / "job.yaml").write_text(json.dumps(values))

    with pytest.raises(ConfigError, match=rf"{key}: .*a URL with credentials .*AWS_ACCESS_KEY_ID") as told:
        load(BootstrapConfig, tmp_path / "job.yaml")
    with pytest.raises(ValueError, match="a URL with credentials") as raised:
        BootstrapConfig.model_validate(values)

    assert SECRET not in str(told.value) + str(raised.value)


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize("command", ["verify", "stats", "status", "logs", "stop"])
def test_commands_do_not_repeat_credentials(url, command):
    result = CliRunner().invoke(cli, [command, url])

    assert (result.exit_code, SECRET in result.output) == (1, False)
    assert "a URL with credentials" in result.output


def test_what_an_error_quotes_cannot_steer_a_terminal():
    error = CapfiltError("00000.tar: \x1b]0;owned\x07\u202egpj.exe: is no image")

    assert str(error) == "00000.tar: \\x1b]0;owned\\x07\\u202egpj.exe: is no image"


def test_an_image_bomb_is_refused_by_its_header(tmp_path):
    """A PNG that says it is of 50000 x 50000 pixels, and brings a few bytes for each million of them."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(bytes(1 << 20))
    chunks = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (header, data, b"IEND")]
    bomb = b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
    write_shard(tmp_path / "in/00000.tar", [(bomb, "a bomb"), ("red", "my red car"), ("blue", "x")])

    summary = bootstrap.run(job_config(tmp_path), build_fakes, NAMES, local=True)

    assert "3 samples: 2 scored, 1 failed (1 too_many_pixels)" in summary


def test_a_private_cluster_has_no_dashboard(monkeypatch):
    """It would be a port by which whoever reaches it runs code here. (A start takes seconds, so Ray is not started.)"""
    asked: dict[str, object] = {}

    def init(*address: str, **settings: object) -> None:
        asked.update(settings)
        raise KeyboardInterrupt

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)

    with pytest.raises(KeyboardInterrupt), session(Cluster()):
        pass

    assert asked["include_dashboard"] is False
