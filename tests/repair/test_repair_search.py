"""The search: against brute force, against onnxconverter-common's, and on real conversions.

`clauses` make a search problem: nothing flips when of each clause at least one node is kept.
"""

import random
from itertools import combinations
from math import inf

import numpy as np
import onnxruntime
import pytest
from onnxconverter_common.auto_mixed_precision import SegmentList

from scripts.graphs.fp16 import candidates, convert, prepare
from scripts.graphs.half_rounding import rounded
from scripts.repair.ranking import Segment, localise
from scripts.repair.search import repair
from scripts.repair.trials import Outcome, Remembered
from scripts.verdicts.thresholds import is_positive
from tests import planted

onnxruntime.set_default_logger_severity(4)


def problem(count, clauses, together=False, seed=0):
    """(nodes, evaluate). `together`: nothing gets better until every clause is met."""
    nodes = [f"n{i:03}" for i in range(count)]
    noise = dict(zip(nodes, np.random.default_rng(seed).uniform(0, 1e-3, count), strict=True))
    wanted = [{nodes[i] for i in clause} for clause in clauses]

    def evaluate(keep):
        left = sum(not clause & keep for clause in wanted)
        if together and left:
            left = len(wanted)
        error = 2.0 * left + sum(noise[name] for name in nodes if name not in keep)
        return Outcome(3 * left, error, np.full(4, error / 4, np.float32))

    return nodes, evaluate


def fewest(nodes, evaluate):
    """The smallest sets with which nothing flips, by trying every set."""
    for size in range(len(nodes) + 1):
        found = [s for s in combinations(nodes, size) if not evaluate(frozenset(s)).flips]
        if found:
            return found
    return []


def search(nodes, evaluate, **options):
    return repair(nodes, evaluate, localise(nodes, evaluate), **options)


def library(nodes, evaluate):
    """(nodes kept, sets tried) by auto_convert_mixed_precision, around its own SegmentList."""
    segments, tried = SegmentList(nodes), 1  # the last is the final model
    while (segment := segments.get_largest()) is not None:
        tried += 1
        if not evaluate(frozenset(segments.get_nodes(segment))).flips:
            segment.good = True
        elif segment.size == 1:
            segment.bad = True
        else:
            segment.split()
    return segments.get_nodes(), tried


KINDS = {
    "one": lambda a, b, c: ([[a]], False),
    "two": lambda a, b, c: ([[a], [b]], False),
    "three": lambda a, b, c: ([[a], [b], [c]], False),
    "two that only together matter": lambda a, b, c: ([[a], [b]], True),
    "either of two": lambda a, b, c: ([[a, b]], False),
    "either of two, and a third": lambda a, b, c: ([[a, b], [c]], False),
}


@pytest.mark.parametrize("count", [20, 60, 200])
@pytest.mark.parametrize("kind", KINDS)
def test_it_tries_clearly_fewer_sets_than_the_library(count, kind):
    """Localisation included; for ten places of the culprits. Both find a set of the same size."""
    drawn = random.Random(count)
    ours, theirs = 0, 0
    for seed in range(10):
        clauses, together = KINDS[kind](*drawn.sample(range(count), 3))
        nodes, evaluate = problem(count, clauses, together, seed)
        remembered = Remembered(evaluate)
        ranked = localise(nodes, remembered)
        located = len(remembered.known)
        found = repair(nodes, remembered, ranked)
        kept, tried = library(nodes, evaluate)
        assert found.flips_after == 0
        assert len(found.kept) == len(clauses) <= len(kept)
        assert len(remembered.known) == located + found.evaluations
        ours += located + found.found_after
        theirs += tried
    assert ours < (1 if kind == list(KINDS)[-1] else 0.9) * theirs


@pytest.mark.parametrize("seed", range(60))
def test_on_small_graphs_it_finds_what_brute_force_finds(seed):
    drawn = random.Random(seed)
    count = drawn.randint(1, 8)
    clauses = [drawn.sample(range(count), drawn.randint(1, min(3, count)))
               for _ in range(drawn.randint(1, 4))]  # fmt: skip
    nodes, evaluate = problem(count, clauses, together=seed % 3 == 0, seed=seed)
    best = fewest(nodes, evaluate)
    found = search(nodes, evaluate, budget=400)
    assert tuple(found.kept) in best
    assert found.smallest
    assert not found.exhausted
    every = frozenset(nodes)
    assert found.alone == [name for name in found.kept if evaluate(every - {name}).flips]


