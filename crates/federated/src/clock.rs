//! Time in a federation: how long clients take, deadlines, and who is in the coordinator's buffer when it is full.
//!
//! In one process the clients' speeds are simulated, by seed: client `k` takes `seconds * spread^u_k * exp(jitter * x)` for a turn, with `u_k` uniform in
//! (0, 1), drawn once for the client, and `x` standard normal, drawn for the turn. Between machines a deadline is real and nothing is simulated.
//!
//! **Deadline.** What has not arrived after `deadline` seconds is left out of the round.
//!
//! **Buffer** (FedBuff, Nguyen et al., arXiv 2106.06639, algorithm 1). There are no rounds: a client that has finished begins again at once with what the
//! coordinator has by then. The coordinator takes a step whenever `buffer` updates have arrived,
//!
//! ```text
//! x <- rule(x, x + (1 / K) sum_i D_i / sqrt(1 + tau_i))
//! ```
//!
//! with `tau_i` the steps that the coordinator took while client `i` was working on its update `D_i`. All clients weigh the same otherwise.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::FederatedError;
use crate::config::RunConfig;
use crate::lora::Combine;
use crate::random::{below, normal, permutation, stream, unit};

/// Settings of time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Clock {
    /// Seconds after which a round goes on without those that are late; 0 for none.
    pub deadline: f64,
    /// Updates that make a step of the coordinator, without rounds; 0 for rounds.
    pub buffer: usize,
    /// Simulated seconds of the fastest possible client's turn.
    pub seconds: f64,
    /// How many times slower the slowest possible client is.
    pub spread: f64,
    /// Standard deviation of the logarithm of a turn's length.
    pub jitter: f64,
}

impl Default for Clock {
    fn default() -> Self {
        Self {
            deadline: 0.0,
            buffer: 0,
            seconds: 1.0,
            spread: 4.0,
            jitter: 0.1,
        }
    }
}

impl Clock {
    /// Simulated seconds of turn number `turn` of a client.
    pub fn duration(&self, seed: u64, client: usize, turn: usize) -> f64 {
        let speed = unit(&mut stream(seed, "speed of a client", &[client as u64]));
        let numbers = [client as u64, turn as u64];
        let luck = normal(&mut stream(seed, "length of a turn", &numbers));
        self.seconds * self.spread.powf(speed) * (self.jitter * luck).exp()
    }
}

/// `1 / sqrt(1 + tau)`.
pub fn staleness_weight(tau: usize) -> f64 {
    1.0 / (1.0 + tau as f64).sqrt()
}

/// Who of a round's clients are in time, who are late, and how long the round takes. At least `least` are waited for.
pub fn in_time(
    clock: &Clock,
    seed: u64,
    round: usize,
    drawn: &[usize],
    least: usize,
) -> (Vec<usize>, Vec<usize>, f64) {
    let mut by_time: Vec<(f64, usize)> = drawn
        .iter()
        .map(|&k| (clock.duration(seed, k, round), k))
        .collect();
    by_time.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let counted = if clock.deadline > 0.0 {
        let fast = by_time.iter().take_while(|t| t.0 <= clock.deadline).count();
        fast.max(least).min(by_time.len())
    } else {
        by_time.len()
    };
    let last = by_time[..counted].last().map_or(0.0, |t| t.0);
    let seconds = if counted < by_time.len() {
        last.max(clock.deadline)
    } else {
        last
    };
    let ascending = |part: &[(f64, usize)]| {
        let mut clients: Vec<usize> = part.iter().map(|t| t.1).collect();
        clients.sort_unstable();
        clients
    };
    (
        ascending(&by_time[..counted]),
        ascending(&by_time[counted..]),
        seconds,
    )
}

/// An update that reaches the coordinator.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Arrival {
    /// Whose.
    pub client: usize,
    /// How many updates this client has sent before.
    pub turn: usize,
    /// Steps that the coordinator had taken when the client began.
    pub version: usize,
    /// Simulated seconds since the start.
    pub time: f64,
}

/// One step of a buffering coordinator.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// What fills the buffer, in order of arrival.
    pub arrivals: Vec<Arrival>,
    /// Versions that clients at work began with, when the step has been taken.
    pub at_work: BTreeSet<usize>,
}

