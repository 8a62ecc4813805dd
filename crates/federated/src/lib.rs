//! Federated training of language models: local training, aggregation, compression, protection, audits.
#![forbid(unsafe_code)]
