//! Whether the settings of a run are possible and go together.

use super::RunConfig;
use crate::FederatedError;
use crate::clock;
use crate::local::Optimiser;
use crate::lora::Combine;
use crate::personal::{Order, Personal};
use crate::rules::Rule;
use crate::tuner::Kind;

impl RunConfig {
    /// Checks every setting and that the stages fit together.
    ///
    /// # Errors
    /// [`FederatedError::Setting`] with the reason.
    pub fn check(&self) -> Result<(), FederatedError> {
        let bad = |setting: &str, expected: &str, found: String, remedy: &str| {
            Err(FederatedError::setting(setting, expected, found, remedy))
        };
        if self.rounds == 0 {
            return bad("rounds", "at least 1", "0".into(), "10 is the default");
        }
        let given = [
            self.base.model.is_some(),
            self.base.checkpoint.is_some(),
            self.base.random.is_some(),
        ];
        if given.iter().filter(|g| **g).count() > 1 {
            return bad(
                "base",
                "one of model, checkpoint, random",
                "several".into(),
                "keep one",
            );
        }
        let given = [
            self.data.partition.is_some(),
            self.data.grammar.is_some(),
            self.data.folders.is_some(),
        ];
        if given.iter().filter(|g| **g).count() > 1 {
            return bad(
                "data",
                "one of partition, grammar, folders",
                "several".into(),
                "keep one",
            );
        }
        if self.data.validation_percent > 90 {
            return bad(
                "data.validation_percent",
                "1 to 90",
                self.data.validation_percent.to_string(),
                "20 is the default",
            );
        }
        if let Some(f) = &self.data.folders {
            f.check()?;
        }
        self.train.check()?;
        self.rule.check()?;
        self.method.check(self.clients())?;
        if self.method.kind == Kind::FedKSeed
            && (self.train.optimiser != Optimiser::Sgd
                || self.train.prox > 0.0
                || self.train.scaffold)
        {
            return bad(
                "method.kind (fedkseed)",
                "train.optimiser = \"sgd\", train.prox = 0 and train.scaffold = false",
                "others".into(),
                "a step goes along one direction by the slope that was found: there is no gradient for moments, a pull or control variates to act on",
            );
        }
        if let Some(p) = self.personal {
            self.check_personal(p)?;
        }
        if self.method.kind != Kind::Lora && self.combine != Combine::Average {
            return bad(
                "combine",
                "average unless method.kind = \"lora\"",
                format!("{:?}", self.combine).to_lowercase(),
                "the other rules act on a trained A and B",
            );
        }
        if !matches!(self.rule, Rule::FedAvg {}) && self.combine != Combine::Average {
            return bad(
                "rule.kind",
                "fedavg unless combine = \"average\"",
                self.rule.name().into(),
                "a server rule would move the adapter away from what was merged",
            );
        }
        clock::check(self)?;
        crate::stage::check(self)?;
        crate::task::check(self)
    }
}

impl RunConfig {
    fn check_personal(&self, p: Personal) -> Result<(), FederatedError> {
        let refuse = |expected: &str, found: &str, why: &str| {
            Err(FederatedError::setting("personal", expected, found, why))
        };
        if !(1..=1024).contains(&p.rank) || (p.order == Order::Alternate && p.steps == 0) {
            return refuse(
                "a rank of 1 to 1024, and steps of the private part where they alternate",
                &format!("rank {}, {} steps", p.rank, p.steps),
                "rank = 4 and steps = 4 are the defaults",
            );
        }
        if self.method.kind != Kind::Lora {
            return refuse(
                "method.kind = \"lora\"",
                "another",
                "the private part is more columns of B and rows of A",
            );
        }
        if self.train.scaffold {
            return refuse(
                "train.scaffold = false",
                "true",
                "control variates would carry the pull of private adapters into the shared one",
            );
        }
        if self.noise().is_some() {
            return refuse(
                "no noise stage",
                "noise",
                "every example's gradient would depend on a private adapter that was trained on all of them: clipping would no longer bound what one example changes",
            );
        }
        Ok(())
    }
}
