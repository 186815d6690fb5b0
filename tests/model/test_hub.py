"""Hugging Face folders in and out."""

import contextlib
import json
import pickle
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.torch_version import TorchVersion
from transformers import AutoModelForMaskedLM, BertModel, DistilBertForMaskedLM

from model.hub import load_model, save_model
from model.student import make_student
from tests.launch import run
from tests.model.helpers import bert, packed, padded


def teacher_folder(folder: Path, **overrides: object) -> Path:
    bert(**overrides).save_pretrained(folder)
    return folder


def test_student_loads_as_distilbert_with_the_same_logits(tmp_path: Path) -> None:
    student = make_student(load_model(teacher_folder(tmp_path / "t"))).eval()
    save_model(student, tmp_path / "s", "distilbert", student.state_dict())
    reference, info = DistilBertForMaskedLM.from_pretrained(tmp_path / "s", output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    token_ids, *layout = packed()
    ids, mask = padded(token_ids)
    with torch.no_grad():
        ours = student.logits(student(token_ids, *layout).features)
        theirs = reference.eval()(input_ids=ids, attention_mask=mask).logits[mask.bool()]
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_bert_saved_and_read_by_transformers(tmp_path: Path) -> None:
    model = load_model(teacher_folder(tmp_path / "t"))
    save_model(model, tmp_path / "copy", "bert", model.state_dict())
    reference = AutoModelForMaskedLM.from_pretrained(tmp_path / "copy").eval()
    token_ids, *layout = packed()
    ids, mask = padded(token_ids)
    with torch.no_grad():
        theirs = reference(input_ids=ids, attention_mask=mask).logits[mask.bool()]
        torch.testing.assert_close(model.logits(model(token_ids, *layout).features), theirs, rtol=0, atol=1e-5)


def test_pytorch_bin_and_tensorflow_era_names(tmp_path: Path) -> None:
    """bert-base-uncased is published with gamma and beta, a next-sentence head and without the tied decoder."""
    expected = load_model(teacher_folder(tmp_path))
    weights = load_file(tmp_path / "model.safetensors")
    old = {
        n.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): w
        for n, w in weights.items()
    }
    old |= {"cls.seq_relationship.weight": torch.zeros(2, 32), "bert.pooler.dense.weight": torch.zeros(32, 32)}
    (tmp_path / "model.safetensors").unlink()
    torch.save(old, tmp_path / "pytorch_model.bin")
    loaded = load_model(tmp_path)
    for name, value in expected.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name]), name


def test_sharded_weights(tmp_path: Path) -> None:
    expected = load_model(teacher_folder(tmp_path))
    bert().save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 2
    loaded = load_model(tmp_path / "shards")
    assert all(torch.equal(v, loaded.state_dict()[n]) for n, v in expected.state_dict().items())


def test_encoder_without_masked_lm_head_is_refused(tmp_path: Path) -> None:
    BertModel(bert().config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="no masked-LM head"):
        load_model(tmp_path)


def test_missing_and_unexpected_weights_are_named(tmp_path: Path) -> None:
    weights = load_file(teacher_folder(tmp_path) / "model.safetensors")
    gone = weights.pop("bert.encoder.layer.2.output.dense.weight")
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"lacks weights .*layer\.2\.output\.dense\.weight"):
        load_model(tmp_path)
    save_file(
        weights | {"bert.encoder.layer.2.output.dense.weight": gone, "adapter.weight": torch.zeros(2)},
        tmp_path / "model.safetensors",
    )
    with pytest.raises(ValueError, match=r"adapter\.weight"):
        load_model(tmp_path)


