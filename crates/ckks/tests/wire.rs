//! Round trips of every object, and an error for everything that is not one.

mod common;

use common::Fixture;
use proptest::prelude::*;
use std::sync::{Arc, LazyLock};
use tacit_ckks::wire::{self, Reader, WireObject, Writer};
use tacit_ckks::{
    Ciphertext, CkksError, Context, KeyId, KeyShape, ParametersLiteral, Plaintext, PublicKey,
    SecretKey, SeededCiphertext, SwitchingKey, encrypt,
};

fn bytes_of<T: WireObject>(ctx: &Arc<Context>, key: KeyId, object: &T) -> Vec<u8> {
    let mut out = Vec::new();
    Writer::new(ctx, key, &mut out).write(object).unwrap();
    out
}

fn fixture() -> Fixture {
    Fixture::new(ParametersLiteral::levelled(6, 3, 2))
}

#[test]
fn plaintexts_and_ciphertexts_round_trip() {
    let mut f = fixture();
    let id = f.secret.id();
    let x = f.random_slots();
    for level in 0..=3 {
        let pt = f.encode(&x, level);
        let bytes = bytes_of(&f.ctx, id, &pt);
        let back: Plaintext = Reader::new(&f.ctx, Some(id), &bytes[..]).read().unwrap();
        assert!(back.poly == pt.poly && back.scale == pt.scale && back.level == pt.level);
        let seeded = encrypt::encrypt_symmetric_seeded(&pt, &f.secret, &mut f.rng).unwrap();
        let seeded_bytes = bytes_of(&f.ctx, id, &seeded);
        let back: SeededCiphertext = Reader::new(&f.ctx, Some(id), &seeded_bytes[..])
            .read()
            .unwrap();
        let ct = f.ctx.expand(&back).unwrap();
        assert!(f.bits(&ct, &x) > 30.0);
        let full_bytes = bytes_of(&f.ctx, id, &ct);
        assert!(
            seeded_bytes.len() < full_bytes.len() / 2 + 140,
            "half the size"
        );
        let back: Ciphertext = Reader::new(&f.ctx, Some(id), &full_bytes[..])
            .read()
            .unwrap();
        assert!(back.parts == ct.parts && back.scale == ct.scale);
        let tensor = f.evaluator.mul_tensor(&ct, &ct).unwrap();
        let back: Ciphertext = Reader::new(&f.ctx, None, &bytes_of(&f.ctx, id, &tensor)[..])
            .read()
            .unwrap();
        assert!(back.parts == tensor.parts);
    }
}

#[test]
fn keys_round_trip() {
    let mut f = fixture();
    let id = f.secret.id();
    let x = f.random_slots();
    let ct = f.encrypt(&x, 3);
    let bytes = bytes_of(&f.ctx, id, &f.secret);
    let secret: SecretKey = Reader::new(&f.ctx, Some(id), &bytes[..]).read().unwrap();
    assert_eq!(secret.id(), id);
    assert!(
        f.encoder
            .decode(&encrypt::decrypt(&ct, &secret).unwrap())
            .unwrap()
            .iter()
            .zip(&x)
            .all(|(a, b)| (a - b).norm() < 1e-9)
    );

    let public = f.generator.public(&f.secret).unwrap();
    let public: PublicKey = Reader::new(&f.ctx, Some(id), &bytes_of(&f.ctx, id, &public)[..])
        .read()
        .unwrap();
    let pt = f.encode(&x, 2);
    let fresh = encrypt::encrypt_public(&pt, &public, &mut f.rng).unwrap();
    assert!(f.bits(&fresh, &x) > 30.0);

    let mut keys = f.keys(&[1, 2]);
    keys.insert(
        f.generator
            .rotation(&f.secret, 1, KeyShape::minimal(f.ctx.params(), 0))
            .unwrap(),
    );
    let mut bytes = Vec::new();
    Writer::new(&f.ctx, id, &mut bytes)
        .evaluation_keys(&keys)
        .unwrap();
    let back = Reader::new(&f.ctx, Some(id), &bytes[..])
        .evaluation_keys()
        .unwrap();
    assert_eq!(
        back.descriptions(f.ctx.params()),
        keys.descriptions(f.ctx.params())
    );
    assert!(
        bytes.len() < keys.bytes() / 2 + 1000,
        "seeds instead of uniform halves"
    );
    let e = &f.evaluator;
    assert!(e.rotate(&ct, 2, &keys).unwrap().parts == e.rotate(&ct, 2, &back).unwrap().parts);
    assert!(e.square(&ct, &keys).unwrap().parts == e.square(&ct, &back).unwrap().parts);
}

