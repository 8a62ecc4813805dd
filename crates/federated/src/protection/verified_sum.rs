//! Sums by two aggregators of which neither sees an update, while both verify that every update has the norm it may have: Prio3 (draft-irtf-cfrg-vdaf;
//! Corrigan-Gibbs and Boneh, *Prio*, NSDI 2017) by the `prio` crate, with its fixed-point vectors of bounded Euclidean norm.
//!
//! ```text
//! client       x / bound in 16-bit fixed point, split into two shares that are random by themselves, and a proof that |x| <= bound, split too
//! aggregators  each checks its share of the proof and tells the other one short message; an update that fails is left out and named
//! collector    sum of accepted updates = share of the first aggregator + share of the second
//! ```
//!
//! Where a secure sum believes every client within a modulus, here a client that sends more than its bound is found without anybody looking at what it sent.
//!
//! **Assumptions.** The two aggregators do not collude; they share a verification key that no client knows; for correctness of the sum both follow the protocol
//! (an aggregator that does not can spoil it, but learns nothing). **Not promised:** that an update within the bound is sensible, privacy of the sum
//! itself, and who a client is (sign the messages).
//!
//! **Cost.** A coordinate takes 16 field elements of 16 bytes in the first aggregator's message; the second's is a seed.
//!
//! ```
//! use tacit_federated::protection::verified_sum::VerifiedSum;
//! let scheme = VerifiedSum::new(3, 1.0, b"run 7, round 1").unwrap();
//! let reports = [[0.5, 0.0, -0.5], [0.25, 0.5, 0.0]].map(|x| scheme.report(&x).unwrap());
//! let out = scheme.sum(&reports).unwrap();
//! assert!(out.rejected.is_empty() && (out.sum[0] - 0.75).abs() < 1e-3);
//! assert!(scheme.report(&[1.0, 1.0, 0.0]).is_err());
//! ```

use fixed::types::I1F15;
use prio::codec::{Encode, ParameterizedDecode};
use prio::vdaf::prio3::{
    Prio3FixedPointBoundedL2VecSum, Prio3InputShare, Prio3PrepareMessage, Prio3PrepareShare,
    Prio3PublicShare,
};
use prio::vdaf::{Aggregatable, Aggregator as _, Client as _, Collector as _, PrepareTransition};

use super::ProtectionError;

/// Name of the stage in errors.
const STAGE: &str = "verified sum";
/// Fixed-point steps of the bound.
const STEPS: f64 = 32_768.0;
/// Bytes of a nonce.
const NONCE: usize = 16;
/// Bytes of the aggregators' verification key.
const KEY: usize = 32;

type Scheme = Prio3FixedPointBoundedL2VecSum<I1F15>;
type State = <Scheme as prio::vdaf::Aggregator<KEY, NONCE>>::PrepareState;
type Total = <Scheme as prio::vdaf::Vdaf>::AggregateShare;

/// A sum of vectors of one dimension and bound.
#[derive(Clone, Debug)]
pub struct VerifiedSum {
    scheme: Scheme,
    dimension: usize,
    bound: f64,
    context: Vec<u8>,
}

/// What a client sends: a message to each aggregator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report(pub [Vec<u8>; 2]);

/// A sum, and whose updates are in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Verified {
    /// Sum of the accepted vectors.
    pub sum: Vec<f64>,
    /// Number of vectors in the sum.
    pub accepted: usize,
    /// Places of the reports that were refused: malformed, or not of the norm that they may have.
    pub rejected: Vec<usize>,
    /// Bytes that the aggregators sent each other.
    pub bytes_between: u64,
}

/// One of the two aggregators.
#[derive(Debug)]
pub struct Aggregator<'a> {
    of: &'a VerifiedSum,
    index: usize,
    key: [u8; KEY],
    total: Total,
}

/// An update that an aggregator has read and not yet accepted.
#[derive(Debug)]
pub struct Pending(State);