@pytest.mark.parametrize("seed", range(60))
def test_without_any_order_it_is_still_brute_force_on_small_graphs(seed):
    """Each set flips or not at random: more float32 may be worse."""
    nodes = [f"n{i}" for i in range(6)]
    flips = {frozenset(s): int(random.Random(f"{seed}{s}").random() < 0.7)
             for size in range(7) for s in combinations(nodes, size)}  # fmt: skip
    flips[frozenset()], flips[frozenset(nodes)] = 1, 0

    def evaluate(keep):
        return Outcome(flips[keep], float(len(nodes) - len(keep)), np.zeros(2, np.float32))

    found = search(nodes, evaluate, budget=400)
    assert found.flips_after == flips[frozenset(found.kept)] == 0
    assert len(found.kept) == len(fewest(nodes, evaluate)[0])
    assert found.smallest


def test_a_problem_without_order_occurs_in_which_a_larger_set_flips_again():
    nodes = ["a", "b", "c"]
    good = {frozenset("b"), frozenset("abc")}

    def evaluate(keep):
        return Outcome(int(keep not in good), 1.0, np.zeros(1, np.float32))

    assert search(nodes, evaluate).kept == ["b"]


def test_equal_sets_are_told_apart_by_their_error():
    nodes = ["a", "b", "c"]
    error = {"a": 3.0, "b": 1.0, "c": 2.0}

    def evaluate(keep):
        left = min((error[name] for name in keep), default=9.0)
        return Outcome(int(not keep), left, np.zeros(1, np.float32))

    remembered = Remembered(evaluate)
    for name in nodes:
        remembered(frozenset(name))
    assert repair(nodes, remembered, []).kept == ["b"]


def test_nothing_to_repair():
    nodes, evaluate = problem(5, [])
    found = repair(nodes, evaluate, [])
    assert (found.kept, found.flips_before, found.flips_after) == ([], 0, 0)
    assert found.evaluations == 2
    assert found.smallest
    assert not found.alone


def test_what_flips_in_float32_too_cannot_be_repaired():
    nodes = ["a", "b"]

    def evaluate(keep):
        return Outcome(5 - len(keep), 1.0 - len(keep) / 4, np.zeros(1, np.float32))

    found = repair(nodes, evaluate, [])
    assert (found.kept, found.flips_before, found.flips_after) == (nodes, 5, 3)
    assert found.evaluations == 2
    assert not found.smallest
    assert (found.error_before, found.error_after) == (1.0, 0.5)


@pytest.mark.parametrize("budget", range(2, 12))
def test_a_budget_that_ends_leaves_the_best_so_far(budget):
    nodes, evaluate = problem(40, [[7], [33]])
    calls = []
    found = repair(nodes, lambda keep: calls.append(keep) or evaluate(keep), [], budget=budget)
    assert found.exhausted
    assert found.evaluations == len(calls) == budget
    assert found.flips_after == evaluate(frozenset(found.kept)).flips == 0
    assert {"n007", "n033"} <= set(found.kept)
    good = [keep for keep in calls if not evaluate(keep).flips]
    assert len(found.kept) == min(map(len, good))


def test_more_budget_proves_what_less_finds():
    nodes, evaluate = problem(40, [[7], [33]])
    short = repair(nodes, evaluate, [], budget=30)
    long = repair(nodes, evaluate, [], budget=80)
    assert short.kept == long.kept == ["n007", "n033"]
    assert (short.smallest, long.smallest) == (False, True)
    assert short.evaluations < 30
    assert 40 < long.evaluations < 80
    assert short.found_after == long.found_after < short.evaluations


def test_one_node_is_the_smallest_set_even_where_the_budget_ends_with_it():
    nodes, evaluate = problem(8, [[0]])
    found = repair(nodes, evaluate, [], budget=5)  # nothing, all, and the first 4, 2 and 1
    assert (found.kept, found.exhausted, found.smallest) == (["n000"], True, True)