#[test]
fn parameters_round_trip() {
    let params = tacit_ckks::Parameters::default_128();
    let mut bytes = Vec::new();
    wire::write_parameters(&params, &mut bytes).unwrap();
    assert_eq!(wire::read_parameters(&bytes[..]).unwrap(), params);
    let insecure = fixture().ctx.params().clone();
    bytes.clear();
    wire::write_parameters(&insecure, &mut bytes).unwrap();
    assert!(matches!(
        wire::read_parameters(&bytes[..]),
        Err(CkksError::InvalidParameters { .. })
    ));
    assert_eq!(
        wire::read_insecure_parameters(&bytes[..]).unwrap(),
        insecure
    );
}

#[test]
fn every_mistake_has_its_error() {
    let mut f = fixture();
    let id = f.secret.id();
    let x = f.random_slots();
    let ct = f.encrypt(&x, 3);
    let good = bytes_of(&f.ctx, id, &ct);
    let read = |bytes: &[u8]| {
        Reader::new(&f.ctx, Some(id), bytes)
            .read::<Ciphertext>()
            .map(|_| ())
    };
    read(&good).unwrap();

    assert!(matches!(
        read(b"PK\x03\x04 and more"),
        Err(CkksError::BadMagic { .. })
    ));
    assert!(matches!(
        read(b""),
        Err(CkksError::Truncated { found: 0, .. })
    ));
    for len in 0..good.len() {
        assert!(
            matches!(read(&good[..len]), Err(CkksError::Truncated { .. })),
            "{len}"
        );
    }
    let changed = |at: usize, to: u8| {
        let mut bytes = good.clone();
        bytes[at] = to;
        bytes
    };
    assert!(matches!(
        read(&changed(4, 9)),
        Err(CkksError::Version { found: 9, .. })
    ));
    assert!(matches!(
        read(&changed(6, 2)),
        Err(CkksError::WrongKind { .. })
    ));
    assert!(matches!(
        read(&changed(7, 1)),
        Err(CkksError::Corrupt { .. })
    ));
    assert!(
        matches!(read(&changed(63, 1)), Err(CkksError::Corrupt { .. })),
        "a huge length is refused before it is allocated"
    );
    assert!(matches!(
        read(&changed(good.len() - 1, good[good.len() - 1] ^ 1)),
        Err(CkksError::Corrupt { .. })
    ));
    assert!(matches!(
        read(&changed(200, good[200] ^ 1)),
        Err(CkksError::Corrupt { .. })
    ));

    let other = Fixture::new(ParametersLiteral::levelled(6, 4, 2));
    assert!(matches!(
        Reader::new(&other.ctx, None, &good[..]).read::<Ciphertext>(),
        Err(CkksError::ForeignParameters { .. })
    ));
    let stranger = f.generator.secret();
    let error = Reader::new(&f.ctx, Some(stranger.id()), &good[..])
        .read::<Ciphertext>()
        .map(|_| ())
        .unwrap_err();
    assert!(matches!(error, CkksError::ForeignKey { .. }));
    assert!(error.to_string().contains(&id.to_string()), "{error}");
    assert!(matches!(
        Writer::new(&f.ctx, id, Vec::new()).write(&stranger),
        Err(CkksError::ForeignKey { .. })
    ));
    assert!(matches!(
        Writer::new(&other.ctx, id, Vec::new()).write(&ct),
        Err(CkksError::Shape { .. }) | Ok(())
    ));

    // Frames of two keys in one stream.
    let mut mixed = good.clone();
    mixed.extend(bytes_of(&f.ctx, stranger.id(), &stranger));
    let mut reader = Reader::new(&f.ctx, None, &mixed[..]);
    reader.read::<Ciphertext>().unwrap();
    assert!(matches!(
        reader.read::<SecretKey>(),
        Err(CkksError::ForeignKey { .. })
    ));
}

/// Writes a valid frame around any content.
struct Raw(Vec<u8>);

fn reframe(good: &[u8], content: &[u8]) -> Vec<u8> {
    let mut out = good[..64].to_vec();
    out[56..64].copy_from_slice(&(content.len() as u64).to_le_bytes());
    out.extend_from_slice(content);
    let hash = blake3::hash(&out);
    out.extend_from_slice(hash.as_bytes());
    out
}

