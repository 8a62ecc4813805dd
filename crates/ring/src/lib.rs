//! tacit-ring
