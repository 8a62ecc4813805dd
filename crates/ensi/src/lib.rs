//! tacit-ensi
#![forbid(unsafe_code)]
