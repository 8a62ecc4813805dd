//! Every key a client publishes at the real parameters, against the 128-bit ceiling of its own ring, modulus and secret.

mod common;

use common::{Case, model};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use tacit_ckks::{
    presets::Preset,
    security::{SecretDistribution, ceiling_128, check_128},
};
use tacit_ensi::{Client, EncryptedModel};

#[test]
fn published_keys_stay_below_their_ceilings() {
    let case = Case {
        hidden: 256,
        ffn: 512,
        heads: 8,
        kv_heads: 8,
        layers: 1,
        gains: false,
        sub_norms: true,
        normalised: false,
    };
    let (bitnet, mut calibration) = model(&case, &mut ChaCha20Rng::seed_from_u64(1));
    calibration.context = 64;
    let mut kinds = std::collections::BTreeSet::new();
    for name in tacit_ensi::model::PRESETS {
        let params = Preset::named(name).unwrap().parameters().unwrap();
        let model = EncryptedModel::new(&bitnet, &calibration, params.clone()).unwrap();
        let client = Client::new(model.key_plan(), params).unwrap();
        let keys = client.published_keys();
        assert_eq!(keys.len(), client.key_count() + 1);
        for key in &keys {
            println!(
                "{name}: {key} (ceiling {})",
                ceiling_128(key.ring_dimension, key.secret)
            );
            check_128(key).unwrap();
            kinds.insert((key.ring_dimension, format!("{}", key.secret)));
        }
    }
    // the three families: long-term keys, ring switch, repack
    assert!(kinds.contains(&(1 << 16, SecretDistribution::DenseTernary.to_string())));
    assert!(kinds.contains(&(1 << 11, SecretDistribution::DenseTernary.to_string())));
    assert!(kinds.contains(&(1 << 16, SecretDistribution::FixedWeight(32).to_string())));
}
