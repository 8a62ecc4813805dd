//! Aggregation under CKKS: clients encrypt under a key that they share, the coordinator adds ciphertexts that it cannot open.
//!
//! An addition needs no slots, no levels and no evaluation keys: values are put on the coefficients of a polynomial modulo one prime `q_0`, `N` to a
//! ciphertext, and the uniform half of each ciphertext travels as a seed. With scale `2^l` a value costs `log2 q_0` bits upwards and twice
//! that downwards (a sum has no seed). [`Selection`] encrypts only the most sensitive fraction (Jin et al., *FedML-HE*, 2023) and leaves the rest to
//! another stage.
//!
//! **Trust.** All clients hold one secret key, which one of them makes and hands to the others over a channel that the coordinator does not see; the
//! coordinator must not collude with any client, or it opens all updates. That is the model of FedML-HE and of NVIDIA FLARE; against such
//! collusion use [`crate::protection::secure_aggregation`]. Ring-LWE at 128 bits (checked by `tacit_ckks::Parameters::new`). The coordinator is
//! trusted to add: nothing shows a client that the sum is of the right ciphertexts. Decrypted sums carry the noise of the encryptions, which
//! depends on the key (Li and Micciancio, ePrint 2020/1533): they stay with the clients, or get differential privacy's noise before
//! the coordinator sees them, which hides it.
//!
//! ```
//! use tacit_federated::protection::ckks_aggregation::{CkksAggregation, CkksSum};
//! let scheme = CkksAggregation::new(5000, 8, 1.0).unwrap();
//! let key = scheme.generate_key();
//! let mut sum = CkksSum::new(&scheme);
//! for client in 0..3 {
//!     let update = vec![0.1 * client as f32; 5000];
//!     sum.add(&scheme.encrypt(&update, &key).unwrap()).unwrap();
//! }
//! let mean = scheme.decrypt_mean(&sum.finish().unwrap(), &key).unwrap();
//! assert!((mean[4999] - 0.1).abs() < 1e-6);
//! ```

mod selection;

pub use selection::Selection;

use super::ProtectionError;
use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};
use rayon::prelude::*;
use std::sync::Arc;
use tacit_ckks::encrypt::{decrypt, encrypt_symmetric_seeded};
use tacit_ckks::wire::{Reader, Writer};
use tacit_ckks::{
    Ciphertext, CkksError, Context, Encoder, Evaluator, KeyGenerator, KeyId, Parameters,
    ParametersLiteral, SecretKey, SeededCiphertext,
};

/// Name of the stage in errors.
const STAGE: &str = "encrypted aggregation";
/// `log2 N`.
const LOG_N: u32 = 13;
/// Bits of the single modulus.
const Q_BITS: u32 = 40;

impl From<CkksError> for ProtectionError {
    fn from(error: CkksError) -> Self {
        Self::Encryption(error.to_string())
    }
}

/// The parameters of an encrypted sum, the same for clients and coordinator.
pub struct CkksAggregation {
    ctx: Arc<Context>,
    dimension: usize,
    clients: usize,
    bound: f64,
    scale: f64,
}

impl CkksAggregation {
    /// Sums of up to `clients` vectors of `dimension` values in `[−bound, bound]`: `N = 2^13`, one prime of 40 bits and one special prime that is not
    /// used, 80 of the 214 bits that are safe at this dimension.
    ///
    /// # Errors
    /// [`ProtectionError::Setting`] for values out of range.
    pub fn new(dimension: usize, clients: usize, bound: f64) -> Result<Self, ProtectionError> {
        if dimension == 0 || dimension > 1 << 32 {
            return Err(ProtectionError::setting(
                STAGE,
                "dimension",
                dimension,
                "1 to 2^32",
                "send the update in parts",
            ));
        }
        if clients == 0 || clients > 1 << 12 {
            return Err(ProtectionError::setting(
                STAGE,
                "clients",
                clients,
                "1 to 4096",
                "add in a tree of coordinators",
            ));
        }
        if !(bound > 0.0 && bound.is_finite()) {
            return Err(ProtectionError::setting(
                STAGE,
                "bound",
                bound,
                "a positive number",
                "the clipping norm is a bound on every coordinate",
            ));
        }
        let literal = ParametersLiteral {
            q0_bits: Q_BITS,
            special_bits: vec![Q_BITS],
            small_log_n: LOG_N,
            ephemeral_weight: 0,
            ..ParametersLiteral::levelled(LOG_N, 0, 1)
        };
        let ctx = Context::new(Parameters::new(literal)?)?;
        // |Σ| ≤ clients · bound · scale + noise < q/2; a factor of two is left for the noise.
        let scale = (ctx.params().log_q_at(0) - 2.0).exp2() / (clients as f64 * bound);
        Ok(Self {
            ctx,
            dimension,
            clients,
            bound,
            scale,
        })
    }

