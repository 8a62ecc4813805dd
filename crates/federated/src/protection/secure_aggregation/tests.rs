//! Whole rounds: honest, with dropouts, with a lying coordinator, with lying clients, with noise on the wire.

use super::message::*;
use super::*;
use crate::protection::{ClientId, ProtectionError};
use ed25519_dalek::{Signer, SigningKey};
use proptest::prelude::{any, prop, prop_assert_eq, proptest};
use std::time::Instant;

struct Round {
    server: Server,
    clients: Vec<Client>,
    /// Bytes up and down of each client.
    traffic: Vec<(usize, usize)>,
    /// The last message of each client.
    sent: Vec<Vec<u8>>,
    seconds: f64,
}

fn signing(id: ClientId) -> SigningKey {
    let mut seed = [17; 32];
    seed[..4].copy_from_slice(&id.to_le_bytes());
    SigningKey::from_bytes(&seed)
}

fn roster(n: usize) -> Roster {
    Roster::new((0..n as ClientId).map(|id| (id, signing(id).verifying_key())))
}

fn config(n: usize, dimension: usize) -> RoundConfig {
    RoundConfig::complete([3; 16], 9, dimension, 24, &roster(n))
}

fn input(id: ClientId, dimension: usize) -> Vec<u32> {
    (0..dimension as u32)
        .map(|i| {
            i.wrapping_mul(2_654_435_761)
                .wrapping_add(id.wrapping_mul(977))
                >> 13
        })
        .collect()
}

fn expected(survivors: &[ClientId], dimension: usize, bits: u32) -> Vec<u32> {
    let mut sum = vec![0u32; dimension];
    for &id in survivors {
        for (s, v) in sum.iter_mut().zip(input(id, dimension)) {
            *s = s.wrapping_add(v) & fixed_point::mask(bits);
        }
    }
    sum
}

impl Round {
    fn new(config: &RoundConfig, n: usize) -> Self {
        let clients: Vec<Client> = (0..n as ClientId)
            .map(|id| {
                Client::new(
                    config.clone(),
                    roster(n),
                    id,
                    signing(id),
                    input(id, config.dimension),
                )
                .unwrap()
            })
            .collect();
        Self {
            server: Server::new(config.clone(), roster(n)).unwrap(),
            clients,
            traffic: vec![(0, 0); n],
            sent: vec![Vec::new(); n],
            seconds: 0.0,
        }
    }

    fn advertise(&mut self) {
        for i in 0..self.clients.len() {
            let message = self.clients[i].advertise().unwrap();
            self.traffic[i].0 += message.len();
            self.server.receive(&message).unwrap();
            self.sent[i] = message;
        }
    }

    /// One step; the clients in `lost` no longer answer.
    fn step(&mut self, lost: &[ClientId]) {
        for (to, message) in self.server.advance().unwrap() {
            let i = to as usize;
            if lost.contains(&to) {
                continue;
            }
            self.traffic[i].1 += message.len();
            let start = Instant::now();
            let answer = self.clients[i].receive(&message).unwrap();
            self.seconds += start.elapsed().as_secs_f64();
            self.traffic[i].0 += answer.len();
            self.server.receive(&answer).unwrap();
            self.sent[i] = answer;
        }
    }
}

/// The case: 32 clients, a million parameters, ten of the clients lost at three different moments.
#[test]
fn thirty_two_clients_a_million_parameters_ten_dropouts() {
    let (n, dimension) = (32, 1_000_000);
    let config = config(n, dimension);
    let mut round = Round::new(&config, n);
    round.advertise();
    round.step(&[3, 31]);
    round.step(&[0, 3, 7, 12, 19, 20, 28, 31]);

    // What the coordinator holds of one client is noise; what the client put in is not.
    let view = match read_client(&round.sent[5], &round_header(&config, n), |v| {
        Some(round.server_roster(v))
    })
    .unwrap()
    .1
    {
        ClientBody::Masked(blob) => unpack_bits(&blob.0, dimension, 24).unwrap(),
        other => panic!("{}", other.name()),
    };
    let masked = uniformity(&view, 24);
    let plain = uniformity(&input(5, dimension), 24);
    assert!(masked.p_value > 1e-6, "{masked:?}");
    assert!(plain.p_value < 1e-9, "{plain:?}");

    round.step(&[1, 2]);
    round.step(&[]);
    let start = Instant::now();
    let sum = round.server.finish().unwrap();
    let server_seconds = start.elapsed().as_secs_f64();
    assert_eq!(sum.dropped, [0, 7, 12, 19, 20, 28]);
    assert_eq!(
        sum.survivors.len(),
        24,
        "two of them were lost after their update"
    );
    assert_eq!(sum.values, expected(&sum.survivors, dimension, 24));
    assert!(sum.wrong_shares.is_empty());

    let plain_bytes = 4 * dimension;
    let (up, down) = round.traffic[5];
    println!(
        "secure aggregation, 32 clients, 1 M parameters, 10 dropouts: client {:.2} s on average, {up} bytes up ({:.2} of plain f32), {down} down \
         beside the model; coordinator {server_seconds:.2} s to unmask; view of one client: chi-squared {:.1} at 255 degrees, p = {:.3}",
        round.seconds / 24.0,
        up as f64 / plain_bytes as f64,
        masked.chi_squared,
        masked.p_value,
    );
    assert!(up + down <= 2 * plain_bytes);
}

