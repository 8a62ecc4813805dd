//! A round's verified sum with all parties in this process: clients report, two aggregators verify and add, the coordinator joins their shares.

use rayon::prelude::*;

use super::Run;
use super::client::Contribution;
use super::secure::SecureMean;
use crate::FederatedError;
use crate::protection::verified_sum::{Report, VerifiedSum};

impl Run {
    /// Mean of the contributions' updates, each of which is proved to have a norm of at most `bound`.
    ///
    /// # Errors
    /// [`FederatedError::Protection`] for an update that cannot be reported, [`FederatedError::Format`] naming a client whose report was refused.
    pub(super) fn verified_mean(
        &self,
        round: usize,
        contributions: &[Contribution],
        bound: f64,
    ) -> Result<SecureMean, FederatedError> {
        let like = &self.state.global.adapter;
        let mut context = self.session().to_vec();
        context.extend((round as u64).to_le_bytes());
        let scheme = VerifiedSum::new(like.count(), bound, &context)?;
        let reports = contributions
            .par_iter()
            .map(|c| {
                let report = scheme.report(&c.update.flatten())?;
                let Some(signer) = &self.signer else {
                    let bytes = report.0.iter().map(|m| m.len() as u64).sum();
                    return Ok((report, bytes));
                };
                let (mut opened, mut bytes) = (Report::default(), 0);
                for (message, out) in report.0.iter().zip(&mut opened.0) {
                    let sealed = signer.seal(c.client, round, message)?;
                    bytes += sealed.len() as u64;
                    *out = signer.open(&sealed, c.client, round)?.to_vec();
                }
                Ok((opened, bytes))
            })
            .collect::<Result<Vec<(Report, u64)>, FederatedError>>()?;
        let bytes_up: u64 = reports.iter().map(|r| r.1).sum();
        let reports: Vec<Report> = reports.into_iter().map(|r| r.0).collect();
        let sum = scheme.sum(&reports)?;
        if let Some(&place) = sum.rejected.first() {
            return Err(FederatedError::format(
                format!("report of client {}", contributions[place].client),
                "the aggregators refused it: it does not prove the norm that the clip stage allows",
                "leave this client out",
            ));
        }
        let n = sum.accepted as f64;
        let mean: Vec<f32> = sum.sum.iter().map(|x| (x / n) as f32).collect();
        Ok(SecureMean {
            mean: like.unflatten(&mean)?,
            bytes_up: bytes_up + sum.bytes_between,
            bytes_down: 0,
        })
    }
}
