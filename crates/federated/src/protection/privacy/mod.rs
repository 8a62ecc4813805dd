//! Differential privacy: what a run may learn of one client or one example, counted, and stopped at a budget.
//!
//! A mechanism is `(ε, δ)`-private when for all neighbouring data sets and all events `P[M(D) ∈ S] ≤ e^ε P[M(D') ∈ S] + δ`. Neighbours
//! differ by one [`Unit`] added or removed. Two accountants compose the steps of a run:
//!
//! | accountant | keeps | source |
//! | --- | --- | --- |
//! | [`RdpAccountant`] | Rényi divergences at fixed orders; fast, a little loose | Mironov 2017; Mironov, Talwar and Zhang 2019 (Poisson sampling); Canonne, Kamath and Steinke 2020, proposition 12 (conversion) |
//! | [`Pld`] | the distribution of the privacy loss on a grid, composed by FFT; an upper bound that is tight to the grid | Koskela et al. 2020; Doroshenko et al. 2022 (connect the dots) |
//!
//! Mechanisms: [`central`] (clip, sum, add Gaussian noise at the coordinator) and [`distributed`] (each client adds discrete Gaussian noise under
//! secure aggregation, Kairouz, Liu and Steinke 2021). The [`Ledger`] admits a step only if the budget holds after it.
//!
//! ```
//! use tacit_federated::protection::privacy::{Accounting, Event, calibrate, epsilon};
//! let round = Event::gaussian(1.0, 0.1, 200);
//! let by_loss = epsilon(Accounting::Pld, &[round], 1e-5).unwrap();
//! let by_orders = epsilon(Accounting::Rdp, &[round], 1e-5).unwrap();
//! assert!(by_loss <= by_orders && by_orders < 1.2 * by_loss);
//! let sigma = calibrate(Accounting::Rdp, 4.0, 1e-5, 0.1, 200).unwrap();
//! assert!(epsilon(Accounting::Rdp, &[Event::gaussian(sigma, 0.1, 200)], 1e-5).unwrap() <= 4.0);
//! ```

mod calibration;
pub mod central;
mod discrete_gaussian;
pub mod distributed;
mod event;
mod ledger;
mod loss;
mod loss_pairs;
mod renyi;
mod renyi_sampled;

pub use calibration::{calibrate, epsilon};
pub use discrete_gaussian::DiscreteGaussian;
pub use event::{Event, Mechanism, Unit};
pub use ledger::{Accounting, Ledger, Spent};
pub use loss::Pld;
pub use renyi::RdpAccountant;

/// Name of the stage in errors.
pub(crate) const STAGE: &str = "differential privacy";