    /// Values in a vector.
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// The context: parameters and tables.
    pub fn context(&self) -> &Arc<Context> {
        &self.ctx
    }

    /// Ciphertexts in a vector.
    pub fn ciphertexts(&self) -> usize {
        self.dimension.div_ceil(self.ctx.n())
    }

    /// Standard deviation of a decrypted sum of `clients` vectors about the true one: rounding of each (`1/12`) and encryption noise of each
    /// (`3.2²`), over the scale.
    pub fn noise(&self, clients: usize) -> f64 {
        ((3.2f64 * 3.2 + 1.0 / 12.0) * clients as f64).sqrt() / self.scale
    }

    /// A fresh key from the operating system's randomness, for one client to make and the others to receive.
    pub fn generate_key(&self) -> SecretKey {
        KeyGenerator::new(self.ctx.clone()).secret()
    }

    /// A key as bytes, for the channel between clients. Secret.
    ///
    /// # Errors
    /// [`ProtectionError::Encryption`] for a key of other parameters.
    pub fn export_key(&self, key: &SecretKey) -> Result<Vec<u8>, ProtectionError> {
        let mut bytes = Vec::new();
        Writer::new(&self.ctx, key.id(), &mut bytes).write(key)?;
        Ok(bytes)
    }

    /// The inverse of [`Self::export_key`].
    ///
    /// # Errors
    /// [`ProtectionError::Encryption`] for bytes that are not a key of these parameters.
    pub fn import_key(&self, bytes: &[u8]) -> Result<SecretKey, ProtectionError> {
        Ok(Reader::new(&self.ctx, None, bytes).read()?)
    }

    /// A client's encrypted vector.
    ///
    /// # Errors
    /// [`ProtectionError::Input`] for another length or a value outside the bound: nothing is clipped silently.
    pub fn encrypt(&self, values: &[f32], key: &SecretKey) -> Result<Vec<u8>, ProtectionError> {
        if values.len() != self.dimension {
            return Err(ProtectionError::input(
                STAGE,
                format!("{} values, the sum has {}", values.len(), self.dimension),
                "all clients must train the same tensors",
            ));
        }
        if let Some(i) = values
            .iter()
            .position(|&x| x.is_nan() || f64::from(x).abs() > self.bound)
        {
            return Err(ProtectionError::input(
                STAGE,
                format!("value {i} is {}, outside ±{}", values[i], self.bound),
                "clip the update first",
            ));
        }
        let mut seed = [0; 32];
        getrandom::fill(&mut seed)
            .map_err(|e| ProtectionError::Encryption(format!("no randomness: {e}")))?;
        let encoder = Encoder::new(self.ctx.clone());
        let frames: Vec<Vec<u8>> = values
            .par_chunks(self.ctx.n())
            .enumerate()
            .map(|(i, chunk)| {
                let mut rng = ChaCha20Rng::from_seed(seed);
                rng.set_stream(i as u64);
                let coefficients: Vec<f64> = chunk.iter().map(|&x| f64::from(x)).collect();
                let plaintext = encoder.encode_coeffs(&coefficients, self.scale, 0)?;
                let ciphertext = encrypt_symmetric_seeded(&plaintext, key, &mut rng)?;
                let mut bytes = Vec::new();
                Writer::new(&self.ctx, key.id(), &mut bytes).write(&ciphertext)?;
                Ok(bytes)
            })
            .collect::<Result<_, CkksError>>()?;
        seed.fill(0);
        Ok(frames.concat())
    }

    /// The mean of the vectors in a sum.
    ///
    /// # Errors
    /// [`ProtectionError::Encryption`] for bytes that are not a sum under this key, [`ProtectionError::Input`] if the sum is beyond the bound of its
    /// clients, which honest ones cannot cause.
    pub fn decrypt_mean(&self, sum: &[u8], key: &SecretKey) -> Result<Vec<f32>, ProtectionError> {
        let malformed = |problem: &str| ProtectionError::Malformed {
            stage: STAGE,
            bytes: sum.len(),
            problem: problem.into(),
        };
        let (head, mut rest) = sum
            .split_first_chunk::<4>()
            .ok_or_else(|| malformed("shorter than its head"))?;
        let clients = u32::from_le_bytes(*head) as usize;
        if clients == 0 || clients > self.clients {
            return Err(malformed("it says it is a sum of no clients or too many"));
        }
        let mut ciphertexts: Vec<Ciphertext> = Vec::with_capacity(self.ciphertexts());
        for _ in 0..self.ciphertexts() {
            ciphertexts.push(Reader::new(&self.ctx, Some(key.id()), &mut rest).read()?);
        }
        if !rest.is_empty() {
            return Err(malformed("bytes follow its end"));
        }
        let encoder = Encoder::new(self.ctx.clone());
        let most = clients as f64 * self.bound + 8.0 * self.noise(clients);
        let decrypted: Vec<Vec<f64>> = ciphertexts
            .par_iter()
            .map(|c| {
                self.check(c.level, c.scale)?;
                Ok(encoder.decode_coeffs(&decrypt(c, key)?)?)
            })
            .collect::<Result<_, ProtectionError>>()?;
        let mut values = decrypted.concat();
        values.truncate(self.dimension);
        if let Some(i) = values.iter().position(|x| x.abs() > most) {
            return Err(ProtectionError::input(
                STAGE,
                format!(
                    "value {i} of the sum is beyond the bound of all {clients} clients together"
                ),
                "a client sent values outside the bound or uses another key: discard the round",
            ));
        }
        Ok(values
            .into_iter()
            .map(|x| (x / clients as f64) as f32)
            .collect())
    }

