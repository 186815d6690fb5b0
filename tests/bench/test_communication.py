"""The formula for an update's traffic: every call that real DeepSpeed ranks make, and what follows on many GPUs."""

import pytest

from bench.communication import Case, Collective, Parameter, Update, buckets, count, cut, owners, predict
from bench.scaling import ETHERNET, INFINIBAND, Machine, exposed_reduction, strategies, student_parameters
from bench.workload import SIZES, Workload
from model.config import EncoderConfig


@pytest.mark.slow  # real ranks, seven configurations
def test_every_collective_of_real_ranks_is_predicted() -> None:
    """The document's formula against two ranks of DeepSpeed, call by call. Small buckets: many, and one gradient larger."""
    owner_by_owner = {"use_multi_rank_bucket_allreduce": False}
    settings: list[dict] = [
        {"stage": 1, "accumulation": 2},
        {"stage": 2, "accumulation": 2},
        {"stage": 2, "accumulation": 2, "reduce_bucket_size": 100_000},
        {"stage": 2, "accumulation": 2, "reduce_bucket_size": 100_000, "reduce_scatter": True},
        {"stage": 2, "accumulation": 2, "reduce_bucket_size": 100_000, "reduce_scatter": True} | owner_by_owner,
        {"stage": 2, "accumulation": 2, "communication_dtype": "bfloat16", "overlap_comm": False},
        {"stage": 1, "accumulation": 2, "weight_dtype": "float32", "reduce_bucket_size": 100_000},
    ]
    cases = [Case(update=Update(ranks=2, **setting), size="tiny", length=16, sequences=2) for setting in settings]
    counts = count(cases)
    for case, found in zip(cases, counts, strict=True):
        assert found.collectives == predict(case.update, found.parameters), case.update
        assert sorted(found.parameters) == sorted(student_parameters(tiny_student()))
        assert found.parameters[-1] == student_parameters(tiny_student())[-1]  # the tied word embedding
    assert [len(found.collectives) for found in counts[:2]] == [3, 2 + 3 + 2]  # one reduction for each micro-batch
    same, rounded = counts[1:5], counts[5]
    assert all(found.gradient_error < 1e-6 for found in same)
    assert 1e-4 < rounded.gradient_error < 1e-2


def tiny_student() -> EncoderConfig:
    return Workload(variant="ours", size="tiny", length=16, sequences=2, updates=0).student


def test_bytes_of_the_ring() -> None:
    """R - 1 of R parts, twice for an all-reduce (Patarasuk and Yuan 2009)."""
    assert Collective("all_reduce", "float32", 100).sent(4) == pytest.approx(600)
    assert Collective("all_gather", "bfloat16", 100).sent(4) == pytest.approx(150)
    assert Collective("reduce", "float32", 100).sent(4) == pytest.approx(300)
    assert Collective("all_reduce", "float32", 100).sent(1) == 0


def test_buckets_are_filled_in_order() -> None:
    parameters = [Parameter(0, 0, 4), Parameter(0, 4, 5), Parameter(1, 0, 2), Parameter(0, 9, 30), Parameter(1, 2, 1)]
    update = Update(stage=2, ranks=2, accumulation=1, reduce_bucket_size=10)
    assert buckets(update, parameters) == [[0, 1], [2], [3], [4]]
    assert owners(update, 3, parameters) == [(0, 11), (1, 19)]  # 39 elements, padded to 40, are 20 for each rank
    assert cut([11, 19, 3, 4], 10) == [11, 19, 7]


def test_one_all_reduce_is_one_all_reduce_of_the_whole_student() -> None:
    """BERT-base's student: 66.4 M weights once under ZeRO-1, and in each micro-batch under ZeRO-2."""
    parameters = student_parameters(Workload(variant="ours", size="base", length=8, sequences=1, updates=0).student)
    (reduction, *gathers) = predict(Update(stage=1, ranks=8, accumulation=16), parameters)
    assert reduction.elements == pytest.approx(SIZES["base"].num_parameters - 6 * 7.09e6, rel=1e-3)
    assert sum(c.elements for c in gathers) == reduction.elements
    zero2 = predict(Update(stage=2, ranks=8, accumulation=16, reduce_bucket_size=50_000_000), parameters)
    reductions = [c for c in zero2 if c.elements > 1 and c.operation == "all_reduce"]
    assert sum(c.elements for c in reductions) == 16 * sum(p.elements for p in parameters)
    assert len(reductions) == 16 * 2


def test_large_buckets_leave_nothing_to_hide() -> None:
    """With buckets of 50 M the first one closes when the last gradient, the word embedding's, arrives."""
    machine = Machine(ranks=8, network=INFINIBAND, share=0.4)
    parameters = student_parameters(machine.workload.student)
    exposed = [
        exposed_reduction(machine, Update(stage=2, ranks=8, accumulation=1, reduce_bucket_size=size), parameters)
        for size in (50_000_000, 8_000_000)
    ]
    large = Update(stage=2, ranks=8, accumulation=1, reduce_bucket_size=50_000_000)
    whole = sum(machine.seconds(c) for c in predict(large, parameters)[:2])
    assert exposed[0] == pytest.approx(whole)
    assert exposed[1] < 0.6 * whole


def test_predicted_efficiency() -> None:
    """16 micro-batches of 16,384 tokens, 664 MFLOP each, at 316 TFLOP/s; then 2 * 7/8 * 266 MB at 360 GB/s."""
    machine = Machine(ranks=8, network=INFINIBAND, share=0.4)
    assert machine.accumulation == 16
    assert machine.compute_seconds == pytest.approx(16 * 16384 * 664e6 / 316e12, rel=0.002)
    parameters = student_parameters(machine.workload.student)
    zero1 = strategies(machine, parameters)["ZeRO-1"] - machine.compute_seconds
    assert zero1 == pytest.approx(1.75 * 66.4e6 * 4 / 360e9 + 0.875 * 66.4e6 * 2 / 360e9, rel=0.1)
    on_ethernet = strategies(Machine(ranks=64, network=ETHERNET, share=0.4), parameters)
    assert on_ethernet["ZeRO-1"] < on_ethernet["ZeRO-2, buckets of 50 M"]
    assert Machine(ranks=1024, network=ETHERNET, share=0.4).micro_batch == 4
