//! The privacy ledger of a run: what was released, what it cost, and whether one more step is allowed.

use super::calibration::epsilon;
use super::event::{Event, Unit};
use crate::protection::ProtectionError;
use serde::{Deserialize, Serialize};

/// Which accountant a ledger uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Accounting {
    /// Rényi orders: microseconds, a few to some ten percent loose; any mechanism.
    Rdp,
    /// Privacy loss distributions: tenths of a second, tight.
    Pld,
}

/// What has been spent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spent {
    /// `ε` so far.
    pub epsilon: f64,
    /// At this `δ`.
    pub delta: f64,
    /// The budget.
    pub budget: f64,
    /// Steps so far.
    pub steps: u64,
}

/// Releases of a run under a budget `(ε, δ)`. It is to be saved before the noisy value is released: a run that is killed and continued then counts
/// a step once too often rather than not at all.
///
/// ```
/// use tacit_federated::protection::privacy::{Accounting, Event, Ledger, Unit};
/// let mut ledger = Ledger::new(Unit::User, Accounting::Rdp, 2.0, 1e-5).unwrap();
/// let round = Event::gaussian(2.0, 0.25, 1);
/// let mut rounds = 0;
/// while ledger.admit(round).is_ok() { rounds += 1; }
/// assert_eq!(rounds, ledger.spent().unwrap().steps);
/// assert!(rounds > 1 && ledger.spent().unwrap().epsilon <= 2.0);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ledger {
    unit: Unit,
    accounting: Accounting,
    budget: f64,
    delta: f64,
    events: Vec<Event>,
}

impl Ledger {
    /// An empty ledger.
    ///
    /// # Errors
    /// [`ProtectionError::Setting`] unless the budget is positive and `0 < delta < 1`.
    pub fn new(
        unit: Unit,
        accounting: Accounting,
        budget: f64,
        delta: f64,
    ) -> Result<Self, ProtectionError> {
        super::renyi::check_delta(delta)?;
        if !(budget > 0.0 && budget.is_finite()) {
            return Err(ProtectionError::setting(
                super::STAGE,
                "budget",
                budget,
                "a positive number",
                "1 to 10 is usual",
            ));
        }
        Ok(Self {
            unit,
            accounting,
            budget,
            delta,
            events: Vec::new(),
        })
    }

    /// Whose presence is hidden.
    pub fn unit(&self) -> Unit {
        self.unit
    }

    /// The releases, equal ones that follow each other merged.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    fn with(&self, event: Event) -> Vec<Event> {
        let mut events = self.events.clone();
        match events
            .iter_mut()
            .find(|e| e.mechanism == event.mechanism && e.sampling == event.sampling)
        {
            Some(same) => same.steps = same.steps.saturating_add(event.steps),
            None => events.push(event),
        }
        events
    }

    /// Records an event if the budget holds after it, and says what is spent then. A refused event is not recorded.
    ///
    /// # Errors
    /// [`ProtectionError::BudgetSpent`], or [`ProtectionError::Setting`] for an event out of range.
    pub fn admit(&mut self, event: Event) -> Result<Spent, ProtectionError> {
        event.validate()?;
        let events = self.with(event);
        let next = epsilon(self.accounting, &events, self.delta)?;
        if next > self.budget {
            return Err(ProtectionError::BudgetSpent {
                spent: self.spent()?.epsilon,
                next,
                budget: self.budget,
                delta: self.delta,
            });
        }
        self.events = events;
        Ok(Spent {
            epsilon: next,
            delta: self.delta,
            budget: self.budget,
            steps: self.steps(),
        })
    }

    fn steps(&self) -> u64 {
        self.events.iter().map(|e| e.steps).sum()
    }

    /// What is spent.
    ///
    /// # Errors
    /// As [`epsilon`], for a ledger read from a damaged file.
    pub fn spent(&self) -> Result<Spent, ProtectionError> {
        Ok(Spent {
            epsilon: if self.events.is_empty() {
                0.0
            } else {
                epsilon(self.accounting, &self.events, self.delta)?
            },
            delta: self.delta,
            budget: self.budget,
            steps: self.steps(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_stops_at_its_budget_and_survives_saving() {
        for accounting in [Accounting::Rdp, Accounting::Pld] {
            let mut ledger = Ledger::new(Unit::Example, accounting, 1.0, 1e-6).unwrap();
            let event = Event::gaussian(1.5, 0.02, 40);
            let mut admitted = 0;
            let refused = loop {
                match ledger.admit(event) {
                    Ok(spent) => {
                        admitted += 1;
                        assert!(spent.epsilon <= 1.0);
                    }
                    Err(e) => break e,
                }
            };
            assert!(matches!(refused, ProtectionError::BudgetSpent { next, .. } if next > 1.0));
            assert!(admitted > 2);
            assert_eq!(ledger.spent().unwrap().steps, 40 * admitted);
            let text = serde_json::to_string(&ledger).unwrap();
            let mut back: Ledger = serde_json::from_str(&text).unwrap();
            assert_eq!(back, ledger);
            assert!(back.admit(event).is_err());
            assert_eq!(back, ledger, "a refused event leaves no trace");
        }
    }
}
