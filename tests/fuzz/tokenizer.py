"""A tokenizer's folder: WordPiece, byte-level BPE and SentencePiece, refused by name or usable."""

import functools
import io
import json

import sentencepiece

from data.tokenizer import TOKENIZER_FILES, load_tokenizer
from data.train_tokenizer import train_byte_level_bpe
from tests.data.helpers import random_texts, small_tokenizer
from tests.fuzz.target import Folder, Target, pack, unpack

_TEXT = "word1 word2, the naïve [MASK]<mask> 東京\x00\n end"


class TokenizerFiles:
    """A folder with some of TOKENIZER_FILES."""

    def __init__(self) -> None:
        self.folder = Folder()

    def run(self, data: bytes) -> bool:
        for name, content in zip(TOKENIZER_FILES, unpack(data, len(TOKENIZER_FILES)), strict=True):
            self.folder.write(name, content)
        tokenizer = self.folder.attempt(lambda: load_tokenizer(str(self.folder.path)))
        if tokenizer is None:
            return False
        assert tokenizer.special_ids
        assert all(0 <= token < tokenizer.vocab_size for token in tokenizer.special_ids)
        assert 0 < tokenizer.vocab_size < 2**31
        (ids,) = tokenizer.encode_batch([_TEXT])
        assert all(0 <= token < tokenizer.vocab_size for token in ids.tolist())
        tokenizer.decode(ids)
        return True

    def seeds(self) -> list[bytes]:
        """BERT's, with and without its tokenizer.json; RoBERTa's two files; a .model as ALBERT, as XLM-R and as neither."""
        source = Folder()
        small_tokenizer().save(source.path)
        names = ("tokenizer.json", "vocab.txt", "tokenizer_config.json", "special_tokens_map.json")
        files = {name: (source.path / name).read_bytes() for name in names}
        folders = [{name: files[name] for name in kept} for kept in (names, names[:1], names[1:], names[1:2])]
        train_byte_level_bpe(random_texts(20), 280).save(source.path)
        folders.append({name: (source.path / name).read_bytes() for name in ("vocab.json", "merges.txt")})
        albert = _small_model(pad_id=3, control_symbols=["[CLS]", "[SEP]", "[MASK]"], user_defined_symbols=["-", "."])
        folders.append({"spiece.model": albert, "config.json": json.dumps({"model_type": "albert"}).encode()})
        config = json.dumps({"tokenizer_class": "XLMRobertaTokenizer"}).encode()
        folders.append({"sentencepiece.bpe.model": _small_model(), "tokenizer_config.json": config})
        folders.append({"tokenizer.model": albert})
        return [pack([folder.get(name, b"") for name in TOKENIZER_FILES]) for folder in folders]


def _small_model(**options: object) -> bytes:
    """Without the tables of Unicode normalization, which are most of a usual .model."""
    model = io.BytesIO()
    train = functools.partial(
        sentencepiece.SentencePieceTrainer.train, normalization_rule_name="identity", minloglevel=3
    )
    train(sentence_iterator=iter(random_texts(30)), model_writer=model, vocab_size=100, **options)
    return model.getvalue()


def tokenizer_target() -> Target:
    files = TokenizerFiles()
    return Target(run=files.run, seeds=files.seeds(), num_parts=len(TOKENIZER_FILES))
