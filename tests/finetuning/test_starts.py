"""What a fine-tuning starts from: are the right weights where they belong, and is what does not fit refused?"""

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch.nn.utils.rnn import pad_sequence

from evaluation.examples import Example
from evaluation.tasks import TASKS, Kind
from finetuning.bilstm import BiLstm, BiLstmConfig, load_bilstm
from finetuning.config import FinetuneConfig
from finetuning.material import collator_of, make_inputs, model_columns
from finetuning.predicting import predict, with_exact_head
from finetuning.starts import choose_start, halve, load_task_model
from model.config import EncoderConfig
from model.hub import save_model
from model.student import make_random
from tests.conftest import Toy

SMALL = {"vocab_size": 60, "max_position_embeddings": 40}
BERT = {**SMALL, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24}
SHAPES = {
    "bert": transformers.BertConfig(**BERT, num_hidden_layers=6),
    "roberta": transformers.RobertaConfig(**BERT, num_hidden_layers=6),
    "distilbert": transformers.DistilBertConfig(**SMALL, dim=16, n_heads=2, hidden_dim=24, n_layers=6),
}


@pytest.mark.parametrize("model_type", SHAPES)
@pytest.mark.parametrize("head", ["SequenceClassification", "QuestionAnswering"])
def test_a_halved_teacher_computes_its_chosen_layers_under_its_own_head(model_type: str, head: str) -> None:
    torch.manual_seed(0)
    teacher = getattr(transformers, f"AutoModelFor{head}").from_config(SHAPES[model_type]).eval()
    student = halve(teacher, (0, 3, 5)).eval()
    assert type(student) is type(teacher)
    assert student.config.num_hidden_layers == 3
    ids = torch.arange(6, 18)[None]
    # The independent reference: the teacher itself, with the other layers taken out of its list.
    blocks = teacher.base_model.transformer if model_type == "distilbert" else teacher.base_model.encoder
    blocks.layer = torch.nn.ModuleList(blocks.layer[i] for i in (0, 3, 5))
    with torch.no_grad():
        expected, given = teacher(input_ids=ids), student(input_ids=ids)
    for name in expected.keys():  # noqa: SIM118 - a ModelOutput
        assert torch.equal(expected[name], given[name]), name


def test_half_is_every_other_layer_from_first_to_last() -> None:
    teacher = transformers.BertForSequenceClassification(SHAPES["bert"])
    student = halve(teacher)
    for new, old in enumerate((0, 2, 5)):
        ours, theirs = student.bert.encoder.layer[new], teacher.bert.encoder.layer[old]
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert torch.equal(a, b)
    with pytest.raises(ValueError, match="--student_layers 6: the teacher has layers 0 to 5"):
        halve(teacher, (0, 6))


def config(**changes: object) -> FinetuneConfig:
    return FinetuneConfig(**{"task": ("sst2",), **changes})  # type: ignore[arg-type]


def test_a_folder_keeps_its_encoder_and_draws_its_head_from_the_seed(toy: Toy) -> None:
    start = choose_start(config(model=str(toy.teacher)), TASKS["sst2"])
    one, same, other = start.build(1), start.build(1), start.build(2)
    stored = load_file(toy.teacher / "model.safetensors")
    for name, value in one.state_dict().items():
        assert torch.equal(value, same.state_dict()[name]), name
        if "pooler" in name or name.startswith("classifier"):
            assert name.endswith("bias") or not torch.equal(value, other.state_dict()[name]), name
        elif name in stored:
            assert torch.equal(value, stored[name]), name
        else:
            raise AssertionError(f"{name} is neither copied nor new")
    assert one.config.id2label == {0: "negative", 1: "positive"}
    assert start.max_length == 64


@pytest.mark.parametrize(
    ("model_type", "types"), [("bert", [0, 1]), ("roberta", []), ("xlm-roberta", []), ("distilbert", [])]
)
def test_every_layout_reads_pairs_with_a_wordpiece_vocabulary(
    toy: Toy, tmp_path: Path, model_type: str, types: list
) -> None:
    """That tokenizer says token type 1, of which RoBERTa's layout, with one type, has no row."""
    shape = EncoderConfig(
        vocab_size=len((toy.teacher / "vocab.txt").read_text().splitlines()),
        hidden_size=16,
        num_layers=1,
        num_heads=2,
        intermediate_size=16,
        max_positions=64,
    )
    made = make_random(shape, seed=0)
    for file in toy.teacher.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    save_model(made, tmp_path, model_type, made.state_dict())
    start = choose_start(config(model=str(tmp_path), task=("rte",)), TASKS["rte"])
    model, examples = start.build(0), [Example("0", ("the dolan sees the melan .", "the dolan"), 1)]
    inputs = make_inputs(TASKS["rte"], examples, start.tokenizer, model_columns(model), 64, is_train=True)
    assert sorted(set(inputs.features[0].get("token_type_ids", []))) == types
    [logits], _ = predict(model, TASKS["rte"].kind, inputs.features, collator_of(start.tokenizer), None)
    assert np.isfinite(logits).all()
    assert start.max_length == 64


