"""A small export of a model that marks spans, made in a second, and what Python answers with the same file."""

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import onnx
import onnxruntime
import transformers
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from evaluation.examples import Answer, Example
from evaluation.tasks import TASKS
from exporting.golden import Golden, compare, make_golden, run_golden
from exporting.passages import EVERYTHING, QUESTIONS, UNICODE
from exporting.source import Head, Source
from exporting.texts import golden_texts
from exporting.variant import Run
from finetuning.spans import Candidate, answers_of, span_features

FP32, INT8 = "onnx/model.onnx", "onnx/model_int8.onnx"
COLUMNS = ("input_ids", "attention_mask")
WIDTH, HEADS, POSITIONS = 32, 2, 384


def write_export(folder: Path, seed: int = 0, *, attention: str = "fused") -> Path:
    """What export.py writes, as far as the page reads it. The weights are random: its answers are as odd as stable."""
    tokenizer = write_tokenizer(folder)
    (folder / "onnx").mkdir()
    onnx.save(span_model(len(tokenizer), seed, attention), folder / FP32)
    quantize_dynamic(
        folder / FP32,
        folder / INT8,
        weight_type=QuantType.QInt8,
        extra_options={"DefaultTensorType": TensorProto.FLOAT},  # behind what ONNX itself does not know
    )
    # What makes golden inputs asks a Source for no more than this.
    parts = {"tokenizer": tokenizer, "head": Head.SPAN, "task": TASKS["squad"], "labels": (), "max_length": POSITIONS}
    source = cast(Source, SimpleNamespace(**parts, input_names=COLUMNS))
    golden = make_golden(source, *golden_texts(source, "", 50), onnx_run(folder / FP32))
    record(golden, folder)
    return folder


def write_tokenizer(folder: Path) -> transformers.PreTrainedTokenizerFast:
    """BERT's: letters, and every third word of the texts that golden inputs are made of."""
    folder.mkdir(parents=True)
    text = " ".join([EVERYTHING, UNICODE, *(text for pair in QUESTIONS for text in pair)]).lower()
    letters = sorted(set(text) - {" "})
    words = sorted(set(re.findall(r"\w{2,}", text)))[::3]
    vocabulary = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *letters,
        *(f"##{letter}" for letter in letters),
        *words,
    ]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    tokenizer = transformers.BertTokenizerFast(vocab=str(folder / "vocab.txt"))
    tokenizer.save_pretrained(folder)
    return tokenizer


ATTENTION = {
    "fused": f"""mask = Cast <to: int = {TensorProto.INT32}> (attention_mask)
        mixed = com.microsoft.MultiHeadAttention <num_heads: int = {HEADS}> (q, k, v, , mask)""",
    "plain": f"""seen = Cast <to: int = {TensorProto.FLOAT}> (attention_mask)
        unseen = Sub (seen, unit)
        by_key = Unsqueeze (unseen, step)
        mask = Mul (by_key, large)
        turned = Transpose <perm: ints = [0, 2, 1]> (k)
        products = MatMul (q, turned)
        scaled = Mul (products, scale)
        masked = Add (scaled, mask)
        shares = Softmax <axis: int = -1> (masked)
        mixed = MatMul (shares, v)""",
}
"""As exports have it, or in operators that WebGPU has too; with one head then."""


