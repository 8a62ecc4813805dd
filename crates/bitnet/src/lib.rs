//! tacit-bitnet
#![forbid(unsafe_code)]
