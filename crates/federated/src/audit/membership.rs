//! Was this example in the training data?
//!
//! * **Loss threshold** (Yeom et al. 2018): the lower the loss, the more likely a member.
//! * **Likelihood ratio** (Carlini et al. 2022, LiRA, online form with Gaussian fits): shadow models trained with and without the example say how its
//!   loss is distributed either way; the score is the log ratio of the two densities at the observed loss. Here with a few shadow models.
//!
//! A measure near 0.5 AUC says that *these* attacks fail, not that nothing leaks; the bound comes from [`crate::protection::privacy`].

/// How well scores tell members from others.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Advantage {
    /// Probability that a random member scores above a random other (ties count half): 0.5 is chance.
    pub auc: f64,
    /// Share of members found when one percent of others is taken for members.
    pub true_positives_at_one_percent: f64,
}

/// Evaluates scores, higher meaning more likely a member. `None` if one side is empty.
pub fn advantage(members: &[f64], others: &[f64]) -> Option<Advantage> {
    if members.is_empty() || others.is_empty() {
        return None;
    }
    let mut sorted = others.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let below = |x: f64| {
        let less = sorted.partition_point(|&o| o < x);
        let equal = sorted.partition_point(|&o| o <= x) - less;
        less as f64 + equal as f64 / 2.0
    };
    let auc =
        members.iter().map(|&m| below(m)).sum::<f64>() / (members.len() * others.len()) as f64;
    // The threshold that at most one percent of the others exceed.
    let allowed = others.len() / 100;
    let threshold = sorted[others.len() - 1 - allowed];
    let found = members.iter().filter(|&&m| m > threshold).count();
    Some(Advantage {
        auc,
        true_positives_at_one_percent: found as f64 / members.len() as f64,
    })
}

/// The loss threshold attack: losses of members and of others under the model.
pub fn loss_threshold(members: &[f64], others: &[f64]) -> Option<Advantage> {
    let negate = |l: &[f64]| l.iter().map(|x| -x).collect::<Vec<_>>();
    advantage(&negate(members), &negate(others))
}

/// The likelihood ratio score of one example: `observed` its loss under the model, `with` and `without` its losses under shadow models trained with
/// and without it. The losses are taken as `ln(e^loss − 1)` (minus the logit of the right answer), which is nearly normal.
pub fn likelihood_ratio(observed: f64, with: &[f64], without: &[f64]) -> f64 {
    let logit = |loss: f64| loss.max(1e-12).exp_m1().max(1e-12).ln();
    let log_density = |values: &[f64]| -> f64 {
        let n = values.len().max(1) as f64;
        let logits: Vec<f64> = values.iter().map(|&l| logit(l)).collect();
        let mean = logits.iter().sum::<f64>() / n;
        let variance = logits.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n + 1e-2;
        -(logit(observed) - mean).powi(2) / (2.0 * variance) - 0.5 * variance.ln()
    };
    log_density(with) - log_density(without)
}

#[cfg(test)]
mod tests {
    use super::super::task::{Data, Random, SoftmaxTask};
    use super::*;
    use crate::protection::privacy::central::{GaussianNoise, clip};
    use crate::protection::privacy::{Accounting, Event, epsilon};

    #[test]
    fn scores_by_hand() {
        let a = advantage(&[2.0, 3.0], &[1.0, 2.0]).unwrap();
        assert_eq!(a.auc, (1.5 + 2.0) / 4.0);
        assert_eq!(a.true_positives_at_one_percent, 0.5);
        assert_eq!(loss_threshold(&[0.0], &[5.0]).unwrap().auc, 1.0);
        assert!(advantage(&[], &[1.0]).is_none());
        assert!(likelihood_ratio(0.1, &[0.1, 0.12, 0.09], &[2.0, 1.8, 2.2]) > 3.0);
        assert!(likelihood_ratio(2.0, &[0.1, 0.12, 0.09], &[2.0, 1.8, 2.2]) < -3.0);
    }

