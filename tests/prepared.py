"""TFDS data sets as TFDS prepares them, written without TensorFlow."""

import io
import json

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image
from tensorboardX.record_writer import RecordWriter
from tensorflow_datasets.proto import tf_example_pb2

FEATURES = "tensorflow_datasets.core.features"


def png(pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def prepare(
    root,
    name="tiny_shapes",
    splits=(("train", 12), ("test", 4)),
    shape=(6, 5, 3),
    labeled=True,
    image=True,
    file_format="array_record",
    dtype="uint8",
    label=None,
    encode=png,
    version="1.0.0",
    shards=1,
    kind="class",
):
    """Writes a prepared data set; returns the images of each split.

    Labels are 0, 1, 2, ... in train, or `label(split, row)`, or `label` in other splits. By `kind`
    their feature is a ClassLabel ("class"), an integer ("integer") or several labels ("several").
    """
    folder = root / name / version
    folder.mkdir(parents=True, exist_ok=True)
    rng, features, images = np.random.default_rng(0), {}, {}
    if image:
        dimensions = [str(side) if side else "-1" for side in shape]
        features["image"] = {
            "pythonClassName": f"{FEATURES}.image_feature.Image",
            "image": {"shape": {"dimensions": dimensions}, "dtype": dtype},
        }
    else:
        features["text"] = {"pythonClassName": f"{FEATURES}.text_feature.Text", "text": {}}
    if labeled:
        one = {
            "pythonClassName": f"{FEATURES}.class_label_feature.ClassLabel",
            "classLabel": {"numClasses": "3"},
        }
        integer = {"shape": {}, "dtype": "int64", "encoding": "none"}
        features["label"] = {
            "class": one,
            "integer": {
                "pythonClassName": f"{FEATURES}.tensor_feature.Tensor",
                "tensor": integer,
            },
            "several": {
                "pythonClassName": f"{FEATURES}.sequence_feature.Sequence",
                "sequence": {"feature": one, "length": "-1"},
            },
        }[kind]
        (folder / "label.labels.txt").write_text("circle\nsquare\nstar\n")
    infos = []
    for split, count in splits:
        paths = [
            folder / f"{name}-{split}.{file_format}-{shard:05d}-of-{shards:05d}"
            for shard in range(shards)
        ]
        writers = [
            RecordWriter(str(path))
            if file_format == "tfrecord"
            else ArrayRecordWriter(str(path), "group_size:1")
            for path in paths
        ]
        images[split] = []
        for row in range(count):
            height, width, depth = (side or 5 + row % 2 for side in shape)
            pixels = rng.integers(0, 256, (height, width, depth), dtype=np.uint8)
            pixels = pixels[..., 0] if depth == 1 else pixels
            images[split].append(pixels)
            example = tf_example_pb2.Example()
            feature = example.features.feature
            feature["image" if image else "text"].bytes_list.value.append(encode(pixels))
            if labeled:
                value = row % 3 if label is None or split == "train" else label
                value = label(split, row) if callable(label) else value
                feature["label"].int64_list.value.extend([value] * (2 if kind == "several" else 1))
            writers[row * shards // count].write(example.SerializeToString())
        for writer in writers:
            writer.close()
        infos.append(
            {
                "name": split,
                "shardLengths": [str(count // shards)] * shards,
                "numBytes": "1",
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
            }
        )
    (folder / "features.json").write_text(
        json.dumps(
            {
                "pythonClassName": f"{FEATURES}.features_dict.FeaturesDict",
                "featuresDict": {"features": features},
            }
        )
    )
    info = {"name": name, "version": version, "fileFormat": file_format, "splits": infos}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    return images