fn refused(problem: impl std::fmt::Display, remedy: &'static str) -> ProtectionError {
    ProtectionError::input(STAGE, problem.to_string(), remedy)
}

fn malformed(bytes: &[u8], problem: impl std::fmt::Display) -> ProtectionError {
    ProtectionError::Malformed {
        stage: STAGE,
        bytes: bytes.len(),
        problem: problem.to_string(),
    }
}

fn random<const N: usize>() -> Result<[u8; N], ProtectionError> {
    let mut bytes = [0u8; N];
    getrandom::fill(&mut bytes).map_err(|e| refused(format!("no randomness: {e}"), "try again"))?;
    Ok(bytes)
}

impl VerifiedSum {
    /// Sums of vectors of `dimension` values and a norm of at most `bound`. `context` binds reports to one round of one run.
    ///
    /// # Errors
    /// [`ProtectionError::Setting`] for a dimension or bound out of range.
    pub fn new(dimension: usize, bound: f64, context: &[u8]) -> Result<Self, ProtectionError> {
        let setting = |name, found: String, expected: &str| {
            ProtectionError::setting(STAGE, name, found, expected, "set the clip stage's norm")
        };
        if !(bound > 0.0 && bound.is_finite()) {
            return Err(setting("bound", bound.to_string(), "a positive number"));
        }
        if dimension == 0 {
            return Err(setting("dimension", "0".into(), "at least 1"));
        }
        let scheme = Scheme::new_fixedpoint_boundedl2_vec_sum(2, dimension)
            .map_err(|e| setting("dimension", format!("{dimension} ({e})"), "at least 1"))?;
        Ok(Self {
            scheme,
            dimension,
            bound,
            context: context.to_vec(),
        })
    }

    /// A client's report of its vector.
    ///
    /// # Errors
    /// [`ProtectionError::Input`] for another dimension, a value that is not finite, or a norm above the bound.
    pub fn report(&self, values: &[f32]) -> Result<Report, ProtectionError> {
        let norm = values
            .iter()
            .map(|v| f64::from(*v).powi(2))
            .sum::<f64>()
            .sqrt();
        if values.len() != self.dimension || !norm.is_finite() || norm > self.bound * (1.0 + 1e-6) {
            return Err(refused(
                format!(
                    "{} values of norm {norm}, expected {} of norm at most {}",
                    values.len(),
                    self.dimension,
                    self.bound
                ),
                "clip updates to the bound before they are summed",
            ));
        }
        let factor = self.room() / self.bound;
        let fixed: Vec<I1F15> = values
            .iter()
            .map(|&v| {
                let steps = (f64::from(v) * factor * STEPS).round();
                I1F15::saturating_from_num(steps / STEPS)
            })
            .collect();
        let nonce: [u8; NONCE] = random()?;
        let (public, shares) = self
            .scheme
            .shard(&self.context, &fixed, &nonce)
            .map_err(|e| refused(e, "report this"))?;
        let encoded = |e: &dyn Fn(&mut Vec<u8>) -> Result<(), prio::codec::CodecError>| {
            let mut bytes = Vec::new();
            e(&mut bytes).map_err(|e| refused(e, "report this"))?;
            Ok::<_, ProtectionError>(bytes)
        };
        let public = encoded(&|b| public.encode(b))?;
        let message = |share: &Prio3InputShare<_, KEY>| {
            let mut m = nonce.to_vec();
            m.extend((public.len() as u32).to_le_bytes());
            m.extend(&public);
            m.extend(encoded(&|b| share.encode(b))?);
            Ok::<_, ProtectionError>(m)
        };
        match shares.as_slice() {
            [first, second] => Ok(Report([message(first)?, message(second)?])),
            other => Err(refused(format!("{} shares", other.len()), "report this")),
        }
    }

    /// How much smaller than the bound vectors are made, so that rounding each coordinate by half a step cannot lift the norm above it.
    fn room(&self) -> f64 {
        1.0 - 1e-6 - (self.dimension as f64).sqrt() / STEPS
    }

