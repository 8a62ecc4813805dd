//! Clients that were there and fall silent, without `clock.deadline`.

use super::nodes::{Manner, over};
use super::*;

const SHORT: Duration = Duration::from_millis(300);

#[test]
fn a_client_that_comes_back_in_time_takes_part_in_every_round_bit_for_bit() {
    use Manner::{Deaf, Gone, Honest, Mute};
    for (extra, manners) in [
        ("", [Honest, Mute(1), Honest, Honest]),
        ("", [Honest, Mute(5), Gone(4), Deaf(3)]),
        (SECURE, [Mute(3), Honest, Deaf(2), Gone(7)]),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut c = config(dir.path(), extra);
        let keys = keys_of(&mut c);
        let (run, told, _) = over(&c, Some(&keys), &manners, LONG);
        let run = run.unwrap();
        assert_eq!(hashes(&run), hashes(&embedded(&c)), "{extra}");
        assert!(run.state.records.iter().all(|r| r.late.is_empty()));
        // Whom the coordinator waits for, it names.
        for (k, manner) in manners.iter().enumerate() {
            let named = told.silent.iter().any(|s| s.contains(&k));
            assert_eq!(named, *manner != Honest, "{k}: {:?}", told.silent);
            assert_eq!(told.waited.contains(&k), named);
        }
    }
}

#[test]
fn a_round_goes_on_without_clients_that_stay_silent_and_the_next_ones_do_not_wait_again() {
    use Manner::{Deaf, Gone, Honest, Mute};
    for extra in ["", SECURE] {
        for bad in [Mute(usize::MAX), Deaf(usize::MAX), Gone(usize::MAX)] {
            let dir = tempfile::tempdir().unwrap();
            let mut c = config(dir.path(), extra);
            let keys = keys_of(&mut c);
            let manners = [Honest, Honest, bad, Honest];
            let (run, told, _) = over(&c, Some(&keys), &manners, SHORT);
            let run = run.unwrap();
            let left_out: Vec<&[usize]> = run
                .state
                .records
                .iter()
                .map(|r| r.late.as_slice())
                .collect();
            assert_eq!(left_out, [&[][..], &[2], &[2]], "{extra} {bad:?}");
            assert_eq!(told.silent.first(), Some(&vec![2]));
            let seconds = run.state.records[1].seconds;
            assert!(seconds >= SHORT.as_secs_f64(), "{seconds}");
            assert!(told.failed.is_empty(), "{:?}", told.failed);
            if extra.is_empty() {
                let all = among(&c, &[&[0, 1, 2, 3], &[0, 1, 3], &[0, 1, 3]]);
                assert_eq!(hashes(&run), hashes(&all));
            }
        }
    }
}

#[test]
fn a_client_that_was_left_out_takes_part_again_when_it_answers() {
    use Manner::{Gone, Honest};
    let dir = tempfile::tempdir().unwrap();
    let c = config(dir.path(), "");
    // The coordinator looks for its nodes once for each of a round's four steps.
    let manners = [Honest, Honest, Gone(4), Honest];
    let run = over(&c, None, &manners, Duration::ZERO).0.unwrap();
    let all = among(&c, &[&[0, 1, 2, 3], &[0, 1, 3], &[0, 1, 2, 3]]);
    assert_eq!(hashes(&run), hashes(&all));
    assert_eq!(run.state.records[1].late, [2]);
}

#[test]
fn where_too_few_answer_the_run_ends_with_the_names_of_the_silent_and_the_remedy() {
    use Manner::{Deaf, Gone, Honest, Mute};
    let noise = "[rule]\nkind = \"fedadam\"\n[[stage]]\nkind = \"noise\"\nepsilon = 20.0\nclip = 0.5\nexamples = 12\n[[stage]]\nkind = \"secure-sum\"\n";
    let never = usize::MAX;
    for (extra, manners, names) in [
        ("", [Mute(never); 4], "[0, 1, 2, 3]"),
        ("", [Deaf(never); 4], "[0, 1, 2, 3]"),
        (SECURE, [Gone(never), Honest, Honest, Mute(never)], "[0, 3]"),
        // Each one's part of the noise is needed.
        (noise, [Honest, Gone(never), Honest, Honest], "[1]"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut c = config(dir.path(), extra);
        let keys = keys_of(&mut c);
        let (run, ..) = over(&c, Some(&keys), &manners, SHORT);
        let e = run.unwrap_err().to_string();
        let words = [
            "round 2",
            names,
            "have not answered for",
            "the same command",
            "clock.deadline",
        ];
        for word in words {
            assert!(e.contains(word), "no {word} in: {e}");
        }
    }
}

#[test]
fn a_run_without_rounds_ends_too_when_nobody_sends_anything_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let c = config(dir.path(), "[clock]\nbuffer = 4\n");
    let manners = [Manner::Mute(usize::MAX); 4];
    let e = over(&c, None, &manners, SHORT).0.unwrap_err().to_string();
    for word in [
        "have not answered for",
        "the same command",
        "clock.deadline",
    ] {
        assert!(e.contains(word), "no {word} in: {e}");
    }
}
