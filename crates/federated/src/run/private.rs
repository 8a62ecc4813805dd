//! A round that protects single examples: clipped gradients, distributed discrete Gaussian noise, secure sum, account.

use crate::config::NoiseSettings;
use crate::protection::privacy::distributed::DistributedGaussian;
use crate::protection::privacy::{Accounting, Event, Ledger, Mechanism, Unit, calibrate};
use crate::{FederatedError, NamedTensors};

/// The mechanism of a run, the same in all rounds.
#[derive(Clone, Debug)]
pub struct PrivateSum {
    /// Encoder of the noisy vectors.
    pub mechanism: DistributedGaussian,
    settings: NoiseSettings,
    clients: usize,
    deviation: f64,
    event: Event,
}

impl PrivateSum {
    /// The mechanism with which `rounds` rounds of `clients` clients stay inside the budget, `dimension` values each.
    ///
    /// An example changes its client's vector by at most `clip`; rounding both neighbours with the same randomness adds at most one step a
    /// coordinate, so the sensitivity is `clip / γ + √d` steps. The noise of all clients together has the standard deviation `z clip`.
    ///
    /// # Errors
    /// [`FederatedError::Protection`] for a budget that no noise meets or too few bits.
    pub fn new(
        settings: NoiseSettings,
        rounds: usize,
        clients: usize,
        dimension: usize,
        bits: u32,
        rotation_seed: [u8; 32],
    ) -> Result<Self, FederatedError> {
        let mut z = calibrate(
            Accounting::Rdp,
            settings.epsilon,
            settings.delta,
            1.0,
            rounds as u64,
        )?;
        // Rounding and the sum of discrete noises cost a little more than the continuous mechanism: raise the noise until it fits.
        for _ in 0..20 {
            let candidate = Self::with_noise(settings, z, clients, dimension, bits, rotation_seed)?;
            if candidate.ledger(rounds).is_ok() {
                return Ok(candidate);
            }
            z *= 1.01;
        }
        let candidate = Self::with_noise(settings, z, clients, dimension, bits, rotation_seed)?;
        candidate.ledger(rounds)?;
        Ok(candidate)
    }

    fn with_noise(
        settings: NoiseSettings,
        z: f64,
        clients: usize,
        dimension: usize,
        bits: u32,
        rotation_seed: [u8; 32],
    ) -> Result<Self, FederatedError> {
        let bound = settings.clip * settings.examples as f64;
        let multiplier = z / settings.examples as f64;
        let mechanism = DistributedGaussian::new(
            dimension,
            bound,
            multiplier,
            bits,
            clients,
            clients,
            rotation_seed,
        )?;
        let n = clients as f64;
        let d = mechanism.encoded_len() as f64;
        let step = mechanism.granularity();
        let sigma = z * settings.clip / n.sqrt() / step;
        let sensitivity = settings.clip / step + d.sqrt();
        let tau: f64 = 10.0
            * (1..clients)
                .map(|k| {
                    let k = k as f64;
                    (-2.0 * (std::f64::consts::PI * sigma).powi(2) * k / (k + 1.0)).exp()
                })
                .sum::<f64>();
        let epsilon = (sensitivity.powi(2) / (n * sigma * sigma) + tau * d / 2.0)
            .sqrt()
            .min(sensitivity / (n.sqrt() * sigma) + tau * d.sqrt());
        Ok(Self {
            mechanism,
            settings,
            clients,
            deviation: z * settings.clip,
            event: Event {
                mechanism: Mechanism::Concentrated {
                    rho: epsilon * epsilon / 2.0,
                },
                sampling: 1.0,
                steps: 1,
            },
        })
    }

    /// Standard deviation of the noise of all clients together in a coordinate of the sum.
    pub fn deviation(&self) -> f64 {
        self.deviation
    }

    /// Length of the step that the server rule is given.
    pub fn rate(&self) -> f64 {
        self.settings.rate
    }

    /// Epsilon after `rounds` rounds.
    ///
    /// # Errors
    /// [`FederatedError::Protection`] when the budget does not allow that many.
    pub fn ledger(&self, rounds: usize) -> Result<f64, FederatedError> {
        let mut ledger = Ledger::new(
            Unit::Example,
            Accounting::Rdp,
            self.settings.epsilon,
            self.settings.delta,
        )?;
        let event = Event {
            steps: rounds as u64,
            ..self.event
        };
        Ok(ledger.admit(event)?.epsilon)
    }

    /// What a client masks: its vector with its part of the noise, from fresh randomness of the operating system.
    ///
    /// # Errors
    /// [`FederatedError::Protection`] when the vector does not fit or there is no randomness.
    pub fn encode(&self, descent: &NamedTensors) -> Result<Vec<u32>, FederatedError> {
        let mut secret = [0u8; 32];
        getrandom::fill(&mut secret).map_err(|e| {
            FederatedError::format(
                "randomness of the operating system",
                e.to_string(),
                "try again",
            )
        })?;
        Ok(self.mechanism.encode(&descent.flatten(), secret)?)
    }

    /// The noisy mean gradient of an example, from the sum.
    ///
    /// # Errors
    /// [`FederatedError::Protection`] when the sum does not fit.
    pub fn decode(&self, sum: &[u32], like: &NamedTensors) -> Result<NamedTensors, FederatedError> {
        let mean = self.mechanism.decode_mean(sum, self.clients)?;
        let mut t = like.unflatten(&mean)?;
        t.scale(1.0 / self.settings.examples as f32);
        Ok(t)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_met_and_the_noise_is_what_it_should_be() {
        let settings = NoiseSettings {
            epsilon: 6.0,
            delta: 1e-5,
            clip: 0.5,
            examples: 32,
            rate: 1.0,
        };
        let p = PrivateSum::new(settings, 12, 6, 1000, 24, [3; 32]).unwrap();
        let spent: Vec<f64> = (1..=12).map(|r| p.ledger(r).unwrap()).collect();
        assert!(spent.windows(2).all(|w| w[0] < w[1]));
        assert!(spent[11] <= 6.0 && spent[11] > 5.5, "{}", spent[11]);
        assert!(p.ledger(14).is_err());
        // All clients send zeros: what comes out is noise of standard deviation z clip / (clients examples).
        let mut zero = NamedTensors::new();
        zero.insert("g", &[1000], vec![0.0; 1000]).unwrap();
        let mut sum = vec![0u32; p.mechanism.encoded_len()];
        for _ in 0..6 {
            for (s, v) in sum.iter_mut().zip(p.encode(&zero).unwrap()) {
                *s = s.wrapping_add(v) & (u32::MAX >> 8);
            }
        }
        let noise = p.decode(&sum, &zero).unwrap();
        let z = calibrate(Accounting::Rdp, 6.0, 1e-5, 1.0, 12).unwrap();
        let want = z * 0.5 / (6.0 * 32.0) * 1000f64.sqrt();
        assert!(
            (noise.norm() / want - 1.0).abs() < 0.2,
            "{} {want}",
            noise.norm()
        );
    }
}