    /// The sum, with both aggregators in this process; they exchange nothing but the protocol's messages.
    ///
    /// # Errors
    /// [`ProtectionError::Input`] without a single accepted report.
    pub fn sum(&self, reports: &[Report]) -> Result<Verified, ProtectionError> {
        let key = random()?;
        let (mut first, mut second) = (
            Aggregator::new(self, 0, key)?,
            Aggregator::new(self, 1, key)?,
        );
        let (mut rejected, mut bytes_between) = (Vec::new(), 0);
        for (place, Report([to_first, to_second])) in reports.iter().enumerate() {
            let mut verify = || {
                let (a, from_first) = first.begin(to_first)?;
                let (b, from_second) = second.begin(to_second)?;
                let verdict = first.verdict(&a, [&from_first, &from_second])?;
                bytes_between += (from_second.len() + verdict.len()) as u64;
                // Both read the verdict before either counts the update.
                let (a, b) = (first.accept(a, &verdict)?, second.accept(b, &verdict)?);
                Ok::<_, ProtectionError>((a, b))
            };
            match verify() {
                Ok((a, b)) => {
                    first.count(&a)?;
                    second.count(&b)?;
                }
                Err(_) => rejected.push(place),
            }
        }
        let accepted = reports.len() - rejected.len();
        if accepted == 0 {
            return Err(refused(
                format!("none of {} reports was accepted", reports.len()),
                "all clients must use the bound and round of this sum",
            ));
        }
        let sum = self
            .scheme
            .unshard(&(), [first.total, second.total], accepted)
            .map_err(|e| refused(e, "report this"))?;
        let factor = self.bound / self.room();
        Ok(Verified {
            sum: sum.into_iter().map(|x| x * factor).collect(),
            accepted,
            rejected,
            bytes_between,
        })
    }
}

impl<'a> Aggregator<'a> {
    /// Aggregator number `index` (0 or 1); both have the same `key`, which clients must not know.
    ///
    /// # Errors
    /// [`ProtectionError::Setting`] for another index.
    pub fn new(of: &'a VerifiedSum, index: usize, key: [u8; KEY]) -> Result<Self, ProtectionError> {
        if index > 1 {
            return Err(ProtectionError::setting(
                STAGE,
                "aggregator",
                index,
                "0 or 1",
                "there are two",
            ));
        }
        Ok(Self {
            of,
            index,
            key,
            total: of.scheme.aggregate_init(&()),
        })
    }

    /// Reads a client's message: what is kept until the verdict, and the message to the other aggregator.
    ///
    /// # Errors
    /// [`ProtectionError::Malformed`].
    pub fn begin(&self, message: &[u8]) -> Result<(Pending, Vec<u8>), ProtectionError> {
        let scheme = &self.of.scheme;
        let bad = |e: &dyn std::fmt::Display| malformed(message, e);
        let short = || malformed(message, "it is too short");
        let (nonce, rest) = message.split_first_chunk::<NONCE>().ok_or_else(short)?;
        let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(short)?;
        let (public, share) = rest
            .split_at_checked(u32::from_le_bytes(*length) as usize)
            .ok_or_else(short)?;
        let public =
            Prio3PublicShare::get_decoded_with_param(scheme, public).map_err(|e| bad(&e))?;
        let share = Prio3InputShare::get_decoded_with_param(&(scheme, self.index), share)
            .map_err(|e| bad(&e))?;
        let (state, prepare) = scheme
            .prepare_init(
                &self.key,
                &self.of.context,
                self.index,
                &(),
                nonce,
                &public,
                &share,
            )
            .map_err(|e| bad(&e))?;
        let out = prepare.get_encoded().map_err(|e| bad(&e))?;
        Ok((Pending(state), out))
    }