/// Step number `step` (from 0) of a run of `clients` clients, `working` of them at work at any time. A function of its arguments, so that a resumed
/// run goes on as an undisturbed one would.
pub fn buffered(clock: &Clock, seed: u64, clients: usize, working: usize, step: usize) -> Step {
    let mut turns = vec![0usize; clients];
    let begin = |turns: &[usize], client: usize, version: usize, now: f64| Arrival {
        client,
        turn: turns[client],
        version,
        time: now + clock.duration(seed, client, turns[client]),
    };
    let order = permutation(&mut stream(seed, "first at work", &[]), clients);
    let mut at_work: Vec<Arrival> = order[..working.min(clients)]
        .iter()
        .map(|&k| begin(&turns, k, 0, 0.0))
        .collect();
    let mut arrived = 0u64;
    let mut version = 0;
    loop {
        let mut arrivals = Vec::with_capacity(clock.buffer);
        while arrivals.len() < clock.buffer {
            let Some(next) = (0..at_work.len()).min_by(|&a, &b| {
                let (a, b) = (&at_work[a], &at_work[b]);
                a.time.total_cmp(&b.time).then(a.client.cmp(&b.client))
            }) else {
                break;
            };
            let done = at_work.swap_remove(next);
            turns[done.client] += 1;
            arrivals.push(done);
            arrived += 1;
            // Who was idle is as likely to be next as the one that has just finished.
            let idle: Vec<usize> = (0..clients)
                .filter(|k| at_work.iter().all(|a| a.client != *k))
                .collect();
            let mut rng = stream(seed, "next at work", &[arrived]);
            let client = idle[below(&mut rng, idle.len())];
            let now = version + usize::from(arrivals.len() == clock.buffer);
            at_work.push(begin(&turns, client, now, done.time));
        }
        if version == step || at_work.is_empty() {
            return Step {
                arrivals,
                at_work: at_work.iter().map(|a| a.version).collect(),
            };
        }
        version += 1;
    }
}