def test_where_not_all_smaller_sets_fit_those_of_the_first_nodes_are_tried():
    """n000 repairs only by itself, which no larger set shows."""
    nodes, evaluate = problem(60, [[10, 30], [20]])
    nothing = evaluate(frozenset(nodes))
    found = repair(nodes, lambda keep: nothing if keep == {"n000"} else evaluate(keep), [],
                   budget=30)  # fmt: skip
    assert (found.kept, found.smallest) == (["n000"], True)
    found = repair(nodes, evaluate, [], budget=30)
    assert (found.kept, found.smallest, found.exhausted) == (["n010", "n020"], False, False)
    assert found.evaluations <= 30


def test_every_try_is_said_and_none_is_made_twice():
    nodes, evaluate = problem(9, [[2], [6]])
    calls, said = [], []
    found = repair(nodes, lambda keep: calls.append(keep) or evaluate(keep), [],
                   say=lambda *words: said.append(words))  # fmt: skip
    assert len(set(calls)) == len(calls) == found.evaluations == len(said)
    assert said[0] == (1, "0 of 9 nodes kept: 6 flips")
    assert said[1] == (2, "9 of 9 nodes kept: 0 flips")
    assert [done for done, _ in said] == list(range(1, len(said) + 1))


def test_wrong_questions_are_refused():
    nodes, evaluate = problem(3, [[0]])
    with pytest.raises(ValueError, match="a budget of 1"):
        repair(nodes, evaluate, [], budget=1)
    with pytest.raises(ValueError, match="same name"):
        localise(["a", "a"], evaluate)
    with pytest.raises(ValueError, match="'other'"):
        repair(nodes, evaluate, [Segment(["other"], 0.0, 0.0, 0.0, 0)])
    assert localise([], evaluate) == []


# ---- which segments matter ----------------------------------------------------------------------


def test_two_culprits_of_eight_counted_by_hand():
    """Logits of two samples: 10 + 4 where a is low, and 10 + 1, 10 + 2 where b is."""
    nodes = list("stabcdef")

    def evaluate(keep):
        low = np.array([4.0, 4.0]) * ("a" not in keep) + np.array([1.0, 2.0]) * ("b" not in keep)
        return Outcome(int((low > 3).sum()), float(low.sum()), (10 + low).astype(np.float32))

    remembered = Remembered(evaluate)
    ranked = localise(nodes, remembered)
    assert ranked[0] == Segment(["a"], 4.0, 4.0, 8.0, 0)
    assert ranked[1] == Segment(["b"], 1.5, 2.0, 3.0, 2)
    assert all(one.error_removed == 0 and one.change_max == 0 for one in ranked[2:])
    # nothing, all, stab (it leaves nothing for cdef), st (nothing), a, and b for what a leaves
    assert len(remembered.known) == 6


def test_what_only_together_matters_is_one_segment():
    nodes, evaluate = problem(16, [[3], [4]], together=True)
    first = localise(nodes, evaluate)[0]
    assert first.nodes == nodes[:8]  # 3 and 4 are split by its halves
    assert first.flips_left == 0


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_a_logit_that_is_not_finite_ranks_first_and_nothing_is_nan(broken):
    """c alone repairs the infinity; f has the larger flips, which stay as long as it is there."""
    nodes = list("abcdefgh")

    def evaluate(keep):
        logit = broken if "c" not in keep else 1.0 + (0 if "f" in keep else 0.5)
        error = np.abs(logit - 1)
        logits = np.array([logit, 2.0], np.float32)
        return Outcome(int(not np.isfinite(logit)) + ("f" not in keep), float(error), logits)

    ranked = localise(nodes, evaluate)
    assert ranked[0].nodes == ["c"]
    assert (ranked[0].error_removed, ranked[0].change_mean) == (inf, inf)
    assert all(not np.isnan(value) for one in ranked for value in one[1:])
    assert all(one.error_removed == one.change_max == 0 for one in ranked[1:])
    found = repair(nodes, evaluate, ranked)
    assert found.kept == ["c", "f"]
    assert (found.error_before, found.error_after) == (inf, 0.0)


