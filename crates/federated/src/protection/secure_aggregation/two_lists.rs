//! What a cheating coordinator sends in an audit (`crate::audit::aggregator`).

use std::collections::BTreeMap;

use ed25519_dalek::SigningKey;

use super::message::{ClientBody, Header, ServerBody, read_client, read_server, write_server};
use super::{Client, Roster, RoundConfig, Server};
use crate::protection::{ClientId, ProtectionError};

/// Tells the first half of the clients that the last one was lost and the others that it survived, then gives each half the signatures of all.
/// How many clients answered with shares. `keys` are the clients', to read their signatures.
pub(crate) fn answers(
    clients: &mut [Client],
    config: &RoundConfig,
    roster: &Roster,
    keys: &BTreeMap<ClientId, SigningKey>,
) -> Result<usize, ProtectionError> {
    let n = clients.len();
    let digest = config.digest(roster);
    let header = |client| Header::new(config.session, config.round, digest, client);
    let all: Vec<ClientId> = roster.ids().collect();
    let mut signatures = Vec::new();
    for (i, c) in clients.iter_mut().enumerate() {
        let told = if i < n / 2 {
            all[..n - 1].to_vec()
        } else {
            all.clone()
        };
        let id = c.id();
        let lie = write_server(&header(id), &ServerBody::Survivors(told));
        let Ok(answer) = c.receive(&lie) else {
            continue;
        };
        let key = keys.get(&id).map(SigningKey::verifying_key);
        let (_, body) = read_client(&answer, &header(id), |_| key.as_ref())?;
        if let ClientBody::Survivors(signature) = body {
            signatures.push((id, signature));
        }
    }
    let mut answered = 0;
    for (i, c) in clients.iter_mut().enumerate() {
        let (first, second) = signatures.split_at(n / 2);
        let own = if i < n / 2 { first } else { second };
        // All of them, those of its own list only, and its own ones repeated: nothing of it may be believed.
        let repeated: Vec<_> = own.iter().chain(own).copied().collect();
        for shown in [signatures.clone(), own.to_vec(), repeated] {
            let message = write_server(&header(c.id()), &ServerBody::Signatures(shown));
            if c.receive(&message).is_ok() {
                answered += 1;
                break;
            }
        }
    }
    Ok(answered)
}

/// Puts a mask key of the coordinator's own in place of the last client's. How many clients went on with it.
pub(crate) fn forged_keys(
    clients: &mut [Client],
    server: &mut Server,
    config: &RoundConfig,
    roster: &Roster,
) -> Result<usize, ProtectionError> {
    for c in clients.iter_mut() {
        let message = c.advertise()?;
        server.receive(&message)?;
    }
    let digest = config.digest(roster);
    let mut accepted = 0;
    for (to, message) in server.advance()? {
        let header = Header::new(config.session, config.round, digest, to);
        let ServerBody::Keys(mut entries) = read_server(&message, &header)? else {
            continue;
        };
        if let Some(last) = entries.last_mut() {
            last.mask_key = [9; 32];
        }
        let forged = write_server(&header, &ServerBody::Keys(entries));
        accepted += clients
            .iter_mut()
            .filter(|c| c.id() == to)
            .filter_map(|c| c.receive(&forged).ok())
            .count();
    }
    Ok(accepted)
}