def span_model(vocab_size: int, seed: int, attention: str) -> onnx.ModelProto:
    """One layer of BERT's, in the operators that an export has, under a head for spans."""
    draw = np.random.default_rng(seed)
    shapes = {
        "word": (vocab_size, WIDTH),
        "position": (POSITIONS, WIDTH),
        **{name: (WIDTH, WIDTH) for name in ("query", "key", "value", "output")},
        "ffn_in": (WIDTH, 2 * WIDTH),
        "ffn_out": (2 * WIDTH, WIDTH),
        "head": (WIDTH, 2),
    }
    weights = {
        name: (draw.standard_normal(shape) / shape[0] ** 0.5).astype(np.float32) for name, shape in shapes.items()
    }
    weights["word"] *= 10
    weights["position"] *= 10
    weights["head"] *= 4
    weights |= {"unit": np.float32([1]), "large": np.float32([10000]), "scale": np.float32([WIDTH**-0.5])}
    weights |= {"one": np.ones(WIDTH, np.float32), "zero": np.zeros(WIDTH, np.float32)}
    numbers = {"begin": np.array(0), "step": np.array(1), "last": np.array([2])}
    graph = onnx.parser.parse_graph(
        f"""
      spans (int64[batch, length] input_ids, int64[batch, length] attention_mask)
        => (float[batch, length] start_logits, float[batch, length] end_logits) {{
        shape = Shape <start: int = 1> (input_ids)
        length_ = Squeeze (shape)
        places = Range (begin, length_, step)
        words = Gather (word, input_ids)
        positions = Gather (position, places)
        sum = Add (words, positions)
        hidden = LayerNormalization <axis: int = -1> (sum, one, zero)
        q = MatMul (hidden, query)
        k = MatMul (hidden, key)
        v = MatMul (hidden, value)
        {ATTENTION[attention]}
        attended = MatMul (mixed, output)
        residual = Add (hidden, attended)
        normed = LayerNormalization <axis: int = -1> (residual, one, zero)
        wide = MatMul (normed, ffn_in)
        active = Gelu (wide)
        narrow = MatMul (active, ffn_out)
        residual_ = Add (normed, narrow)
        last_hidden = LayerNormalization <axis: int = -1> (residual_, one, zero)
        logits = MatMul (last_hidden, head)
        starts, ends = Split <axis: int = -1, num_outputs: int = 2> (logits)
        start_logits = Squeeze (starts, last)
        end_logits = Squeeze (ends, last)
      }}"""
    )
    read = {name for node in graph.node for name in node.input}
    values = {name: value for name, value in (weights | numbers).items() if name in read}
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in values.items())
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def record(golden: Golden, folder: Path) -> None:
    """golden.json, with what the two files say here."""
    for file in (FP32, INT8):
        found = compare(golden, run_golden(golden, onnx_run(folder / file)))
        golden["variants"][file] = {"max_difference": found.max_difference, "same_answers": found.same_answers}
    (folder / "golden.json").write_text(json.dumps(golden))


def onnx_run(file: Path) -> Run:
    """The file in Python's onnxruntime, on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]
    return lambda batch: tuple(session.run(["start_logits", "end_logits"], {name: batch[name] for name in names}))


def python_answers(
    folder: Path, pairs: Sequence[tuple[str, ...]], file: str = INT8
) -> tuple[list[list[Candidate]], list[int]]:
    """What finetuning/spans.py makes of what the same file says in Python; and in how many windows it read each text."""
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder)
    longest = json.loads((folder / "golden.json").read_bytes())["max_length"]
    examples = [Example(str(row), pair, (Answer("", 0),)) for row, pair in enumerate(pairs)]
    columns = (*COLUMNS, "token_type_ids")
    features, windows = span_features(examples, tokenizer, columns, longest, with_answers=False)
    run = onnx_run(folder / file)
    inputs = [{name: np.array([feature[name]]) for name in columns if name in feature} for feature in features]
    logits = [np.concatenate(run(one)) for one in inputs]
    found = answers_of(examples, windows, logits)
    rows = [window.example for window in windows]
    return [found[example.id] for example in examples], [rows.count(row) for row in range(len(pairs))]


def tampered(export: Path, folder: Path) -> Path:
    """The same export with a model that computes something else: every word is another's neighbour."""
    shutil.copytree(export, folder)
    for file in (FP32, INT8):
        model = onnx.load(folder / file)
        [position] = [
            tensor for tensor in model.graph.initializer if tensor.name.startswith("position") and len(tensor.dims) == 2
        ]
        values = numpy_helper.to_array(position)
        position.CopyFrom(numpy_helper.from_array(np.roll(values, 1, axis=0), position.name))
        onnx.save(model, folder / file)
    return folder