/// Checks the settings and that they go with the rest of a run.
///
/// # Errors
/// [`FederatedError::Setting`] with the reason.
pub(crate) fn check(c: &RunConfig) -> Result<(), FederatedError> {
    let Some(clock) = c.clock else { return Ok(()) };
    let refuse = |setting: &str, expected: &str, found: &str, why: &str| {
        Err(FederatedError::setting(
            format!("clock{setting}"),
            expected,
            found,
            why,
        ))
    };
    let positive = |x: f64| x > 0.0 && x.is_finite();
    let share = |x: f64| x >= 0.0 && x.is_finite();
    if !(share(clock.deadline)
        && positive(clock.seconds)
        && clock.spread >= 1.0
        && clock.spread.is_finite()
        && share(clock.jitter)
        && clock.jitter <= 3.0)
    {
        return refuse(
            "",
            "seconds above 0, a spread of at least 1, a jitter of 0 to 3, a deadline of at least 0",
            &format!("{clock:?}"),
            "leave a setting out for its default",
        );
    }
    if clock.deadline > 0.0 && c.noise().is_some() {
        return refuse(
            ".deadline",
            "no noise stage beside it",
            "noise",
            "the late clients' part of the noise would be missing",
        );
    }
    if clock.buffer == 0 {
        return Ok(());
    }
    let not_with = |what: &str, why: &str| refuse(".buffer", "rounds", what, why);
    if clock.deadline > 0.0 {
        return not_with("a deadline", "without rounds nobody is late");
    }
    if c.hides_updates() {
        return not_with(
            "a hidden sum",
            "its clients must be there at one time, and the coordinator could not weigh updates by their age",
        );
    }
    if c.combine != Combine::Average {
        return not_with(
            "combine beside average",
            "updates of one buffer began from different states, whose merged changes would differ",
        );
    }
    if c.train.scaffold {
        return not_with(
            "scaffold",
            "the server's control variate would be another one for each update of a buffer",
        );
    }
    if c.history {
        return not_with(
            "history",
            "without one client others would meet in a buffer: a replay would be another run",
        );
    }
    if c.robust().is_some_and(|r| r.needs_root()) {
        return not_with(
            "a rule with the coordinator's own update",
            "that update would have to begin from every client's state",
        );
    }
    if let Some(rule) = c.robust() {
        rule.check(clock.buffer)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLOCK: Clock = Clock {
        deadline: 0.0,
        buffer: 3,
        seconds: 2.0,
        spread: 8.0,
        jitter: 0.2,
    };

    #[test]
    fn durations_are_the_clients_own_and_spread_as_they_should() {
        let calm = Clock {
            jitter: 0.0,
            ..CLOCK
        };
        let all: Vec<f64> = (0..2000).map(|k| calm.duration(1, k, 0)).collect();
        assert!(all.iter().all(|d| (2.0..=16.0).contains(d)));
        let mean = all.iter().map(|d| (d / 2.0).log(8.0)).sum::<f64>() / 2000.0;
        assert!((mean - 0.5).abs() < 0.02, "{mean}");
        assert_eq!(calm.duration(1, 7, 0), calm.duration(1, 7, 9));
        assert_ne!(CLOCK.duration(1, 7, 0), CLOCK.duration(1, 7, 1));
        assert_ne!(CLOCK.duration(1, 7, 0), CLOCK.duration(2, 7, 0));
    }

    #[test]
    fn a_deadline_divides_clients_by_their_time_and_waits_for_the_least_number() {
        let clock = Clock {
            deadline: 6.0,
            ..CLOCK
        };
        let drawn: Vec<usize> = (0..12).collect();
        let (fast, late, seconds) = in_time(&clock, 3, 5, &drawn, 1);
        assert!(fast.len() > 2 && late.len() > 2 && seconds == 6.0);
        for &k in &drawn {
            assert_eq!(fast.contains(&k), clock.duration(3, k, 5) <= 6.0);
            assert_ne!(fast.contains(&k), late.contains(&k));
        }
        let hurry = Clock {
            deadline: 1e-3,
            ..CLOCK
        };
        let (fast, late, seconds) = in_time(&hurry, 3, 5, &drawn, 3);
        assert_eq!((fast.len(), late.len()), (3, 9));
        let longest = fast.iter().map(|&k| hurry.duration(3, k, 5));
        assert_eq!(seconds, longest.fold(0.0, f64::max));
        let (all, none, _) = in_time(&CLOCK, 3, 5, &drawn, 1);
        assert_eq!((all, none), (drawn, vec![]));
    }

    #[test]
    fn a_buffer_is_filled_in_order_of_time_and_slow_clients_are_stale() {
        let steps: Vec<Step> = (0..40).map(|s| buffered(&CLOCK, 5, 6, 6, s)).collect();
        let all: Vec<Arrival> = steps.iter().flat_map(|s| s.arrivals.clone()).collect();
        assert!(steps.iter().all(|s| s.arrivals.len() == 3));
        assert!(all.windows(2).all(|w| w[0].time <= w[1].time));
        let mut sent = [0usize; 6];
        let mut age = [(0usize, 0usize); 6];
        for (step, s) in steps.iter().enumerate() {
            for a in &s.arrivals {
                assert!(a.version <= step);
                assert_eq!(a.turn, sent[a.client]);
                sent[a.client] += 1;
                age[a.client].0 += step - a.version;
                age[a.client].1 += 1;
            }
            // Whatever a later step takes up again was kept.
            for later in &steps[step + 1..] {
                for a in later.arrivals.iter().filter(|a| a.version <= step) {
                    assert!(s.at_work.contains(&a.version));
                }
            }
        }
        let speed = |k: usize| CLOCK.duration(5, k, 0);
        let slowest = (0..6)
            .max_by(|&a, &b| speed(a).total_cmp(&speed(b)))
            .unwrap();
        let fastest = (0..6)
            .min_by(|&a, &b| speed(a).total_cmp(&speed(b)))
            .unwrap();
        let mean = |k: usize| age[k].0 as f64 / age[k].1.max(1) as f64;
        assert!(mean(slowest) > mean(fastest) && sent[fastest] > sent[slowest]);
        // With fewer at work than there are, everybody has a turn in the end.
        let few: BTreeSet<usize> = (0..60)
            .flat_map(|s| buffered(&CLOCK, 5, 6, 2, s).arrivals)
            .map(|a| a.client)
            .collect();
        assert_eq!(few.len(), 6);
        assert_eq!(staleness_weight(0), 1.0);
        assert_eq!(staleness_weight(3), 0.5);
    }
}
