//! What a client answers, and what it refuses.

use super::*;
use crate::rules::weighted_average;
use crate::run::party::check_messages;

#[test]
fn parties_and_a_plain_average_give_the_embedded_run_bit_for_bit() {
    let dir = tempfile::tempdir().unwrap();
    let c = config(dir.path(), "");
    let want = embedded(&c);
    let mut all = parties(&c);
    let start = all[0].answer("query", &Content::default()).unwrap();
    let like = want.tuner.initial(c.method.rank, 0).unwrap();
    let mut adapter = to_tensors(start.arrays("arrays").unwrap(), &like).unwrap();
    for round in 0..3 {
        let message = train(&adapter, round, Vec::new());
        let locals: Vec<(NamedTensors, f64)> = all
            .iter_mut()
            .map(|p| {
                let a = p.answer("train", &message).unwrap();
                let local = to_tensors(a.arrays("arrays").unwrap(), &like).unwrap();
                (local, a.number("num-examples").unwrap())
            })
            .collect();
        let borrowed: Vec<(&NamedTensors, f64)> = locals.iter().map(|(l, w)| (l, *w)).collect();
        adapter = weighted_average(&borrowed).unwrap();
    }
    assert_eq!(adapter, want.state.global.adapter);
    let e = all[2]
        .answer("evaluate", &train(&adapter, 3, Vec::new()))
        .unwrap();
    assert!(e.number("loss").unwrap() > 0.0 && e.number("client") == Some(2.0));
}

#[test]
fn a_round_that_is_asked_for_again_is_answered_with_the_same_bytes_also_by_a_new_process() {
    let dir = tempfile::tempdir().unwrap();
    let c = config(dir.path(), "[[stage]]\nkind = \"top-k\"\nshare = 0.1\n");
    let mut p = parties(&c).remove(1);
    let agreement = p.answer("query", &Content::default()).unwrap();
    let mark = (
        "tacit".to_owned(),
        agreement.value("tacit").unwrap().clone(),
    );
    let tuner = embedded(&c).tuner;
    let adapter = tuner.initial(c.method.rank, 0).unwrap();
    let ask = |p: &mut Party, round: usize| {
        let a = p.answer("train", &train(&adapter, round, vec![mark.clone()]));
        a.unwrap().bytes("update", UPDATE).unwrap().to_vec()
    };
    let first = ask(&mut p, 0);
    assert_eq!(ask(&mut p, 0), first);
    let second = ask(&mut p, 1);
    let mut again = parties(&c).remove(1);
    assert_eq!(ask(&mut again, 1), second);
    assert_eq!(ask(&mut p, 1), second);
    assert_ne!(ask(&mut p, 2), second);
    // Without rounds the turn counts: other examples from one state, and the same bytes for the same turn.
    let turn = |p: &mut Party, turn: i64| {
        let more = vec![mark.clone(), ("turn".to_owned(), Scalar::Sint(turn))];
        let a = p.answer("train", &train(&adapter, 2, more));
        a.unwrap().bytes("update", UPDATE).unwrap().to_vec()
    };
    let third = turn(&mut p, 3);
    assert_eq!(turn(&mut p, 3), third);
    assert_ne!(turn(&mut p, 4), third);
    // Another configuration's memory is not taken for one's own.
    let mut other = c.clone();
    other.seed = 9;
    let texts = texts(&other, None).unwrap();
    let base = random_base(&other, &texts).unwrap();
    let e = Party::new(other, base, &texts[1], 1, None).unwrap_err();
    assert!(e.to_string().contains("another configuration"), "{e}");
}

#[test]
fn coordinators_with_other_settings_and_messages_that_are_none_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let c = config(dir.path(), "combine = \"residual\"\n");
    let mut p = parties(&c).remove(0);
    let like = embedded(&c).tuner.initial(c.method.rank, 0).unwrap();
    let error = |p: &mut Party, kind: &str, content: &Content| {
        p.answer(kind, content).unwrap_err().to_string()
    };
    let stranger = ("tacit".to_owned(), Scalar::Text("x".into()));
    let e = error(&mut p, "train", &train(&like, 0, vec![stranger]));
    assert!(e.contains("one configuration file"), "{e}");
    // Merged residuals are not what a stock strategy can do.
    let e = error(&mut p, "train", &train(&like, 0, Vec::new()));
    assert!(e.contains("tacit federate coordinate"), "{e}");
    assert!(error(&mut p, "reconnect", &Content::default()).contains("reconnect"));
    assert!(error(&mut p, "train", &Content::default()).contains("server-round"));
    assert!(error(&mut p, "train.sum", &Content::default()).contains("no message"));
    assert!(error(&mut p, "evaluate", &Content::default()).contains("arrays"));
    for (what, reason) in [
        ("history = true\n", "text is elsewhere"),
        (
            "[[stage]]\nkind = \"clip\"\nnorm = 1.0\n[[stage]]\nkind = \"encrypted-sum\"\n",
            "agree on one",
        ),
        (
            "[[stage]]\nkind = \"clip\"\nnorm = 1.0\n[[stage]]\nkind = \"verified-sum\"\n",
            "one coordinator",
        ),
    ] {
        let other = config(dir.path(), what);
        let texts = texts(&other, None).unwrap();
        let base = random_base(&other, &texts).unwrap();
        let e = Party::new(other, base, &texts[0], 0, None).unwrap_err();
        assert!(e.to_string().contains(reason), "{e}");
    }
}

#[test]
fn a_model_too_large_for_messages_is_refused_before_anything_of_it_is_made() {
    let dir = tempfile::tempdir().unwrap();
    for extra in [
        "",
        "[train]\noptimiser = \"sgd\"\nscaffold = true\n",
        "[method]\nkind = \"full\"\n",
        "[method]\nkind = \"ffa-lora\"\nforward = \"float\"\nscales = true\n",
    ] {
        let c = config(dir.path(), extra);
        let tuner = fixture::start(&c, false).tuner;
        let adapter = tuner.initial(c.method.rank, 0).unwrap();
        assert_eq!(
            tuner.count(c.method.rank),
            adapter.count() as u64,
            "{extra}"
        );
        let bytes = 4 * adapter.count() as u64 * (1 + u64::from(c.train.scaffold));
        assert!(check_messages(&c, &tuner, bytes).is_ok());
        let e = check_messages(&c, &tuner, bytes - 1).unwrap_err();
        assert!(matches!(e, FederatedError::TooLarge { .. }));
        assert!(e.to_string().contains("method.rank"), "{e}");
    }
    // Sizes that no machine holds are only multiplied.
    let c = config(dir.path(), "");
    let tuner = fixture::start(&c, false).tuner;
    let mut wide = c.clone();
    wide.method.rank = 1 << 40;
    assert!(check_messages(&wide, &tuner, MESSAGE).is_err());
}