    fn check(&self, level: usize, scale: f64) -> Result<(), ProtectionError> {
        if level != 0 || scale != self.scale {
            return Err(ProtectionError::Encryption(format!(
                "a ciphertext of level {level} and scale {scale:e}, this sum has level 0 and scale {:e}: the sender has another bound or number of clients",
                self.scale
            )));
        }
        Ok(())
    }
}

/// The coordinator's running sum. It holds no key.
pub struct CkksSum<'a> {
    scheme: &'a CkksAggregation,
    key: Option<KeyId>,
    sum: Vec<Ciphertext>,
    clients: usize,
}

impl<'a> CkksSum<'a> {
    /// An empty sum.
    pub fn new(scheme: &'a CkksAggregation) -> Self {
        Self {
            scheme,
            key: None,
            sum: Vec::new(),
            clients: 0,
        }
    }

    /// Clients in the sum.
    pub fn clients(&self) -> usize {
        self.clients
    }

    /// Adds a client's vector. A refused one changes nothing.
    ///
    /// # Errors
    /// [`ProtectionError::Encryption`] for bytes of other parameters or another key than those before, [`ProtectionError::Malformed`] for bytes
    /// after the end, [`ProtectionError::Setting`] when the sum is full.
    pub fn add(&mut self, bytes: &[u8]) -> Result<(), ProtectionError> {
        if self.clients == self.scheme.clients {
            return Err(ProtectionError::setting(
                STAGE,
                "clients",
                self.clients + 1,
                format!("at most {}", self.scheme.clients),
                "plan the sum for more clients",
            ));
        }
        let ctx = &self.scheme.ctx;
        let mut rest = bytes;
        let mut reader = Reader::new(ctx, self.key, &mut rest);
        let mut seeded: Vec<SeededCiphertext> = Vec::with_capacity(self.scheme.ciphertexts());
        for _ in 0..self.scheme.ciphertexts() {
            let next: SeededCiphertext = reader.read()?;
            self.scheme.check(next.level, next.scale)?;
            seeded.push(next);
        }
        let key = reader.key_id();
        if !rest.is_empty() {
            return Err(ProtectionError::Malformed {
                stage: STAGE,
                bytes: bytes.len(),
                problem: format!("{} bytes follow its end", rest.len()),
            });
        }
        // Two ciphertexts with one seed under one key give away the difference of their messages.
        let mut seeds: Vec<[u8; 32]> = seeded.iter().map(|c| c.seed).collect();
        seeds.sort_unstable();
        if seeds.windows(2).any(|w| w[0] == w[1]) {
            return Err(ProtectionError::Encryption(
                "two ciphertexts of a client have one seed; its randomness is broken".into(),
            ));
        }
        let expanded: Vec<Ciphertext> = seeded
            .par_iter()
            .map(|c| ctx.expand(c))
            .collect::<Result<_, CkksError>>()?;
        if self.sum.is_empty() {
            self.sum = expanded;
        } else {
            let evaluator = Evaluator::new(ctx.clone());
            self.sum
                .par_iter_mut()
                .zip(&expanded)
                .try_for_each(|(s, c)| evaluator.add_assign(s, c))?;
        }
        self.key = key;
        self.clients += 1;
        Ok(())
    }

