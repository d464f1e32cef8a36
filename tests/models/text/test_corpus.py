from pathlib import Path

import pytest
import torch

from marche_fx.errors import DatasetError
from marche_fx.models.text import encode, read_lines, split_lines
from marche_fx.models.text.vocabulary import MASK, read_tokenizer, save_tokenizer
from tests.flips import flipped

from .tiny import LINES, VOCABULARY, tiny_corpus, tiny_tokenizer


def test_lines_are_read_with_single_spaces_and_without_empty_ones(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("  In  the\tbeginning \n\n" + "God created.\r\n" * 50)
    assert read_lines(tmp_path / "text") == ["In the beginning"] + ["God created."] * 50


def test_a_text_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"none cannot be read as UTF-8 text.*--text"):
        read_lines(tmp_path / "none")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe" * 100)
    with pytest.raises(DatasetError, match="bytes cannot be read as UTF-8 text"):
        read_lines(tmp_path / "bytes")
    (tmp_path / "short").write_text("one\ntwo\n")
    with pytest.raises(DatasetError, match="short has 2 lines"):
        read_lines(tmp_path / "short")


def test_the_last_lines_are_held_out() -> None:
    training, held_out = split_lines([str(number) for number in range(100)])
    assert training + held_out == [str(number) for number in range(100)]
    assert len(held_out) == 5


def test_a_corpus_is_its_text_and_knows_where_lines_begin() -> None:
    tokenizer, corpus = tiny_tokenizer(), tiny_corpus()
    text = tokenizer.decode(corpus.pieces.tolist())
    assert text == "".join(f"{line}\n" for line in LINES)
    assert corpus.size == len(text.encode())
    for start, line in zip(corpus.starts.tolist(), LINES, strict=True):
        assert tokenizer.decode(corpus.pieces[start:].tolist()).startswith(line)


def test_windows_begin_where_they_are_told() -> None:
    corpus = tiny_corpus()
    starts = corpus.starts_of(40)
    windows = corpus.windows(starts[-2:], 40)
    assert torch.equal(windows[1], corpus.pieces[starts[-1] : starts[-1] + 40])
    assert starts[-1] + 40 <= len(corpus.pieces)


def test_any_text_can_be_spelled() -> None:
    tokenizer = tiny_tokenizer()
    line = "Größe: 7 € {x}"
    assert tokenizer.decode(encode([line], tokenizer).pieces.tolist()) == f"{line}\n"


def test_a_vocabulary_is_read_as_it_was_written(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    save_tokenizer(tokenizer, tmp_path / "vocabulary.json")
    read = read_tokenizer(tmp_path / "vocabulary.json")
    assert read.to_str() == tokenizer.to_str()
    assert read.get_vocab_size() == VOCABULARY
    assert read.decode([0]) in ("", MASK)


def test_a_damaged_vocabulary_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "vocabulary.json"
    with pytest.raises(DatasetError, match="there is no vocabulary"):
        read_tokenizer(path)
    save_tokenizer(tiny_tokenizer(), path)
    for _ in flipped(path, 20):
        with pytest.raises(DatasetError, match=r"vocabulary\.json is damaged"):
            read_tokenizer(path)