    /// Trains a model that can memorise (more features than examples): without noise the attacks succeed, with example-level differential privacy
    /// (clipped gradients, Gaussian noise) they do not.
    #[test]
    fn noise_takes_the_advantage_away() {
        let task = SoftmaxTask::new(120, 4, 6.0, 3);
        let pool = task.sample(160, &[], 11);
        let take = |which: &dyn Fn(usize) -> bool| -> Data {
            let mut d = Data::default();
            for i in (0..pool.len()).filter(|&i| which(i)) {
                d.inputs.extend(&pool.inputs[i * 120..(i + 1) * 120]);
                d.labels.push(pool.labels[i]);
            }
            d
        };
        let (steps, sigma) = (30, 20.0);
        let train = |data: &Data, noise: Option<u8>| -> Vec<f32> {
            let zero = vec![0.0; task.parameters()];
            let Some(seed) = noise else {
                return task.train(&zero, data, 60, 0.05);
            };
            let mut noise = GaussianNoise::from_known_seed([seed; 32]);
            let mut model = zero;
            for _ in 0..steps {
                let mut sum = vec![0.0f32; model.len()];
                for (x, &y) in data.inputs.chunks_exact(120).zip(&data.labels) {
                    let mut g = task.gradient(&model, x, y);
                    clip(&mut g, 1.0).unwrap();
                    sum.iter_mut().zip(&g).for_each(|(s, g)| *s += g);
                }
                noise.add(&mut sum, sigma);
                model.iter_mut().zip(&sum).for_each(|(w, g)| *w -= 0.01 * g);
            }
            model
        };
        let members: Vec<bool> = {
            let mut r = Random::new(5);
            (0..pool.len()).map(|_| r.unit() < 0.5).collect()
        };
        let shadows: Vec<Vec<bool>> = (0..12)
            .map(|s| {
                let mut r = Random::new(100 + s);
                (0..pool.len()).map(|_| r.unit() < 0.5).collect()
            })
            .collect();
        let attack = |noise: bool| -> (Advantage, Advantage) {
            let observed = task.losses(&train(&take(&|i| members[i]), noise.then_some(1)), &pool);
            let shadow_losses: Vec<Vec<f64>> = shadows
                .iter()
                .enumerate()
                .map(|(k, s)| {
                    task.losses(
                        &train(&take(&|i| s[i]), noise.then_some(10 + k as u8)),
                        &pool,
                    )
                })
                .collect();
            let score = |i: usize| {
                let side = |want: bool| -> Vec<f64> {
                    (0..shadows.len())
                        .filter(|&k| shadows[k][i] == want)
                        .map(|k| shadow_losses[k][i])
                        .collect()
                };
                likelihood_ratio(observed[i], &side(true), &side(false))
            };
            let split = |f: &dyn Fn(usize) -> f64| -> (Vec<f64>, Vec<f64>) {
                let pick = |want: bool| {
                    (0..pool.len())
                        .filter(|&i| members[i] == want)
                        .map(f)
                        .collect()
                };
                (pick(true), pick(false))
            };
            let (m, o) = split(&|i| observed[i]);
            let (lm, lo) = split(&score);
            (
                loss_threshold(&m, &o).unwrap(),
                advantage(&lm, &lo).unwrap(),
            )
        };
        let (threshold, ratio) = attack(false);
        let (threshold_dp, ratio_dp) = attack(true);
        let spent = epsilon(Accounting::Pld, &[Event::gaussian(sigma, 1.0, steps)], 1e-4).unwrap();
        println!(
            "membership, no defence: AUC {:.3} (threshold), {:.3} (likelihood ratio); epsilon {spent:.2} at delta 1e-4: {:.3}, {:.3}",
            threshold.auc, ratio.auc, threshold_dp.auc, ratio_dp.auc
        );
        assert!(
            threshold.auc > 0.9 && ratio.auc > 0.9,
            "{threshold:?} {ratio:?}"
        );
        assert!(
            threshold_dp.auc < 0.7 && ratio_dp.auc < 0.7,
            "{threshold_dp:?} {ratio_dp:?}"
        );
    }
}