fn round_header(config: &RoundConfig, n: usize) -> Header {
    Header::new(config.session, config.round, config.digest(&roster(n)), 0)
}

impl Round {
    fn server_roster(&self, v: ClientId) -> &'static ed25519_dalek::VerifyingKey {
        Box::leak(Box::new(signing(v).verifying_key()))
    }
}

#[test]
fn a_sparse_graph_gives_the_same_sum_with_fewer_bytes() {
    let n = 40;
    let sparse = RoundConfig::sparse([3; 16], 9, 100, 24, &roster(n), 12);
    let mut round = Round::new(&sparse, n);
    round.advertise();
    round.step(&[]);
    round.step(&[4, 9]);
    round.step(&[]);
    round.step(&[]);
    let sum = round.server.finish().unwrap();
    assert_eq!(sum.values, expected(&sum.survivors, 100, 24));
    assert_eq!(sum.dropped, [4, 9]);

    let mut complete = Round::new(&config(n, 100), n);
    complete.advertise();
    for _ in 0..4 {
        complete.step(&[]);
    }
    assert!(round.traffic[0].0 * 2 < complete.traffic[0].0);
}

#[test]
fn too_few_survivors_open_nothing() {
    let mut round = Round::new(&config(6, 10), 6);
    round.advertise();
    round.step(&[]);
    round.step(&[0, 1]);
    assert!(matches!(
        round.server.advance(),
        Err(ProtectionError::TooFew {
            found: 4,
            needed: 5,
            ..
        })
    ));
    // A coordinator that goes on all the same is stopped by the clients.
    let header = Header {
        client: 3,
        ..round_header(&config(6, 10), 6)
    };
    let lie = write_server(&header, &ServerBody::Survivors(vec![2, 3, 4, 5]));
    assert!(matches!(
        round.clients[3].receive(&lie),
        Err(ProtectionError::TooFew { .. })
    ));
}

#[test]
fn a_coordinator_that_tells_two_lists_of_survivors_gets_no_share() {
    let n = 6;
    let mut round = Round::new(&config(n, 10), n);
    round.advertise();
    round.step(&[]);
    round.step(&[]);
    // It claims to clients 0..3 that client 5 is lost (they would open its mask key), to the others that it survived (they would open
    // its seed): both together would unmask client 5.
    let digest = config(n, 10).digest(&roster(n));
    let header = |client| Header {
        client,
        ..round_header(&config(n, 10), n)
    };
    let all: Vec<ClientId> = (0..6).collect();
    let mut signatures = Vec::new();
    for i in 0..6 {
        let told = if i < 3 {
            all[..5].to_vec()
        } else {
            all.clone()
        };
        let answer = round.clients[i as usize]
            .receive(&write_server(&header(i), &ServerBody::Survivors(told)))
            .unwrap();
        let key = signing(i).verifying_key();
        let ClientBody::Survivors(signature) =
            read_client(&answer, &header(i), |_| Some(&key)).unwrap().1
        else {
            unreachable!()
        };
        signatures.push((i, signature));
    }
    let message = write_server(
        &header(0),
        &ServerBody::Signatures(signatures[..5].to_vec()),
    );
    assert!(matches!(
        round.clients[0].receive(&message),
        Err(ProtectionError::NotAuthentic { client: 3, .. })
    ));
    // With its own signatures only, there are too few.
    let message = write_server(
        &header(0),
        &ServerBody::Signatures(signatures[..3].to_vec()),
    );
    assert!(matches!(
        round.clients[0].receive(&message),
        Err(ProtectionError::TooFew { found: 3, .. })
    ));
    // The same signature twice does not count twice.
    let twice = vec![
        signatures[0],
        signatures[0],
        signatures[1],
        signatures[2],
        signatures[2],
    ];
    let message = write_server(&header(0), &ServerBody::Signatures(twice));
    assert!(matches!(
        round.clients[0].receive(&message),
        Err(ProtectionError::Cheating { .. })
    ));
    assert!(digest != [0; 32]);
}