def test_wrong_shape_is_named(tmp_path: Path) -> None:
    config = json.loads((teacher_folder(tmp_path) / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"intermediate_size": 48}))
    with pytest.raises(ValueError, match=r"ffn_in\.weight \(64, 32\), expected \(48, 32\)"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "gpt2"}, "model_type 'gpt2' is not supported"),
        ({"hidden_act": "relu"}, "activation 'relu'"),
        ({"position_embedding_type": "relative_key"}, "absolute positions"),
        ({"num_attention_heads": 5}, "no multiple of num_heads = 5"),
    ],
)
def test_unsupported_architectures_are_refused(tmp_path: Path, change: dict, message: str) -> None:
    config = json.loads((teacher_folder(tmp_path) / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ValueError, match=message):
        load_model(tmp_path)


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    file = teacher_folder(tmp_path) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged"):
        load_model(tmp_path)


def test_hub_id_in_the_local_cache(tmp_path: Path) -> None:
    """The hub's own client, offline: a downloaded id resolves to its snapshot, an unknown one is one clear error."""
    snapshot = tmp_path / "hub/models--someone--tiny/snapshots/0123456789abcdef0123456789abcdef01234567"
    teacher_folder(snapshot)
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs/main").write_text(snapshot.name)
    script = "import sys; from model.hub import *; print(load_model(resolve_folder(sys.argv[1])).config.num_layers)"
    known, unknown = (
        run([sys.executable, "-c", script, name], HF_HUB_CACHE=str(tmp_path / "hub"), HF_HUB_OFFLINE="1")
        for name in ("someone/tiny", "someone/else")
    )
    assert known.stdout.strip().endswith("4"), known.stdout
    assert (
        "FileNotFoundError: no model at 'someone/else': not a local folder, and the hub did not provide it"
        in unknown.stdout
    )


class Exploit:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.marker,))


@pytest.mark.parametrize("layout", ["legacy", "zip", "sharded"])
def test_pickled_code_is_not_run(tmp_path: Path, layout: str) -> None:
    teacher_folder(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    content = {"x": Exploit(tmp_path / "ran")}
    if layout == "legacy":
        (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(content))
    elif layout == "zip":
        torch.save(content, tmp_path / "pytorch_model.bin")
    else:
        torch.save(content, tmp_path / "part.bin")
        (tmp_path / "pytorch_model.bin.index.json").write_text('{"weight_map": {"x": "part.bin"}}')
    with pytest.raises(ValueError, match=r"(pytorch_model|part)\.bin"):
        load_model(tmp_path)
    assert not (tmp_path / "ran").exists()
    unsafe = next(path for path in tmp_path.glob("p*.bin"))
    with contextlib.suppress(RuntimeError):
        torch.load(unsafe, weights_only=False)
    assert (tmp_path / "ran").exists(), "the exploit is none: the test would prove nothing"


def test_a_pickle_is_not_opened_by_a_torch_that_can_be_tricked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(load_file(teacher_folder(tmp_path) / "model.safetensors"), tmp_path / "pytorch_model.bin")
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.9.1+cu128"))
    load_model(tmp_path)  # safetensors need no such care
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"pytorch_model\.bin .*torch 2\.9\.1\+cu128 .*Upgrade torch"):
        load_model(tmp_path)


def test_remote_code_is_not_run(tmp_path: Path) -> None:
    """A folder may ask for its own Python files; only numbers are taken from it."""
    expected = load_model(teacher_folder(tmp_path))
    config = json.loads((tmp_path / "config.json").read_text())
    asking = {"auto_map": {"AutoModelForMaskedLM": "modeling_x.Model"}, "trust_remote_code": True}
    (tmp_path / "config.json").write_text(json.dumps(config | asking))
    (tmp_path / "modeling_x.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    loaded = load_model(tmp_path)
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in expected.state_dict().items())
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("index", ['{"weight_map": ["a"]}', '{"weight_map": {"a": ["b"]}}', "{}", "[" * 100_000])
def test_a_malformed_index_of_shards_is_named(tmp_path: Path, index: str) -> None:
    teacher_folder(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "elsewhere")
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(ValueError, match=r"model\.safetensors\.index\.json"):
        load_model(tmp_path)


def test_a_configuration_of_the_wrong_kind_is_named(tmp_path: Path) -> None:
    config = json.loads((teacher_folder(tmp_path) / "config.json").read_text())
    for value in ("64", None, True, 64.0, [64]):
        (tmp_path / "config.json").write_text(json.dumps(config | {"hidden_size": value}))
        with pytest.raises(ValueError, match=r"config\.json: hidden_size is "):
            load_model(tmp_path)
