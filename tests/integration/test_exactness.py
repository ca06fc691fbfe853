"""Training and the published file see the same tensor, bit for bit, for every size of image."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from PIL import Image

from automl.data.splits import Part
from automl.domain.settings import Settings
from automl.steps.local_run import run_study
from automl.steps.study_file import study_spec
from automl.storage.open import open_home
from automl.tracks.image.decode import decode_image
from automl.tracks.image.index import read_index
from automl.tracks.image.snapshot import ImageSnapshot
from benchmarks.shared_data import shared_dataset
from tests.quiet import Quiet

CLOTHING = "clothing"
PER_SIZE = 3
MOST_PIXELS = 200


@dataclass(frozen=True)
class Published:
    """A published file, and the tensors that its network was trained and measured on."""

    onnx: bytes
    tensors: dict[str, np.ndarray]


def publish(folder: Path, files: dict[str, bytes], image_size: int) -> Published:
    """Run a study of one trial on the files and return what it publishes."""
    (folder / "images").mkdir()
    lines = ["File Name,Label"]
    for number, (name, data) in enumerate(files.items()):
        (folder / "images" / name).write_bytes(data)
        lines.append(f"{name},{'ab'[number % 2]}")
    (folder / "train.csv").write_text("\n".join(lines) + "\n")
    document = {
        "name": "pictures",
        "task": "image_classification",
        "data": {
            "source": str(folder / "train.csv"),
            "images": str(folder / "images"),
            "image_size": image_size,
        },
        "search": {
            "time_limit": "60s", "max_trials": 1, "workers": 1,
            "limits": {"parameters": 10**6},  # else a pretrained seed of many more is trained
        },
        "final_fit": {"retrain": False},
    }  # fmt: skip
    settings = Settings(str(folder / "home"))
    result = run_study(settings, study_spec(document), Quiet())
    store = open_home(settings).store
    (key,) = [e.key for e in store.list("datasets/pictures/") if e.key.endswith("/manifest.json")]
    snapshot = ImageSnapshot.open(store, "pictures", key.split("/")[2])
    paths = read_index(store, snapshot.envelope, tuple(Part)).paths
    tensors = dict(zip(paths, snapshot.tensors(*Part)[0], strict=True))
    return Published(Path(result["onnx"]).read_bytes(), tensors)


def with_resized_output(data: bytes) -> tuple[onnxruntime.InferenceSession, str]:
    """Return a session of the published file that also returns what enters the normalisation."""
    model = onnx.load_model_from_string(data)
    (to_float,) = [
        node
        for node in model.graph.node
        if node.op_type == "Cast" and helper.get_node_attr_value(node, "to") == TensorProto.FLOAT
    ]
    (channels_first,) = [n for n in model.graph.node if to_float.input[0] in n.output]
    assert channels_first.op_type == "Transpose"
    name = channels_first.input[0]
    model.graph.output.append(
        helper.make_tensor_value_info(name, TensorProto.UINT8, ["N", "S", "S", 3])
    )
    onnx.checker.check_model(model, full_check=True)
    content = model.SerializeToString()
    return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"]), name


def assert_same_tensors(published: Published, files: dict[str, bytes]) -> None:
    session, name = with_resized_output(published.onnx)
    assert set(published.tensors) == set(files)
    for path, data in files.items():
        (resized,) = session.run([name], {"image": decode_image(data)[None]})
        assert resized.dtype == published.tensors[path].dtype == np.uint8
        np.testing.assert_array_equal(resized[0], published.tensors[path], err_msg=path)


def noise(sizes: Sequence[tuple[int, int]]) -> dict[str, bytes]:
    """Return pictures of random pixels as PNG files, `PER_SIZE` of each height and width."""
    rng = np.random.default_rng(4)
    files = {}
    for number, (height, width) in enumerate(size for size in sizes for _ in range(PER_SIZE)):
        buffer = io.BytesIO()
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(buffer, format="PNG")
        files[f"{number:03d}.png"] = buffer.getvalue()
    return files


def test_the_published_file_sees_what_training_saw_in_pictures_of_20_random_sizes(
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(3)
    sizes = {(int(h), int(w)) for h, w in rng.integers(1, MOST_PIXELS, (20, 2))}
    assert len(sizes) == 20
    files = noise(sorted(sizes))

    assert_same_tensors(publish(tmp_path, files, image_size=24), files)


@pytest.mark.soak
@pytest.mark.needs_shared(CLOTHING)
def test_the_published_file_sees_what_training_saw_in_photographs_of_every_size(
    tmp_path: Path,
) -> None:
    by_shape: dict[tuple[int, ...], dict[str, bytes]] = {}
    for path in sorted((shared_dataset(CLOTHING) / "images").iterdir()):
        data = path.read_bytes()
        group = by_shape.setdefault(decode_image(data).shape, {})
        if len(group) < PER_SIZE:
            group[path.name] = data
    files = {name: data for group in by_shape.values() for name, data in group.items()}
    assert len(by_shape) > 100

    assert_same_tensors(publish(tmp_path, files, image_size=32), files)