#[test]
fn a_coordinator_cannot_slip_in_keys_of_its_own() {
    let n = 5;
    let mut round = Round::new(&config(n, 10), n);
    round.advertise();
    let header = Header {
        client: 0,
        ..round_header(&config(n, 10), n)
    };
    let message = round.server.advance().unwrap().remove(0).1;
    let ServerBody::Keys(entries) = read_server(&message, &header).unwrap() else {
        unreachable!()
    };
    let mut forged = entries.clone();
    forged[2].mask_key = [9; 32];
    let refused = round.clients[0].receive(&write_server(&header, &ServerBody::Keys(forged)));
    assert!(matches!(
        refused,
        Err(ProtectionError::NotAuthentic { client: 2, .. })
    ));
    // A client's own signature on the keys of another round.
    let mut old = entries.clone();
    old[2] = KeyEntry::sign(&[1; 32], 2, [8; 32], [9; 32], &signing(2));
    assert!(
        round.clients[0]
            .receive(&write_server(&header, &ServerBody::Keys(old)))
            .is_err()
    );
    // A colluding client with a key of small order: the mask would be known.
    let mut small = entries.clone();
    let digest = config(n, 10).digest(&roster(n));
    small[2] = KeyEntry::sign(&digest, 2, entries[2].mask_key, [0; 32], &signing(2));
    assert!(matches!(
        round.clients[0].receive(&write_server(&header, &ServerBody::Keys(small))),
        Err(ProtectionError::Cheating { .. })
    ));
    // After all these refusals the right list is still answered; the second time it is not.
    assert!(round.clients[0].receive(&message).is_ok());
    assert!(matches!(
        round.clients[0].receive(&message),
        Err(ProtectionError::OutOfOrder { .. })
    ));
}

/// Runs a round of 5 in which the message of client 4 at `step` is replaced.
fn with_lie(at: usize, lie: impl Fn(ClientBody) -> ClientBody) -> Round {
    let (n, config) = (5, config(5, 50));
    let mut round = Round::new(&config, n);
    round.advertise();
    for step in 0..4 {
        for (to, message) in round.server.advance().unwrap() {
            let mut answer = round.clients[to as usize].receive(&message).unwrap();
            if step == at && to == 4 {
                let key = signing(4);
                let header = Header {
                    client: 4,
                    ..round_header(&config, n)
                };
                let public = key.verifying_key();
                let body = read_client(&answer, &header, |_| Some(&public)).unwrap().1;
                answer = write_client(&header, &lie(body), &key);
            }
            round.server.receive(&answer).unwrap();
        }
    }
    round
}

#[test]
fn a_client_that_opens_wrong_shares_is_named_and_changes_nothing() {
    let round = with_lie(3, |body| match body {
        ClientBody::Opened {
            mut seeds,
            mask_keys,
        } => {
            for s in &mut seeds {
                s.share.0[0] ^= 1;
            }
            ClientBody::Opened { seeds, mask_keys }
        }
        other => other,
    });
    let sum = round.server.finish().unwrap();
    assert_eq!(sum.values, expected(&[0, 1, 2, 3, 4], 50, 24));
    assert_eq!(sum.wrong_shares.len(), 5);
    assert!(sum.wrong_shares.iter().all(|(holder, _)| *holder == 4));
}

#[test]
fn a_client_that_commits_to_another_seed_ends_the_round_with_its_name() {
    let round = with_lie(0, |body| match body {
        ClientBody::Shares { dealt, .. } => ClientBody::Shares {
            seed_commitment: [5; 32],
            dealt,
        },
        other => other,
    });
    let error = round.server.finish().unwrap_err().to_string();
    assert!(
        error.contains("client 4 dealt shares of another secret"),
        "{error}"
    );
}

