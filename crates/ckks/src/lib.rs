//! tacit-ckks
#![forbid(unsafe_code)]
