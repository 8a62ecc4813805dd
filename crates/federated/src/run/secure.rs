//! A round's secure sum with all parties in this process, exchanging nothing but the protocol's messages.

use crate::protection::secure_aggregation::{
    Client, FixedPoint, Roster, RoundConfig, Server, identity,
};
use crate::{FederatedError, NamedTensors};

/// What a secure sum gave.
#[derive(Clone, Debug)]
pub struct SecureMean {
    /// Mean of the updates.
    pub mean: NamedTensors,
    /// Bytes of all messages from clients.
    pub bytes_up: u64,
    /// Bytes of all messages to clients.
    pub bytes_down: u64,
}

/// A sum of integer vectors modulo `2^bits`, with the protocol's bytes.
#[derive(Clone, Debug)]
pub struct IntegerSum {
    /// The sum.
    pub values: Vec<u32>,
    /// Bytes of all messages from clients.
    pub bytes_up: u64,
    /// Bytes of all messages to clients.
    pub bytes_down: u64,
}

/// Sum of `inputs` modulo `2^bits`, as the coordinator of a secure aggregation learns it. `session` and `round` must never be used twice
/// together; signature keys are made anew for each call.
///
/// # Errors
/// [`FederatedError::Protection`] when there are fewer than three clients.
pub fn sum(
    inputs: Vec<Vec<u32>>,
    bits: u32,
    session: [u8; 16],
    round: u64,
) -> Result<IntegerSum, FederatedError> {
    let dimension = inputs.first().map_or(0, Vec::len);
    let keys = (0..inputs.len())
        .map(|_| identity())
        .collect::<Result<Vec<_>, _>>()?;
    let roster = Roster::new(
        keys.iter()
            .enumerate()
            .map(|(i, k)| (i as u32, k.verifying_key())),
    );
    let config = RoundConfig::complete(session, round, dimension, bits, &roster);
    let mut clients = Vec::with_capacity(inputs.len());
    for (i, (input, key)) in inputs.into_iter().zip(keys).enumerate() {
        clients.push(Client::new(
            config.clone(),
            roster.clone(),
            i as u32,
            key,
            input,
        )?);
    }
    let mut server = Server::new(config, roster)?;
    let (mut up, mut down) = (0u64, 0u64);
    for c in &mut clients {
        let message = c.advertise()?;
        up += message.len() as u64;
        server.receive(&message)?;
    }
    for _ in 0..4 {
        for (to, message) in server.advance()? {
            down += message.len() as u64;
            let Some(client) = clients.iter_mut().find(|c| c.id() == to) else {
                continue;
            };
            let answer = client.receive(&message)?;
            up += answer.len() as u64;
            server.receive(&answer)?;
        }
    }
    Ok(IntegerSum {
        values: server.finish()?.values,
        bytes_up: up,
        bytes_down: down,
    })
}

/// Mean of `updates`, none of a norm above `bound`, by [`sum`] of their fixed-point values.
///
/// # Errors
/// [`FederatedError::Protection`] when there are fewer than three clients or `bits` are too few for them.
pub fn mean(
    updates: &[NamedTensors],
    bound: f64,
    bits: u32,
    session: [u8; 16],
    round: u64,
) -> Result<SecureMean, FederatedError> {
    let like = updates.first().cloned().unwrap_or_default();
    let codec = FixedPoint::new(bits, bound, updates.len())?;
    let inputs = updates
        .iter()
        .map(|u| {
            like.check_layout(u, "summing updates securely")?;
            Ok(codec.encode(&u.flatten())?)
        })
        .collect::<Result<Vec<_>, FederatedError>>()?;
    let sum = sum(inputs, bits, session, round)?;
    let n = updates.len();
    let mean: Vec<f32> = codec
        .decode_sum(&sum.values, n)?
        .into_iter()
        .map(|x| (x / n as f64) as f32)
        .collect();
    Ok(SecureMean {
        mean: like.unflatten(&mean)?,
        bytes_up: sum.bytes_up,
        bytes_down: sum.bytes_down,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_is_that_of_the_updates_up_to_a_step_and_does_not_depend_on_keys() {
        let updates: Vec<NamedTensors> = (0..5)
            .map(|i| {
                let mut t = NamedTensors::new();
                let v = (0..300)
                    .map(|j| ((i * 37 + j * 11) % 101) as f32 / 101.0 - 0.5)
                    .collect();
                t.insert("u", &[300], v).unwrap();
                t
            })
            .collect();
        let a = mean(&updates, 1.0, 24, [1; 16], 3).unwrap();
        let b = mean(&updates, 1.0, 24, [2; 16], 9).unwrap();
        assert_eq!(a.mean, b.mean);
        for (j, x) in a.mean.flatten().iter().enumerate() {
            let want: f32 = updates.iter().map(|u| u.flatten()[j]).sum::<f32>() / 5.0;
            assert!((x - want).abs() < 1e-5);
        }
        assert!(a.bytes_up > 5 * 300 * 3 && a.bytes_down > 0);
        assert!(mean(&updates[..2], 1.0, 24, [1; 16], 3).is_err());
        assert!(
            mean(&updates, 0.1, 24, [1; 16], 3)
                .unwrap_err()
                .to_string()
                .contains("clip")
        );
    }
}
