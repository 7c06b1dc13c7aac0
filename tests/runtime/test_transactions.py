"""A stream is before a token or after it: failures, copies and foreign snapshots change nothing."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from rillet.export import ExportOptions
from rillet.export.bundle.writer import write_bundle
from rillet.runtime import BundleError, Model, Session, UsageError, load
from rillet.train import Checkpoint

MODELS = Path(__file__).parents[2] / "models"


@pytest.fixture(scope="module")
def shakespeare() -> Model:
    return load(MODELS / "shakespeare-nano")


@pytest.fixture(scope="module")
def shakespeare_int8() -> Model:
    return load(MODELS / "shakespeare-nano-int8")


@pytest.fixture(scope="module")
def last_logits(small: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A model whose prefill graph predicts after the last token only."""
    folder = tmp_path_factory.mktemp("last") / "bundle"
    write_bundle(small, folder, options=ExportOptions(last_logits=True, parity_steps=60))
    return load(folder)


def fed(model: Model, prompt: str = "ROMEO:\n") -> Session:
    session = model.session()
    session.feed(prompt)
    return session


def test_a_failing_neighbour_changes_no_text(shakespeare: Model) -> None:
    """One session's constraints run into a dead end; the others' samplers do not move."""
    choices = ["good morrow", "my lord"]
    alone = fed(shakespeare).generate(choices=choices, seed=1)
    good, plain, failing = fed(shakespeare), fed(shakespeare), fed(shakespeare)
    batch = shakespeare.batch()
    batch.join(good, choices=choices, seed=1)
    batch.join(plain, max_new_tokens=30, seed=2)
    only_a = dict.fromkeys(range(shakespeare.vocab_size), -math.inf)
    del only_a[shakespeare.tokenizer.encode("a")[0]]
    batch.join(failing, logit_bias=only_a, bad_words=["aa"], seed=1)
    texts = {good: "", plain: ""}
    failures = 0
    while len(batch):
        try:
            written = batch.write()
        except UsageError as error:
            failures += 1
            assert "session 2 of the batch cannot write" in str(error)  # noqa: PT017
            assert batch.failed is failing
            batch.leave(batch.failed)
            continue
        for session in texts:
            texts[session] += written[session].text if session in written else ""
    assert failures == 1
    assert texts[good] == alone
    assert texts[plain] == fed(shakespeare).generate(max_new_tokens=30, seed=2)


def test_predictions_may_be_kept_and_changed(shakespeare: Model) -> None:
    """Neither the next step nor its reader changes what a step has returned."""
    session = fed(shakespeare)
    first = session.step(5)
    kept = first.copy()
    session.step(6)
    np.testing.assert_array_equal(first, kept)
    twin = fed(shakespeare)
    twin.step(5)
    prediction = twin.step(6)
    expected = prediction.copy()
    prediction[:] = -1e9
    np.testing.assert_array_equal(twin.logits, expected)

    batch = shakespeare.batch()
    batch.join(twin)
    batch.step({twin: 7})[twin][:] = -1e9
    assert twin.logits is not None
    assert twin.logits.min() > -1e9


def test_score_after_a_step_uses_the_prediction_of_that_step(last_logits: Model) -> None:
    """The first log-probability is that of the prediction before, not of a buffer in use."""
    text = "names are names"
    session = fed(last_logits, "The ")
    session.step(5)
    assert session.logits is not None
    first = session.logits[last_logits.tokenizer.encode(text)[0]]
    score = session.score(text, per_token=True)
    assert score.token_logprobs is not None
    assert score.token_logprobs[0] == first


def test_a_snapshot_of_another_model_is_refused(
    shakespeare: Model, shakespeare_int8: Model, small_model: Model
) -> None:
    for other in (shakespeare_int8, small_model):
        session = fed(shakespeare)
        before = session.state
        mark = fed(other, "The ").checkpoint()
        with pytest.raises(UsageError, match="is of another model"):
            session.rollback(mark)
        for name, value in session.state.items():
            np.testing.assert_array_equal(value, before[name])