#[test]
fn replays_strangers_and_second_messages_are_refused() {
    let n = 4;
    let mut round = Round::new(&config(n, 10), n);
    round.advertise();
    let old = round.sent[1].clone();
    assert!(matches!(
        round.server.receive(&old),
        Err(ProtectionError::OutOfOrder { .. })
    ));
    let mut next = config(n, 10);
    next.round += 1;
    let mut later = Server::new(next, roster(n)).unwrap();
    assert!(matches!(
        later.receive(&old),
        Err(ProtectionError::WrongRound { field: "round", .. })
    ));
    // Someone else's key under a member's number.
    let entry = KeyEntry::sign(
        &config(n, 10).digest(&roster(n)),
        2,
        [1; 32],
        [2; 32],
        &signing(77),
    );
    let header = Header {
        client: 2,
        ..round_header(&config(n, 10), n)
    };
    let mut fresh = Server::new(config(n, 10), roster(n)).unwrap();
    let message = write_client(&header, &ClientBody::Keys(entry.clone()), &signing(77));
    assert!(matches!(
        fresh.receive(&message),
        Err(ProtectionError::NotAuthentic { client: 2, .. })
    ));
    let header = Header {
        client: 77,
        ..header
    };
    assert!(matches!(
        fresh.receive(&write_client(
            &header,
            &ClientBody::Keys(entry),
            &signing(77)
        )),
        Err(ProtectionError::UnknownClient { client: 77, .. })
    ));
    assert!(signing(0).sign(b"x").to_bytes().len() == 64);
}

#[test]
fn unsafe_thresholds_are_refused() {
    let people = roster(9);
    let good = config(9, 4);
    assert!(good.validate(&people).is_ok());
    for change in [
        |c: &mut RoundConfig| c.share_threshold = 4,
        |c: &mut RoundConfig| c.share_threshold = 9,
        |c: &mut RoundConfig| c.min_survivors = 4,
        |c: &mut RoundConfig| c.min_survivors = 6,
        |c: &mut RoundConfig| c.bits = 33,
        |c: &mut RoundConfig| c.dimension = 0,
        |c: &mut RoundConfig| {
            c.graph = Graph::Harary {
                degree: 3,
                seed: [0; 32],
            }
        },
    ] {
        let mut bad = good.clone();
        change(&mut bad);
        assert!(
            matches!(bad.validate(&people), Err(ProtectionError::Setting { .. })),
            "{bad:?}"
        );
    }
    assert!(config(2, 4).validate(&roster(2)).is_err());
}

proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(24))]

    #[test]
    fn any_dropouts_within_the_threshold_give_the_sum_of_the_survivors(
        n in 4usize..9, dimension in 1usize..40, bits in 8u32..=32, lost in any::<u64>(), when in any::<u64>(),
    ) {
        let mut config = config(n, dimension);
        config.bits = bits;
        let clients: Vec<Client> = (0..n as ClientId)
            .map(|id| {
                let values = input(id, dimension).iter().map(|v| v & fixed_point::mask(bits)).collect();
                Client::new(config.clone(), roster(n), id, signing(id), values).unwrap()
            })
            .collect();
        let mut round = Round { server: Server::new(config.clone(), roster(n)).unwrap(), clients, traffic: vec![(0, 0); n], sent: vec![vec![]; n], seconds: 0.0 };
        round.advertise();
        let spare = n - config.min_survivors;
        let mut gone: Vec<ClientId> = (0..n as ClientId).filter(|v| lost >> v & 1 == 1).collect();
        gone.truncate(spare);
        for step in 0..4u32 {
            let lost: Vec<ClientId> = gone.iter().copied().filter(|v| (when >> (2 * v) & 3) as u32 <= step).collect();
            round.step(&lost);
        }
        let sum = round.server.finish().unwrap();
        prop_assert_eq!(&sum.values, &expected(&sum.survivors, dimension, bits));
    }

    #[test]
    fn noise_on_the_wire_never_panics_or_is_believed(at in any::<prop::sample::Index>(), bit in 0u32..8, step in 0usize..4, cut in any::<bool>()) {
        let mut round = Round::new(&config(4, 6), 4);
        round.advertise();
        for i in 0..4 {
            for (to, message) in round.server.advance().unwrap() {
                let client = &mut round.clients[to as usize];
                let spoil = |message: &[u8]| {
                    let mut bad = message.to_vec();
                    let at = at.index(bad.len());
                    if cut { bad.truncate(at) } else { bad[at] ^= 1 << bit }
                    bad
                };
                // A coordinator's message is not signed: a spoilt one may be read, but then it is either refused for its content or
                // does not change what is right. The server refuses every spoilt client message.
                if i == step && to == 3 {
                    let bad = spoil(&message);
                    if client.receive(&bad).is_ok() {
                        return Ok(());
                    }
                }
                let answer = client.receive(&message).unwrap();
                if i == step {
                    assert!(round.server.receive(&spoil(&answer)).is_err());
                }
                round.server.receive(&answer).unwrap();
            }
        }
        prop_assert_eq!(round.server.finish().unwrap().values, expected(&[0, 1, 2, 3], 6, 24));
    }
}
