//! Every key a client publishes with the default parameters is below the 128-bit ceiling of its own ring, modulus and secret; and the default
//! paths make nothing weaker.

use tacit_ckks::bootstrap::EncapsulationKeys;
use tacit_ckks::mlwe::MlweKeys;
use tacit_ckks::security::{KeyDescription, SecretDistribution, ceiling_128, check_128};
use tacit_ckks::{CkksError, Context, KeyGenerator, KeyShape, Parameters};

/// `ring dimension, rounded log2 of the modulus, secret`.
fn facts(key: &KeyDescription) -> (usize, u32, SecretDistribution) {
    (
        key.ring_dimension,
        key.log2_modulus.round() as u32,
        key.secret,
    )
}

#[test]
fn every_published_key_is_below_its_ceiling() {
    use SecretDistribution::{DenseTernary, FixedWeight};
    let ctx = Context::new(Parameters::default_128()).unwrap();
    let mut generator = KeyGenerator::new(ctx.clone());
    assert!(!generator.is_insecure());
    let main = generator.secret();
    assert_eq!(main.distribution(), DenseTernary);
    let ephemeral = generator.ephemeral_secret(&main).unwrap();
    assert_eq!(ephemeral.distribution(), FixedWeight(32));

    // Descriptions come from the keys themselves. Galois keys and the relinearisation key of all shapes are at most of the full shape.
    let full = KeyShape::full(ctx.params());
    let params = ctx.params();
    let mut keys = vec![
        generator.public(&main).unwrap().description(),
        generator
            .relinearisation(&main, full)
            .unwrap()
            .description(params),
        generator
            .conjugation(&main, full)
            .unwrap()
            .description(params),
        generator
            .switching(
                main.residues(),
                &ephemeral,
                EncapsulationKeys::to_sparse_shape(),
                1,
            )
            .unwrap()
            .description(params),
        generator
            .switching(ephemeral.residues(), &main, full, 2)
            .unwrap()
            .description(params),
    ];
    keys.extend(MlweKeys::descriptions_of(params));
    let expected = [
        (1 << 16, 1255, DenseTernary),
        (1 << 16, 1705, DenseTernary),
        (1 << 16, 1705, DenseTernary),
        (1 << 16, 100, FixedWeight(32)),
        (1 << 16, 1705, DenseTernary),
        (1 << 11, 50, DenseTernary),
        (1 << 16, 100, FixedWeight(32)),
    ];
    assert_eq!(keys.iter().map(facts).collect::<Vec<_>>(), expected);
    for key in &keys {
        println!(
            "{key}; ceiling {}",
            ceiling_128(key.ring_dimension, key.secret)
        );
        check_128(key).unwrap();
    }
}

#[test]
fn default_paths_make_nothing_weaker() {
    let ctx = Context::new(Parameters::default_128()).unwrap();
    let mut generator = KeyGenerator::new(ctx.clone());
    let main = generator.secret();
    let ephemeral = generator.ephemeral_secret(&main).unwrap();
    let refused =
        |result: Result<(), CkksError>| matches!(result, Err(CkksError::AboveCeiling { .. }));
    // 170 + 200 bits under the sparse secret; 245 are allowed.
    assert!(refused(
        generator
            .switching(
                main.residues(),
                &ephemeral,
                KeyShape {
                    level: 3,
                    special: 4
                },
                1
            )
            .map(drop)
    ));
    assert!(refused(
        generator
            .relinearisation(&ephemeral, KeyShape::full(ctx.params()))
            .map(drop)
    ));
    assert!(refused(
        generator
            .conjugation(
                &ephemeral,
                KeyShape {
                    level: 16,
                    special: 8
                }
            )
            .map(drop)
    ));
    assert!(refused(generator.public(&ephemeral).map(drop)));
    let error = generator
        .public(&ephemeral)
        .map(drop)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("public encryption key")
            && error.contains("245")
            && error.contains("weight 32"),
        "{error}"
    );
}

#[test]
fn secrets_do_not_print() {
    let ctx = Context::new(Parameters::default_128()).unwrap();
    let secret = KeyGenerator::new(ctx).secret();
    let printed = format!("{secret:?}");
    assert!(
        printed.len() < 120 && printed.contains("DenseTernary") && printed.contains(".."),
        "{printed}"
    );
}
