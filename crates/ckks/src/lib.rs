//! tacit-ckks
#![forbid(unsafe_code)]

pub mod fft;
pub mod mlwe;