    /// Whether the two messages, the first aggregator's and the second's, prove the update's norm: then what both must read.
    ///
    /// # Errors
    /// [`ProtectionError::Malformed`] for messages that are none, [`ProtectionError::Input`] when the proof fails.
    pub fn verdict(
        &self,
        pending: &Pending,
        messages: [&[u8]; 2],
    ) -> Result<Vec<u8>, ProtectionError> {
        let shares = messages
            .into_iter()
            .map(|m| {
                Prio3PrepareShare::get_decoded_with_param(&pending.0, m)
                    .map_err(|e| malformed(m, e))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let message = self
            .of
            .scheme
            .prepare_shares_to_prepare_message(&self.of.context, &(), shares)
            .map_err(|e| {
                refused(
                    e,
                    "the client did not prove its update's norm: leave it out",
                )
            })?;
        message.get_encoded().map_err(|e| refused(e, "report this"))
    }

    /// This aggregator's share of the update, if the verdict is right.
    ///
    /// # Errors
    /// [`ProtectionError::Malformed`], [`ProtectionError::Input`].
    pub fn accept(
        &self,
        pending: Pending,
        verdict: &[u8],
    ) -> Result<<Scheme as prio::vdaf::Vdaf>::OutputShare, ProtectionError> {
        let message = Prio3PrepareMessage::get_decoded_with_param(&pending.0, verdict)
            .map_err(|e| malformed(verdict, e))?;
        let context = &self.of.context;
        match self.of.scheme.prepare_next(context, pending.0, message) {
            Ok(PrepareTransition::Finish(share)) => Ok(share),
            Ok(PrepareTransition::Continue(..)) => Err(refused("more rounds", "report this")),
            Err(e) => Err(refused(
                e,
                "the client did not prove its update's norm: leave it out",
            )),
        }
    }

    /// Adds an accepted share.
    ///
    /// # Errors
    /// [`ProtectionError::Input`] for a share of another dimension.
    pub fn count(
        &mut self,
        share: &<Scheme as prio::vdaf::Vdaf>::OutputShare,
    ) -> Result<(), ProtectionError> {
        self.total
            .accumulate(share)
            .map_err(|e| refused(e, "report this"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protection::ckks_aggregation::sample_update;
    use proptest::prelude::{prop, proptest};

    #[test]
    fn the_sum_is_right_up_to_its_steps() {
        let d = 700;
        let scheme = VerifiedSum::new(d, 0.5, b"round").unwrap();
        let updates: Vec<Vec<f32>> = (0..4)
            .map(|k| {
                let mut u = sample_update(k, d, 1.0);
                let norm = u.iter().map(|x| x * x).sum::<f32>().sqrt();
                u.iter_mut().for_each(|x| *x *= 0.5 / norm);
                u
            })
            .collect();
        let reports: Vec<Report> = updates.iter().map(|u| scheme.report(u).unwrap()).collect();
        let out = scheme.sum(&reports).unwrap();
        assert_eq!((out.accepted, out.rejected.len()), (4, 0));
        for i in 0..d {
            let want: f64 = updates.iter().map(|u| f64::from(u[i])).sum();
            assert!((out.sum[i] - want).abs() < 4.0 * 0.5 / 32_768.0, "{i}");
        }
        // The second aggregator's message is a seed, the first's 16 elements of 16 bytes a value and more.
        let [first, second] = &reports[0].0;
        assert!(first.len() > 256 * d && second.len() < 200);
        assert!(out.bytes_between < (4 * first.len() / 10) as u64);
    }

    #[test]
    fn whoever_sends_more_than_the_bound_is_found_and_left_out() {
        let scheme = VerifiedSum::new(40, 1.0, b"round").unwrap();
        let honest =
            |k: u32| -> Vec<f32> { (0..40).map(|i| ((i + k) % 5) as f32 / 40.0).collect() };
        let mut reports: Vec<Report> = (0..3).map(|k| scheme.report(&honest(k)).unwrap()).collect();
        let much = vec![1.1 / 40f32.sqrt(); 40];
        assert!(scheme.report(&much).is_err());
        // A client that proves the norm of one vector and sends shares of another: from the first aggregator's share of the zero vector one bit of
        // every coordinate is changed, which is a bit still, so that nothing but the norm is wrong.
        let mut lie = scheme.report(&[0.0; 40]).unwrap();
        let head = NONCE + 4 + u32::from_le_bytes(lie.0[0][16..20].try_into().unwrap()) as usize;
        for i in 0..40 {
            let at = head + 16 * (16 * i + 14);
            let element = u128::from_le_bytes(lie.0[0][at..at + 16].try_into().unwrap());
            lie.0[0][at..at + 16].copy_from_slice(&(element + 1).to_le_bytes());
        }
        reports.insert(1, lie.clone());
        let out = scheme.sum(&reports).unwrap();
        assert_eq!((out.accepted, out.rejected), (3, vec![1]));
        for i in 0..40 {
            let want: f64 = (0..3).map(|k| f64::from(honest(k)[i])).sum();
            assert!((out.sum[i] - want).abs() < 1e-3);
        }
        // One that is just inside is not.
        let most = vec![0.9999 / 40f32.sqrt(); 40];
        let all = scheme.sum(&[scheme.report(&most).unwrap()]).unwrap();
        assert!(all.rejected.is_empty());
        assert!(scheme.sum(&[lie]).is_err());
    }

    #[test]
    fn reports_of_another_round_or_mixed_with_others_are_left_out() {
        let scheme = VerifiedSum::new(8, 1.0, b"round 1").unwrap();
        let other = VerifiedSum::new(8, 1.0, b"round 2").unwrap();
        let x = [0.1f32; 8];
        let (a, b) = (scheme.report(&x).unwrap(), scheme.report(&x).unwrap());
        let mixed = Report([a.0[0].clone(), b.0[1].clone()]);
        let late = other.report(&x).unwrap();
        let out = scheme.sum(&[a.clone(), mixed, late]).unwrap();
        assert_eq!(out.rejected, [1, 2]);
        // A share by itself says nothing: two reports of one vector have nothing in common but their head's length.
        let same = a.0[0].iter().zip(&b.0[0]).filter(|(x, y)| x == y).count();
        assert!(same < a.0[0].len() / 50, "{same} of {}", a.0[0].len());
        assert!(
            VerifiedSum::new(8, f64::NAN, b"").is_err() && VerifiedSum::new(0, 1.0, b"").is_err()
        );
        assert!(scheme.report(&[0.1; 7]).is_err() && scheme.report(&[f32::NAN; 8]).is_err());
    }

    proptest! {
        #[test]
        fn noise_in_a_message_is_an_error_and_never_a_panic(
            at in prop::sample::select(vec![0usize, 1]),
            bytes in prop::collection::vec(0u8.., 0..400),
            flip in 0usize..4000,
        ) {
            let scheme = VerifiedSum::new(8, 1.0, b"round").unwrap();
            let a = Aggregator::new(&scheme, at, [7; KEY]).unwrap();
            let _ = a.begin(&bytes);
            let good = scheme.report(&[0.1; 8]).unwrap();
            let mut spoiled = good.clone();
            let i = flip % spoiled.0[at].len();
            spoiled.0[at][i] ^= 1;
            // What an aggregator does not use (its own half of the public part) may be changed and changes nothing; all else is found.
            let out = scheme.sum(&[good, spoiled]).unwrap();
            if out.rejected.is_empty() {
                assert!(i < 100 && out.sum.iter().all(|x| (x - 0.2).abs() < 1e-3));
            } else {
                assert_eq!(out.rejected, [1]);
            }
            let mut cut = scheme.report(&[0.1; 8]).unwrap().0[at].clone();
            cut.truncate(i);
            let _ = a.begin(&cut);
        }
    }
}
