//! Videos of humans: real or forged, and by what anomaly.
#![forbid(unsafe_code)]