def test_a_segment_that_makes_infinity_ranks_last():
    """a and b in float32 give an infinity, as long as c, which repairs, is not."""
    nodes = list("abcd")

    def evaluate(keep):
        logit = 2.0 if "c" in keep else np.inf if keep else 3.0
        return Outcome(int("c" not in keep), float(abs(logit - 2)), np.float32([logit]))

    ranked = localise(nodes, evaluate)
    assert ranked[0] == Segment(["c"], 1.0, 1.0, 1.0, 0)
    assert ranked[-1] == Segment(["a", "b"], inf, inf, -inf, 1)


@pytest.mark.parametrize("budget", range(2, 20))
def test_segments_do_not_overlap_and_keep_the_budget(budget):
    nodes, evaluate = problem(50, [[11], [12], [40]])
    calls = []
    ranked = localise(nodes, lambda keep: calls.append(keep) or evaluate(keep), budget=budget)
    listed = [name for one in ranked for name in one.nodes]
    assert len(calls) <= budget
    assert len(set(listed)) == len(listed) > 0
    for one in ranked:
        outcome = evaluate(frozenset(one.nodes))
        assert one.flips_left == outcome.flips
        assert one.error_removed == evaluate(frozenset()).error - outcome.error


# ---- real conversions ---------------------------------------------------------------------------


def run(model, inputs):
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"x": inputs})[0][:, 0]


def trial(made, way=rounded):
    """(candidates, evaluate): the threshold is in the widest gap of the middle fifth."""
    reference = run(made.model, made.inputs)
    middle = np.sort(reference)[int(0.4 * len(reference)) : int(0.6 * len(reference))]
    i = int(np.argmax(np.diff(middle)))
    threshold = (float(middle[i]) + float(middle[i + 1])) / 2
    prepared = prepare(made.model)

    def evaluate(keep):
        logits = run(way(convert(prepared, keep)), made.inputs)
        same = is_positive(logits, threshold) == is_positive(reference, threshold)
        error = float(np.abs(logits.astype(np.float64) - reference).sum())
        return Outcome(int((~same | ~np.isfinite(logits)).sum()), error, logits)

    return candidates(prepared), Remembered(evaluate)


SMALL = [planted.overflow, planted.last_layer, planted.together, planted.shared_weight,
         planted.many_operators]  # fmt: skip


@pytest.mark.parametrize("build", SMALL, ids=lambda build: build.__name__)
def test_the_repair_of_a_real_model_is_that_of_brute_force(build):
    made = build()
    nodes, evaluate = trial(made)
    assert made.kept <= set(nodes)
    found = search(nodes, evaluate)
    assert fewest(nodes, evaluate) == [tuple(found.kept)]  # no other set of this size does it
    assert set(found.kept) == made.kept
    assert found.flips_before > 0
    assert found.flips_after == 0
    assert found.smallest
    assert found.alone == found.kept


@pytest.mark.parametrize("build", [planted.overflow, planted.together])
def test_overflow_is_seen_with_true_rounding_and_hidden_by_the_cpu(build):
    made = build()
    _, true = trial(made)
    _, hidden = trial(made, way=lambda model: model)
    none = frozenset()
    assert true(none).error == inf
    assert true(none).flips > 100
    assert np.isfinite(hidden(none).logits).all()
    assert hidden(none).flips == 0


def test_other_seeds_have_the_same_culprits():
    for build in (planted.overflow, planted.together):
        made = build(seed=3)
        assert set(search(*trial(made)).kept) == made.kept


@pytest.mark.parametrize("culprits", [(0.5,), (0.3, 0.8)])
def test_the_culprits_of_a_deep_graph(culprits):
    """Few samples, so that the widest gap is one that ordinary rounding does not cross."""
    made = planted.deep(nodes=70, culprits=culprits, n=80)
    nodes, evaluate = trial(made)
    assert len(nodes) > 60
    ranked = localise(nodes, evaluate)
    assert {name for one in ranked[: len(culprits)] for name in one.nodes} == made.kept
    located = len(evaluate.known)
    found = repair(nodes, evaluate, ranked, budget=20)
    assert set(found.kept) == made.kept
    assert found.flips_before > 0
    assert found.flips_after == 0
    assert located + found.found_after < library(nodes, evaluate)[1]


def test_a_deep_graph_has_the_size_asked_for():
    made = planted.deep(n=1)
    assert 190 <= len(made.model.graph.node) <= 200
    assert made.inputs.shape == (1, 3, 96, 96)