    /// The sum for the clients: their number and the ciphertexts.
    ///
    /// # Errors
    /// [`ProtectionError::TooFew`] for an empty sum.
    pub fn finish(&self) -> Result<Vec<u8>, ProtectionError> {
        let Some(key) = self.key.filter(|_| self.clients > 0) else {
            return Err(ProtectionError::TooFew {
                stage: STAGE,
                doing: "sent an encrypted update",
                found: 0,
                needed: 1,
            });
        };
        let mut out = (self.clients as u32).to_le_bytes().to_vec();
        let frames: Vec<Vec<u8>> = self
            .sum
            .par_iter()
            .map(|c| {
                let mut bytes = Vec::new();
                Writer::new(&self.scheme.ctx, key, &mut bytes).write(c)?;
                Ok(bytes)
            })
            .collect::<Result<_, CkksError>>()?;
        for frame in frames {
            out.extend(frame);
        }
        Ok(out)
    }
}

/// A random vector for tests and measurements: uniform in `[−bound, bound]`, from a seed.
#[doc(hidden)]
pub fn sample_update(seed: u64, dimension: usize, bound: f32) -> Vec<f32> {
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    (0..dimension)
        .map(|_| (rng.next_u32() as f32 / u32::MAX as f32 * 2.0 - 1.0) * bound)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop, prop_assert, proptest};

    #[test]
    fn means_are_right_to_the_stated_noise_and_only_under_the_key() {
        let (d, n) = (20_000, 8);
        let scheme = CkksAggregation::new(d, n, 2.0).unwrap();
        assert!(!scheme.ctx.params().is_insecure());
        let key = scheme.generate_key();
        let shared = scheme
            .import_key(&scheme.export_key(&key).unwrap())
            .unwrap();
        let mut sum = CkksSum::new(&scheme);
        let updates: Vec<Vec<f32>> = (0..n as u64).map(|i| sample_update(i, d, 2.0)).collect();
        let mut bytes = 0;
        for (i, u) in updates.iter().enumerate() {
            let message = scheme
                .encrypt(u, if i % 2 == 0 { &key } else { &shared })
                .unwrap();
            bytes = message.len();
            sum.add(&message).unwrap();
        }
        assert!(
            bytes < scheme.ciphertexts() * scheme.ctx.n() * 4 * 3 / 2,
            "{bytes}"
        );
        let total = sum.finish().unwrap();
        let mean = scheme.decrypt_mean(&total, &shared).unwrap();
        let deviation = scheme.noise(n) / n as f64;
        let mut square = 0.0;
        for i in 0..d {
            let want: f64 = updates.iter().map(|u| f64::from(u[i])).sum::<f64>() / n as f64;
            let off = (f64::from(mean[i]) - want).abs();
            // The result itself is f32.
            assert!(off < 6.0 * deviation + 1.2e-7, "{i}: {off} {deviation}");
            square += off * off;
        }
        assert!((square / d as f64).sqrt() < 1e-7);
        assert!(scheme.decrypt_mean(&total, &scheme.generate_key()).is_err());
        assert!(
            sum.add(&scheme.encrypt(&updates[0], &key).unwrap())
                .is_err(),
            "full"
        );
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let scheme = CkksAggregation::new(100, 4, 1.0).unwrap();
        let key = scheme.generate_key();
        assert!(scheme.encrypt(&vec![0.0; 99], &key).is_err());
        let mut values = vec![0.5; 100];
        values[7] = 1.001;
        assert!(scheme.encrypt(&values, &key).is_err());
        values[7] = f32::NAN;
        assert!(scheme.encrypt(&values, &key).is_err());
        values[7] = 1.0;
        let good = scheme.encrypt(&values, &key).unwrap();
        let mut sum = CkksSum::new(&scheme);
        assert!(sum.finish().is_err());
        sum.add(&good).unwrap();
        let stranger = scheme.encrypt(&values, &scheme.generate_key()).unwrap();
        assert!(sum.add(&stranger).is_err());
        let other = CkksAggregation::new(100, 5, 1.0).unwrap();
        assert!(sum.add(&other.encrypt(&values, &key).unwrap()).is_err());
        assert_eq!(sum.clients(), 1);
        assert!((scheme.decrypt_mean(&sum.finish().unwrap(), &key).unwrap()[7] - 1.0).abs() < 1e-6);
    }

    proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(32))]
        #[test]
        fn outside_bytes_never_panic(at in any::<prop::sample::Index>(), flip in 1u8..=255, cut in any::<bool>(), noise: Vec<u8>) {
            let scheme = CkksAggregation::new(50, 4, 1.0).unwrap();
            let key = scheme.generate_key();
            let mut sum = CkksSum::new(&scheme);
            prop_assert!(sum.add(&noise).is_err());
            prop_assert!(scheme.decrypt_mean(&noise, &key).is_err());
            let mut message = scheme.encrypt(&[0.5; 50], &key).unwrap();
            let at = at.index(message.len());
            if cut { message.truncate(at) } else { message[at] ^= flip }
            // A changed residue is another ciphertext, which CKKS alone cannot tell; it must not panic, nor be taken for this key's at random.
            let _ = sum.add(&message);
        }
    }
}
