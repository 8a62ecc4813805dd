//! Rounds of a coordinator with honest nodes, and with some that talk nonsense.

use super::nodes::{Manner, over};
use super::*;

#[test]
fn rounds_of_honest_nodes_are_the_embedded_ones_and_one_that_was_away_is_waited_for() {
    use Manner::{Away, Honest};
    for (extra, manners) in [
        ("", [Honest; 4]),
        ("", [Honest, Away, Honest, Honest]),
        (SECURE, [Honest; 4]),
        (SECURE, [Honest, Honest, Honest, Away]),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut c = config(dir.path(), extra);
        let keys = keys_of(&mut c);
        let want = hashes(&embedded(&c));
        let (run, told, nodes) = over(&c, Some(&keys), &manners, LONG);
        assert_eq!(hashes(&run.unwrap()), want, "{extra}");
        assert_eq!(
            told.failed.len(),
            manners.iter().filter(|m| **m == Away).count()
        );
        // The room of an answer is a few times what the largest takes, not gibibytes.
        assert!(nodes.room.get() < 32 * nodes.largest.get() + (2 << 20));
    }
}

#[test]
fn a_round_ends_without_waiting_for_clients_that_only_talk_nonsense_and_names_them() {
    use Manner::{Garbage, Heavy, Honest, Huge, Late};
    for (bad, extra) in [
        (Garbage, ""),
        (Huge, ""),
        (Heavy, ""),
        (Garbage, SECURE),
        (Late, SECURE),
        (
            Garbage,
            "[[stage]]\nkind = \"robust\"\nrule = { name = \"median\", bad = 1 }\n",
        ),
        (Garbage, "[[stage]]\nkind = \"signed\"\n"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut c = config(dir.path(), extra);
        let keys = keys_of(&mut c);
        let (run, told, _) = over(&c, Some(&keys), &[Honest, Honest, bad, Honest], LONG);
        let run = run.unwrap();
        assert_eq!(run.state.records.len(), 3);
        for r in &run.state.records {
            assert_eq!(
                (r.clients.as_slice(), r.late.len()),
                ([0, 1, 3].as_slice(), 0),
                "{extra}"
            );
            assert_eq!(r.failed, [2], "{extra}");
            assert!(r.train_loss.is_finite() && r.validation_perplexity > 1.0);
        }
        assert!(
            told.failed.len() >= 3 && told.failed.iter().all(|t| t.0 == Some(2)),
            "{:?}",
            told.failed
        );
        // A checkpoint with such a round can be read again.
        let base = random_base(&c, &texts(&c, None).unwrap()).unwrap();
        let again = Run::coordinator(c.clone(), base, 4, true).unwrap();
        assert_eq!(hashes(&again), hashes(&run));
        assert!(again.state.records.iter().all(|r| r.failed == [2]));
    }
    // A plain average without the client is the embedded one of the others: nothing of it is left in the sum.
    let dir = tempfile::tempdir().unwrap();
    let c = config(dir.path(), "");
    let (run, ..) = over(&c, None, &[Honest, Honest, Huge, Honest], LONG);
    let alone = among(&c, &[&[0, 1, 3][..]; 3]);
    assert_eq!(hashes(&run.unwrap()), hashes(&alone));
}

#[test]
fn where_too_few_are_left_the_run_ends_and_says_whose_fault_it_is() {
    use Manner::{Garbage, Honest};
    let noise = "[rule]\nkind = \"fedadam\"\n[[stage]]\nkind = \"noise\"\nepsilon = 20.0\nclip = 0.5\nexamples = 12\n[[stage]]\nkind = \"secure-sum\"\n";
    for (extra, manners, names) in [
        ("", [Garbage; 4], "[0, 1, 2, 3]"),
        (SECURE, [Garbage, Honest, Honest, Garbage], "[0, 3]"),
        // Each one's part of the noise is needed.
        (noise, [Honest, Garbage, Honest, Honest], "[1]"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut c = config(dir.path(), extra);
        let keys = keys_of(&mut c);
        let (run, told, _) = over(&c, Some(&keys), &manners, LONG);
        let e = run.unwrap_err().to_string();
        assert!(
            e.contains(&format!("what {names} sent")) && e.contains("the same command"),
            "{e}"
        );
        assert!(!told.failed.is_empty());
    }
}