def test_a_random_start_shares_no_weight(toy: Toy) -> None:
    start = choose_start(config(model=str(toy.teacher), init="random"), TASKS["sst2"])
    stored = load_file(toy.teacher / "model.safetensors")
    names = [
        name for name, value in start.build(0).state_dict().items() if name in stored and name.endswith("query.weight")
    ]
    assert len(names) == 4
    assert not any(torch.equal(start.build(0).state_dict()[name], stored[name]) for name in names)
    assert start.name.endswith("random start")


def test_what_does_not_fit_is_refused(toy: Toy, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"lacks \d+ weights .*classifier.*fine-tune it first"):
        load_task_model(toy.teacher, TASKS["sst2"])
    folder = tmp_path / "three"
    shape = transformers.BertConfig(**{**BERT, "num_labels": 3}, num_hidden_layers=1)
    transformers.BertForSequenceClassification(shape).save_pretrained(folder)
    with pytest.raises(ValueError, match="has 3 outputs, SST-2 needs 2"):
        load_task_model(folder, TASKS["sst2"])
    with pytest.raises(ValueError, match=r"has no tokenizer\. Copy"):
        choose_start(config(model=str(folder)), TASKS["sst2"])
    with pytest.raises(FileNotFoundError, match="no model at 'nowhere/model'"):
        choose_start(config(model="nowhere/model"), TASKS["sst2"])
    (tmp_path / "gpt").mkdir()
    (tmp_path / "gpt/config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(ValueError, match="is a gpt2; fine-tuned are bert"):
        choose_start(config(model=str(tmp_path / "gpt")), TASKS["sst2"])
    shape.id2label = {0: "CONTRADICTION", 1: "NEUTRAL", 2: "ENTAILMENT"}  # as the hub's RoBERTa numbers them
    transformers.BertForSequenceClassification(shape).save_pretrained(folder)
    with pytest.raises(ValueError, match="contradiction, neutral, entailment in this order, MNLI has entailment"):
        load_task_model(folder, TASKS["mnli"])
    shape.id2label = {0: "Entailment", 1: "Neutral", 2: "Contradiction"}
    transformers.BertForSequenceClassification(shape).save_pretrained(folder)
    assert load_task_model(folder, TASKS["mnli"]).config.num_labels == 3  # type: ignore[union-attr]
    torn = tmp_path / "torn"
    torn.mkdir()
    for file in toy.teacher.iterdir():
        (torn / file.name).write_bytes(file.read_bytes())
    weights = load_file(torn / "model.safetensors")
    weights.pop("bert.encoder.layer.2.output.dense.weight")
    save_file(weights, torn / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks 1 weights .*layer.2.output.dense.weight\): it is no whole model"):
        choose_start(config(model=str(torn)), TASKS["sst2"]).build(0)
    with pytest.raises(ValueError, match="has no spans"):
        choose_start(config(model="bilstm", teacher=str(toy.teacher), task=("squad",)), TASKS["squad"])


@pytest.mark.parametrize("model_type", SHAPES)
@pytest.mark.parametrize("head", ["SequenceClassification", "QuestionAnswering"])
def test_logits_are_not_rounded_to_bf16(model_type: str, head: str) -> None:
    """What the head reads may be; what it says is a sum of products in fp32, and is learnt from."""
    torch.manual_seed(0)
    model = getattr(transformers, f"AutoModelFor{head}").from_config(SHAPES[model_type]).eval()
    ids = torch.arange(6, 38).view(2, 16)
    kind = Kind.SPAN if head == "QuestionAnswering" else Kind.CLASSIFICATION

    def logits() -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            output = model(input_ids=ids)
        return output.start_logits if kind is Kind.SPAN else output.logits

    assert logits().dtype == torch.bfloat16
    with_exact_head(model)
    found = logits()
    assert found.dtype == torch.float32
    assert (found != found.bfloat16().float()).float().mean() > 0.9
    found.sum().backward()
    last = model.qa_outputs if kind is Kind.SPAN else getattr(model.classifier, "out_proj", model.classifier)
    assert last.weight.grad is not None
    assert last.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("is_pair", [False, True])
def test_the_bilstm_reads_each_text_alone(is_pair: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    shape = BiLstmConfig(
        vocab_size=30,
        num_labels=2,
        pad_id=0,
        sep_id=3,
        is_pair=is_pair,
        embedding_size=8,
        hidden_size=5,
        classifier_size=7,
    )
    model = BiLstm(shape).eval()
    texts = [([5, 6, 7, 8], [9, 10]), ([11], [12, 13, 14]), ([15, 16], [])]
    rows = [torch.tensor([2, *a, 3, *b, 3] if is_pair else [2, *a, 3]) for a, b in texts]
    ids = pad_sequence(rows, batch_first=True)
    mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)

    def read(tokens: list[int]) -> torch.Tensor:
        states, _ = model.lstm(model.embedding(torch.tensor(tokens or [0]))[None])
        return torch.cat([states[0, -1, :5], states[0, 0, 5:]])

    with torch.no_grad():
        found = model(ids, mask).logits
        for row, (a, b) in enumerate(texts):
            u, v = read(a), read(b)
            features = torch.cat([u, v, u * v, (u - v).abs()]) if is_pair else u
            expected = model.classifier(torch.relu(model.hidden(features)))
            np.testing.assert_allclose(found[row], expected, rtol=1e-5, atol=1e-6)
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(load_bilstm(tmp_path)(ids, mask).logits, found)
