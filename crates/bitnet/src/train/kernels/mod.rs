//! The element-wise pieces of the model, forward and backward, on plain slices.
//!
//! Everything here is row-major `f32`, parallel over rows or sequences with rayon, and compiled for the vector width of the
//! machine it runs on ([`pulp::Arch`] picks it at run time). The result does not depend on the number of threads: every sum is
//! taken per row or per sequence and then added up in order.
//!
//! The range penalties are part of the backward passes: a function `P` of an intermediate value adds `weight * dP/dvalue` to the
//! gradient that flows through it, which is what adding `weight * P` to the loss does, without a second pass over the data.

mod attention;
mod gate;
mod loss;
mod norm;
mod ternary;
#[cfg(test)]
mod test_support;
mod vector;

pub(crate) use attention::{AttentionShape, Rope};
pub(crate) use gate::{gated, gated_backward};
pub(crate) use loss::cross_entropy;
pub(crate) use norm::{NormPenalty, rms_norm, rms_norm_backward};
pub(crate) use ternary::{ternary, ternary_values};
pub(crate) use vector::{Kernel, add, kernel, simd, sum_of_squares};