static SAMPLES: LazyLock<(Fixture, Vec<Raw>)> = LazyLock::new(|| {
    let mut f = fixture();
    let id = f.secret.id();
    let x = f.random_slots();
    let pt = f.encode(&x, 2);
    let seeded = encrypt::encrypt_symmetric_seeded(&pt, &f.secret, &mut f.rng).unwrap();
    let ct = f.ctx.expand(&seeded).unwrap();
    let public = f.generator.public(&f.secret).unwrap();
    let keys = f.keys(&[1]);
    let mut set = Vec::new();
    Writer::new(&f.ctx, id, &mut set)
        .evaluation_keys(&keys)
        .unwrap();
    let mut params = Vec::new();
    wire::write_parameters(f.ctx.params(), &mut params).unwrap();
    let samples = vec![
        Raw(bytes_of(&f.ctx, id, &pt)),
        Raw(bytes_of(&f.ctx, id, &ct)),
        Raw(bytes_of(&f.ctx, id, &seeded)),
        Raw(bytes_of(&f.ctx, id, &f.secret)),
        Raw(bytes_of(&f.ctx, id, &public)),
        Raw(bytes_of(&f.ctx, id, &keys.relinearisation)),
        Raw(set),
        Raw(params),
    ];
    (f, samples)
});

/// Reads as every kind; whether any succeeded.
fn read_all(ctx: &Arc<Context>, bytes: &[u8]) -> bool {
    let mut any =
        wire::read_parameters(bytes).is_ok() | wire::read_insecure_parameters(bytes).is_ok();
    any |= Reader::new(ctx, None, bytes).read::<Plaintext>().is_ok();
    any |= Reader::new(ctx, None, bytes).read::<Ciphertext>().is_ok();
    any |= Reader::new(ctx, None, bytes)
        .read::<SeededCiphertext>()
        .is_ok();
    any |= Reader::new(ctx, None, bytes).read::<SecretKey>().is_ok();
    any |= Reader::new(ctx, None, bytes).read::<PublicKey>().is_ok();
    any |= Reader::new(ctx, None, bytes).read::<SwitchingKey>().is_ok();
    any | Reader::new(ctx, None, bytes).evaluation_keys().is_ok()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Any change of any byte is found.
    #[test]
    fn changed_bytes_are_errors(sample in 0..8usize, at in any::<prop::sample::Index>(), flip in 1..=255u8) {
        let (f, samples) = &*SAMPLES;
        let mut bytes = samples[sample].0.clone();
        let at = at.index(bytes.len());
        // The key name is free without an expected key, but it is part of what the checksum covers.
        bytes[at] ^= flip;
        prop_assert!(!read_all(&f.ctx, &bytes));
    }

    /// Content that is wrong under a right checksum never panics; what is read from it can be used.
    #[test]
    fn forged_content_never_panics(sample in 0..8usize, at in any::<prop::sample::Index>(), to in any::<u8>(), cut in 0..40usize) {
        let (f, samples) = &*SAMPLES;
        let good = &samples[sample].0;
        let mut content = good[64..good.len() - 32].to_vec();
        let at = at.index(content.len().min(120));
        content[at] = to;
        content.truncate(content.len() - cut.min(content.len() - 1) * (cut % 2));
        let forged = reframe(good, &content);
        read_all(&f.ctx, &forged);
        if let Ok(ct) = Reader::new(&f.ctx, None, &forged[..]).read::<Ciphertext>() {
            let _ = encrypt::decrypt(&ct, &f.secret).unwrap();
            let _ = f.evaluator.add(&ct, &ct);
        }
    }

    /// Bytes that are nothing are errors.
    #[test]
    fn noise_is_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let (f, _) = &*SAMPLES;
        prop_assert!(!read_all(&f.ctx, &bytes));
    }
}

#[test]
fn residues_out_of_range_are_refused() {
    let (f, samples) = &*SAMPLES;
    let good = &samples[0].0;
    let mut content = good[64..good.len() - 32].to_vec();
    content[12..20].fill(0xff);
    let error = Reader::new(&f.ctx, None, &reframe(good, &content)[..])
        .read::<Plaintext>()
        .map(|_| ())
        .unwrap_err();
    assert!(
        matches!(&error, CkksError::Corrupt { reason, .. } if reason.contains("limb 0")),
        "{error}"
    );
}
