//! A round's verified sum with all parties in this process: clients report, two aggregators verify and add, the coordinator joins their shares.

use rayon::prelude::*;

use super::secure::SecureMean;
use super::signer::Signer;
use crate::protection::verified_sum::{Report, VerifiedSum};
use crate::{FederatedError, NamedTensors};

/// Mean of `updates` (each with its client's number), each of which is proved to have a norm of at most `bound`.
///
/// # Errors
/// [`FederatedError::Protection`] for an update that cannot be reported, [`FederatedError::Format`] naming a client whose report was refused.
pub(super) fn mean(
    updates: &[(usize, NamedTensors)],
    session: [u8; 16],
    signer: Option<&Signer>,
    round: usize,
    bound: f64,
) -> Result<SecureMean, FederatedError> {
    let like = updates.first().map(|u| u.1.clone()).unwrap_or_default();
    let mut context = session.to_vec();
    context.extend((round as u64).to_le_bytes());
    let scheme = VerifiedSum::new(like.count(), bound, &context)?;
    let reports = updates
        .par_iter()
        .map(|(client, update)| {
            like.check_layout(update, "a verified sum")?;
            let report = scheme.report(&update.flatten())?;
            let Some(signer) = signer else {
                let bytes = report.0.iter().map(|m| m.len() as u64).sum();
                return Ok((report, bytes));
            };
            let (mut opened, mut bytes) = (Report::default(), 0);
            for (message, out) in report.0.iter().zip(&mut opened.0) {
                let sealed = signer.seal(*client, round, message)?;
                bytes += sealed.len() as u64;
                *out = signer.open(&sealed, *client, round)?.to_vec();
            }
            Ok((opened, bytes))
        })
        .collect::<Result<Vec<(Report, u64)>, FederatedError>>()?;
    let bytes_up: u64 = reports.iter().map(|r| r.1).sum();
    let reports: Vec<Report> = reports.into_iter().map(|r| r.0).collect();
    let sum = scheme.sum(&reports)?;
    if let Some(&place) = sum.rejected.first() {
        return Err(FederatedError::format(
            format!("report of client {}", updates[place].0),
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