def test_a_snapshot_of_the_same_bundle_loaded_twice_is_taken(shakespeare: Model) -> None:
    again = load(MODELS / "shakespeare-nano")
    session = fed(shakespeare)
    session.rollback(fed(again, "JULIET:\n").checkpoint())
    expected = fed(shakespeare, "JULIET:\n").generate(max_new_tokens=20, seed=3)
    assert session.generate(max_new_tokens=20, seed=3) == expected


def test_a_bundle_by_a_relative_path_survives_a_change_of_folder(
    shakespeare: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(MODELS / "shakespeare-nano", tmp_path / "bundle")
    monkeypatch.chdir(tmp_path)
    model = load("bundle")
    monkeypatch.chdir("/")
    assert fed(model).generate(max_new_tokens=9, seed=1) == fed(shakespeare).generate(
        max_new_tokens=9, seed=1
    )


def test_a_bundle_replaced_after_load_is_not_mixed(tmp_path: Path) -> None:
    """A graph that loads late is the one that was hashed, or it is refused."""
    folder = tmp_path / "bundle"
    shutil.copytree(MODELS / "shakespeare-nano", folder)
    model = load(folder, "cpu", self_test=False)
    shutil.rmtree(folder)
    shutil.copytree(MODELS / "shakespeare-nano-int8", folder)
    with pytest.raises(
        BundleError, match=r"prefill\.onnx was replaced since the bundle was loaded"
    ):
        fed(model)


def test_a_live_session_survives_the_closing_of_its_model(tmp_path: Path) -> None:
    model = load(MODELS / "shakespeare-nano")
    session = fed(model)
    whole = session.fork().generate(max_new_tokens=30, seed=1)
    begun = session.generate(max_new_tokens=10, seed=1)
    model.close()
    assert begun + "".join(session.resume(20)) == whole


def test_a_batch_reports_each_generation(shakespeare: Model) -> None:
    reports = []
    shakespeare.on_finish = reports.append
    try:
        shakespeare.batch().generate(["ROMEO:\n", "A"], max_new_tokens=7, seed=1)
    finally:
        shakespeare.on_finish = None
    assert [(one.tokens, one.finish_reason) for one in reports] == [(7, "length")] * 2
    assert all(one.first_token_seconds for one in reports)


def test_a_batch_says_why_each_session_finished(shakespeare: Model) -> None:
    session, batch = fed(shakespeare), shakespeare.batch()
    batch.join(session, max_new_tokens=2, seed=1)
    assert session.finish_reason is None
    batch.write()
    batch.write()
    assert session not in batch
    assert session.finish_reason == "length"


def test_generating_in_a_batch_leaves_earlier_sessions_alone(shakespeare: Model) -> None:
    session, batch = fed(shakespeare), shakespeare.batch()
    batch.join(session, max_new_tokens=20, seed=1)
    expected = shakespeare.batch().generate(["A", "B"], max_new_tokens=9, seed=4)
    assert batch.generate(["A", "B"], max_new_tokens=9, seed=4) == expected
    assert list(batch) == [session]
    text = ""
    while session in batch:
        text += batch.write()[session].text
    assert text == fed(shakespeare).generate(max_new_tokens=20, seed=1)


def test_a_batch_that_fails_midway_keeps_none_of_its_own_sessions(shakespeare: Model) -> None:
    batch = shakespeare.batch()
    with pytest.raises(UsageError):
        batch.generate(["A", 5], max_new_tokens=3)  # type: ignore[list-item]
    assert len(batch) == 0
    with pytest.raises(UsageError):
        batch.generate(["A"], regex="b9|[ac]9", max_new_tokens=3, seed=1)
    assert len(batch) == 0


def test_one_prompt_is_not_a_list_of_letters(shakespeare: Model) -> None:
    with pytest.raises(UsageError, match="prompts is one text"):
        shakespeare.batch().generate("abc", max_new_tokens=3)


def test_nothing_to_generate_in_the_graph_reads_nothing(small_model: Model) -> None:
    session = small_model.session()
    assert session.generate(in_graph=True, max_new_tokens=0) == ""
    assert session.position == 0
    assert session.logits is None
    assert session.generate(max_new_tokens=0) == ""
    assert session.position == 0


def test_a_bad_word_begun_long_ago_is_seen(shakespeare: Model) -> None:
    """However long the word: its beginning may lie more than 64 tokens back."""
    word = "the quality of mercy is not strained, it droppeth as the gentle rain from heaven upon"
    session = fed(shakespeare, word[:-1])
    text = session.generate(
        max_new_tokens=1, temperature=0, bad_words=[word], logit_bias={word[-1]: 100.0}
    )
    assert text != word[-1]


def test_half_a_character_in_stop_is_refused(shakespeare: Model) -> None:
    with pytest.raises(UsageError, match="half a surrogate pair"):
        fed(shakespeare).generate(stop=["\ud800"], max_new_tokens=3)


@pytest.mark.parametrize("name", ["frequency_penalty", "presence_penalty", "repetition_penalty"])
def test_a_penalty_that_overflows_is_refused(shakespeare: Model, name: str) -> None:
    with pytest.raises(UsageError, match=name):
        fed(shakespeare).generate(max_new_tokens=50, seed=1, **{name: 1e308})


@pytest.mark.filterwarnings("error")
def test_a_warning_that_is_an_error_leaves_the_stream_where_it_was(shakespeare: Model) -> None:
    session = fed(shakespeare)
    position, state = session.position, session.state
    with pytest.raises(UserWarning):
        session.feed("ROMEO: \N{SNOWMAN}")
    assert session.position == position
    for name, value in session.state.items():
        np.testing.assert_array_equal(value, state[name])


def test_rows_of_dynamic_int8_do_not_affect_each_other(small_bundle: Path, tmp_path: Path) -> None:
    """Its graphs take one scale for all rows of a call, so each row is a call of its own."""
    from rillet.export import quantize

    quantize(small_bundle, tmp_path / "int8", "int8", method="dynamic", max_loss_rise=1.0)
    model = load(tmp_path / "int8")
    assert model.bundle.manifest["quantization"]["method"] == "dynamic"
    prompts = ["The ", "In a statement", "x", "import sys", "names are names"]
    texts = model.batch().generate(prompts, max_new_tokens=25, seed=1)
    for index, prompt in enumerate(prompts):
        assert texts[index] == model.generate(prompt, max_new_tokens=25, seed=1 + index)
    tokens = np.asarray([[5, 6, 7], [1, 2, 3]])
    together = model.engine.prefill(tokens, model.engine.zero_state(2))
    alone = [model.engine.prefill(row[None], model.engine.zero_state()) for row in tokens]
    np.testing.assert_array_equal(together, np.concatenate(alone))


def test_a_join_that_fails_leaves_the_batch_as_it_was(
    shakespeare: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Growing the batch takes memory, which the system may refuse."""
    from rillet.runtime.engines.ort import host_state

    first, second, third = fed(shakespeare), fed(shakespeare, "A"), fed(shakespeare, "B")
    batch = shakespeare.batch()
    batch.join(first, max_new_tokens=20, seed=1)
    text = batch.write()[first].text
    with monkeypatch.context() as refusing:
        refusing.setattr(host_state.np, "ones", lambda *_: (_ for _ in ()).throw(MemoryError))
        with pytest.raises(MemoryError):
            batch.join(second, max_new_tokens=20, seed=2)
    assert list(batch) == [first]
    second.feed("B")  # it is its own again
    batch.join(third, max_new_tokens=20, seed=3)
    texts = {first: text, third: ""}
    while len(batch):
        for session, token in batch.write().items():
            texts[session] += token.text
    assert texts[first] == fed(shakespeare).generate(max_new_tokens=20, seed=1)
    assert texts[third] == fed(shakespeare, "B").generate(max_new_tokens=20, seed=3)


def test_a_failing_callback_loses_no_text_of_a_batch(shakespeare: Model) -> None:
    first, second = fed(shakespeare), fed(shakespeare, "A")
    batch = shakespeare.batch()
    batch.join(first, max_new_tokens=1, seed=1)
    batch.join(second, max_new_tokens=20, seed=2)

    def fail(_: object) -> None:
        raise RuntimeError("metrics are down")

    shakespeare.on_finish = fail
    try:
        with pytest.raises(RuntimeError):
            batch.write()
    finally:
        shakespeare.on_finish = None
    with pytest.raises(UsageError, match="call write"):
        batch.step({second: 5})
    batch.leave(second)
    assert "".join(second.resume()) == fed(shakespeare, "A").generate(max_new_tokens=20, seed=2)
    written = batch.write()
    assert written[first].text == fed(shakespeare).generate(max_new_tokens=1, seed=1)
    assert batch.write() == {}


def test_an_undone_read_of_any_length_leaves_the_history(shakespeare: Model) -> None:
    from rillet.runtime.streams.history import TokenHistory

    for before, length in [(3, 2), (300, 300), (700, 600), (256, 1_000)]:
        history = TokenHistory(100)
        for token in range(before):
            history.append(token % 50)
        recent, seen = history.recent, history.seen.copy()
        undo = history.undo_point()
        history.extend(np.arange(length) % 100)
        assert len(history.recent) == min(256, before + length)
        undo()
        assert history.recent == recent
        assert history.position == before
        np.testing.assert_array_equal(history.seen, seen)


def test_resuming_with_other_options_keeps_held_back_text(shakespeare: Model) -> None:
    whole = fed(shakespeare).generate(max_new_tokens=30, seed=5)
    held = whole[10:14]
    session = fed(shakespeare)
    tokens = session.tokens(max_new_tokens=30, seed=5, stop=[held + "~"])
    begun = "".join(next(tokens).text for _ in range(14))
    assert begun == whole[:10]  # the rest may begin the stop string
    # A stop string of the new options may lie in what was held back.
    stopping = session.fork()
    assert begun + "".join(stopping.resume(16, stop=[held[1:3]])) == whole[:11]
    assert (stopping.finish_reason, stopping.stop_string) == ("stop", held[1:3])
    assert begun + "".join(session.resume(16, top_k=0)) == whole


def test_a_stop_string_is_part_of_a_snapshot(shakespeare: Model) -> None:
    whole = fed(shakespeare).generate(max_new_tokens=30, seed=5)
    session = fed(shakespeare)
    session.generate(max_new_tokens=30, seed=5, stop=[whole[10:13]])
    assert session.stop_string == whole[10:13]
    assert session.fork().stop_string == whole[10:13]


def test_a_resumed_limit_may_be_a_numpy_number(shakespeare: Model, tmp_path: Path) -> None:
    session = fed(shakespeare)
    text = session.generate(max_new_tokens=4, seed=5) + "".join(session.resume(np.int64(4)))
    assert text == fed(shakespeare).generate(max_new_tokens=8, seed=5)
    session.save(tmp_path / "state")
    restored = shakespeare.restore(tmp_path / "state")
    assert "".join(restored.resume(4)) == "".join(session.resume(4))


def test_tokens_that_are_no_list_are_refused(shakespeare: Model) -> None:
    session = fed(shakespeare)
    with pytest.raises(UsageError, match="flat list"):
        session.feed_tokens(np.asarray(5))  # type: ignore[arg-type]
    position = session.position
    session.feed_tokens([])
    assert session.position == position


def test_an_exception_inside_a_lent_session_is_not_hidden(shakespeare: Model) -> None:
    batch = shakespeare.batch()

    def fail_inside() -> None:
        with fed(shakespeare) as session:
            batch.join(session)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_inside()
    assert len(batch) == 1
