//! Runs with deadlines and without rounds.

use super::fixture::{config, finish, start};
use super::*;

fn difference(a: &Run, b: &Run) -> f64 {
    let (a, b) = (&a.state().global.adapter, &b.state().global.adapter);
    a.difference(b).unwrap().norm() / b.norm()
}

#[test]
fn late_clients_are_left_out_and_told_and_the_rest_is_averaged_as_if_they_had_not_been_drawn() {
    let dir = tempfile::tempdir().unwrap();
    let mut c = config(dir.path(), "[clock]\nspread = 4.0\n");
    c.rounds = 3;
    // Two of the four are in time in the first round.
    let mut clock = c.clock.unwrap();
    let mut times: Vec<f64> = (0..4).map(|k| clock.duration(c.seed, k, 0)).collect();
    times.sort_by(f64::total_cmp);
    clock.deadline = 0.5 * (times[1] + times[2]);
    c.clock = Some(clock);
    let mut run = start(&c, false);
    finish(&mut run);
    let records = run.state().records.clone();
    assert!(
        records
            .iter()
            .any(|r| !r.late.is_empty() && r.clients.len() > 1)
    );
    let clock = c.clock.unwrap();
    for (i, r) in records.iter().enumerate() {
        for k in 0..4 {
            let in_time = clock.duration(c.seed, k, i) <= clock.deadline;
            assert_eq!(r.clients.contains(&k), in_time || r.clients == [k]);
            assert_ne!(r.clients.contains(&k), r.late.contains(&k));
        }
        assert!(r.clock.unwrap() <= clock.deadline * (i + 1) as f64 + 1e-9 || r.clients.len() == 1);
    }
    // The first round with its late clients taken out of the run altogether.
    let mut without = c.clone();
    without.clock = None;
    without.rounds = 1;
    without.out = dir.path().join("without");
    let text = texts(&c, None).unwrap();
    let late: BTreeSet<usize> = records[0].late.iter().copied().collect();
    let mut rest = Run::without(without, None, &text, late, false).unwrap();
    finish(&mut rest);
    assert_eq!(rest.state().records[0].hash, records[0].hash);
    // Nobody is late without a deadline, and then the clock changes nothing.
    c.clock = Some(crate::clock::Clock::default());
    c.out = dir.path().join("patient");
    let mut patient = start(&c, false);
    let with = finish(&mut patient);
    c.clock = None;
    c.out = dir.path().join("plain");
    assert_eq!(finish(&mut start(&c, false)), with);
}

#[test]
fn a_secure_sum_goes_on_without_late_clients_but_not_with_fewer_than_three() {
    let dir = tempfile::tempdir().unwrap();
    let stages = "[clock]\ndeadline = 0.01\n[[stage]]\nkind = \"clip\"\nnorm = 0.5\n[[stage]]\nkind = \"secure-sum\"\n";
    let mut c = config(dir.path(), stages);
    c.rounds = 2;
    let mut run = start(&c, false);
    finish(&mut run);
    for r in &run.state().records {
        assert_eq!((r.clients.len(), r.late.len()), (3, 1));
    }
}

#[test]
fn the_first_buffer_of_equally_fast_clients_is_a_round_and_then_most_have_begun_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut c = config(dir.path(), "");
    c.rounds = 1;
    let equal = |c: &RunConfig| {
        let mut run = start(c, false);
        let n = run.clients.iter().map(|k| k.train.len()).min().unwrap();
        run.clients.iter_mut().for_each(|k| k.train.truncate(n));
        finish(&mut run);
        run
    };
    let rounds = equal(&c);
    c.clock = Some(crate::clock::Clock {
        buffer: 4,
        spread: 1.0,
        jitter: 0.0,
        ..Default::default()
    });
    c.out = dir.path().join("buffer");
    let steps = equal(&c);
    assert_eq!(steps.state().records[0].staleness, [0; 4]);
    assert!(difference(&steps, &rounds) < 1e-5);
    // Who arrives before the buffer is full begins again before the step is taken.
    let kept: Vec<usize> = steps.state().versions.keys().copied().collect();
    assert_eq!(kept, [0]);
    let next = crate::clock::buffered(&c.clock.unwrap(), c.seed, 4, 4, 1);
    let behind = next.arrivals.iter().filter(|a| a.version == 0).count();
    assert_eq!(behind, 3);
}

#[test]
fn old_updates_weigh_less_and_begin_from_what_their_client_was_given() {
    let dir = tempfile::tempdir().unwrap();
    let clock = "[clock]\nbuffer = 2\nspread = 8.0\n";
    let mut c = config(dir.path(), clock);
    c.rounds = 8;
    let mut run = start(&c, false);
    // By hand: every version that was ever current, and every update made from the one its client had.
    let mut versions = vec![run.state().global.adapter.clone()];
    let mut memories = run.state().clients.clone();
    for step in 0..8 {
        let plan = crate::clock::buffered(&c.clock.unwrap(), c.seed, 4, 4, step);
        let mut next = versions[step].clone();
        for a in &plan.arrivals {
            let global = Global {
                adapter: versions[a.version].clone(),
                residual: NamedTensors::new(),
            };
            let when = super::client::When {
                turn: a.turn,
                round: a.version,
            };
            let none = NamedTensors::new();
            let worker = run.worker(a.client);
            let made = worker
                .contribute(when, &global, &none, &memories[a.client])
                .unwrap();
            memories[a.client] = made.memory;
            let weight = 1.0 / (1.0 + (step - a.version) as f32).sqrt();
            next.axpy(0.5 * weight, &made.update).unwrap();
        }
        versions.push(next);
    }
    finish(&mut run);
    let want = versions.last().unwrap();
    let d = run.state().global.adapter.difference(want).unwrap().norm() / want.norm();
    assert!(d < 1e-5, "{d}");
    let oldest = run.state().records.iter().flat_map(|r| &r.staleness).max();
    assert!(*oldest.unwrap() >= 2);
    assert!(run.state().versions.len() < 4);
}

#[test]
fn buffers_and_deadlines_refuse_what_they_cannot_keep() {
    let error = |text: &str| RunConfig::from_toml(text, "x").unwrap_err().to_string();
    let hidden = "[[stage]]\nkind = \"clip\"\nnorm = 1.0\n[[stage]]\nkind = \"secure-sum\"\n";
    let noise = "[[stage]]\nkind = \"noise\"\nepsilon = 8\nclip = 0.2\nexamples = 9\n[[stage]]\nkind = \"secure-sum\"\n";
    assert!(error(&format!("[clock]\nbuffer = 3\n{hidden}")).contains("at one time"));
    assert!(error(&format!("[clock]\ndeadline = 3.0\n{noise}")).contains("part of the noise"));
    assert!(error("[clock]\nbuffer = 3\ndeadline = 1.0").contains("nobody is late"));
    assert!(error("combine = \"stack\"\n[clock]\nbuffer = 3").contains("merged changes"));
    assert!(error("history = true\n[clock]\nbuffer = 3").contains("replay"));
    assert!(error("[clock]\nspread = 0.5").contains("spread"));
    let krum =
        "[clock]\nbuffer = 3\n[[stage]]\nkind = \"robust\"\nrule = { name = \"krum\", bad = 1 }\n";
    assert!(error(krum).contains("krum"));
}
