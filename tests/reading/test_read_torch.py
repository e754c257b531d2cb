"""Files of PyTorch: tensors and plain containers are read, all else is an error of one line."""

import pytest
import torch

from msdyn.errors import InputError
from msdyn.reading import read_torch


class Ran(Exception):
    pass


def run(*_):
    raise Ran


class Code:
    def __reduce__(self):
        return run, ()


def test_tensors_and_containers_are_read(tmp_path):
    torch.save({"a": torch.arange(3), "b": [1, "x"]}, tmp_path / "a.pt")
    for mmap in (False, True):
        content = read_torch(tmp_path / "a.pt", mmap=mmap)
        assert content["a"].tolist() == [0, 1, 2] and content["b"] == [1, "x"]


def test_code_in_a_file_is_not_run(tmp_path):
    torch.save({"a": Code()}, tmp_path / "code.pt")
    with pytest.raises(InputError, match="not a readable file of tensors") as error:
        read_torch(tmp_path / "code.pt")
    assert "\n" not in str(error.value)


def test_other_files_are_named(tmp_path):
    (tmp_path / "text.pt").write_text("rubbish")
    with pytest.raises(InputError, match=r"text.pt: not a readable file of weights \("):
        read_torch(tmp_path / "text.pt", "file of weights")
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_torch(tmp_path / "none.pt", "file of weights")
