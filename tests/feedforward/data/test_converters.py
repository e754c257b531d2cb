"""What all converters do with folders that are not theirs; helpers of converters."""

import numpy as np
import pytest
from dataset_scene import make_disc
from dataset_writers import write_vkitti2

from msdyn.errors import InputError
from msdyn.feedforward.data.convert import (
    converter_names,
    find_converter,
    register_converter,
    vkitti2,
)
from msdyn.feedforward.data.convert import registry as registry_module
from msdyn.feedforward.data.convert.files import (
    clip_name,
    known_depth,
    numbered_files,
    parts,
    read_numbers,
)


@pytest.mark.parametrize("name", converter_names())
def test_empty_and_missing_folders(tmp_path, name):
    (tmp_path / "train" / "something").mkdir(parents=True)
    with pytest.raises(InputError, match=f"found no sequence of {name}; expected .*<") as raised:
        list(find_converter(name)(tmp_path))
    assert str(tmp_path) in str(raised.value) and "\n" not in str(raised.value)
    with pytest.raises(InputError, match="none: no such folder; expected"):
        list(find_converter(name)(tmp_path / "none"))


def test_registry(tmp_path, monkeypatch):
    monkeypatch.setattr(registry_module, "_CONVERTERS", {})

    @register_converter("toy", layout="<scene>")
    def clips(source):
        yield from ()

    assert converter_names() == ("toy",) and find_converter("toy") is clips
    with pytest.raises(InputError, match="data set: expected one of toy, got 'other'"):
        find_converter("other")


def test_damaged_sequences_may_be_left_out(tmp_path):
    scene = make_disc(1)
    for name in ("Scene01/clone", "Scene02/clone", "Scene06/clone"):
        write_vkitti2(tmp_path, scene, sequence=name)
    (tmp_path / "Scene02/clone/extrinsic.txt").unlink()
    convert, errors = find_converter("vkitti2"), []
    found = convert(tmp_path)
    assert next(found).name == "Scene01_clone_0"
    with pytest.raises(FileNotFoundError, match="extrinsic.txt: no such file"):
        next(found)
    names = [clip.name for clip in convert(tmp_path, damaged=errors.append)]
    assert names == ["Scene01_clone_0", "Scene06_clone_0"]
    assert [type(error) for error in errors] == [FileNotFoundError] and "Scene02" in str(errors[0])
    for name in ("Scene01", "Scene06"):
        (tmp_path / name / "clone/extrinsic.txt").unlink()
    assert not list(convert(tmp_path, damaged=errors.append)) and len(errors) == 4


def test_converters_yield_clips_or_functions_that_return_them(tmp_path, monkeypatch):
    monkeypatch.setattr(registry_module, "_CONVERTERS", {})
    write_vkitti2(tmp_path, make_disc(1))
    (clip,) = vkitti2.clips(tmp_path)

    @register_converter("toy", layout="<scene>")
    def clips(source):
        yield clip
        yield lambda: clip
        yield lambda: [clip, clip]
        yield lambda: iter([])

    assert list(find_converter("toy")(tmp_path)) == [clip] * 4


@pytest.mark.parametrize("frames, longest", [(0, 3), (1, 3), (3, 3), (4, 3), (10, 3), (2000, 300)])
def test_parts_cover_all_frames_once(frames, longest):
    found = list(parts(frames, longest))
    lengths = [part.stop - part.start for part in found]
    assert [i for part in found for i in range(frames)[part]] == list(range(frames))
    assert len(found) == -(-frames // longest)
    assert (
        max(lengths, default=0) <= longest
        and max(lengths, default=0) - min(lengths, default=0) <= 1
    )


def test_numbered_files_are_in_the_order_of_their_numbers(tmp_path):
    for name in ("f_10.png", "f_9.png", "f_100.png", "f_x.png", "f_2.txt"):
        (tmp_path / name).touch()
    assert list(numbered_files(tmp_path, r"f_(\d+)\.png")) == [9, 10, 100]
    (tmp_path / "f_009.png").touch()
    with pytest.raises(InputError, match="two files of number 9"):
        numbered_files(tmp_path, r"f_(\d+)\.png")
    with pytest.raises(InputError, match="no file whose name matches"):
        numbered_files(tmp_path, r"g_(\d+)\.png")


def test_tables_of_numbers(tmp_path):
    path = tmp_path / "t.txt"
    path.write_text("a header\n1 2\n\n3 4e1\n")
    np.testing.assert_array_equal(read_numbers(path, 2, skip=1), [[1, 2], [3, 40]])
    path.write_text("")
    assert read_numbers(path, 2).shape == (0, 2)
    for text, message in {
        "1 2\n1\n": "line 2: expected 2 numbers, got 1",
        "1 x\n": "line 1: expected numbers",
        "1 nan\n": "line 1: expected finite",
    }.items():
        path.write_text(text)
        with pytest.raises(InputError, match=f"t.txt: {message}"):
            read_numbers(path, 2)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="t.txt: not a readable text file"):
        read_numbers(path, 2)


def test_names_and_unknown_depth():
    assert clip_name("train", "a b.c", "0") == "train_a-b-c_0"
    assert clip_name("__") == "clip"
    depth = np.array([[np.nan, np.inf, -1, 0, 2, 9]])
    np.testing.assert_array_equal(known_depth(depth, 9), [[0, 0, 0, 0, 2, 0]])
