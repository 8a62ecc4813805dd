//! Encryption and decryption.
//!
//! ```text
//! symmetric:   a uniform (from a seed),  b = m + e - a s
//! public:      v ternary, (b, a) = v (b_pk, a_pk) + (e_0 + m, e_1)
//! decryption:  b + a s (+ c s^2)
//! ```
//!
//! The noise of each is stated in [`crate::noise`]. A decrypted value of an approximate scheme carries the noise, which depends on the
//! secret: never hand decrypted values to the party that evaluated them (Li and Micciancio, ePrint 2020/1533).

use crate::ciphertext::{Ciphertext, Plaintext, SeededCiphertext};
use crate::context::limbs_mut;
use crate::error::CkksError;
use crate::key_generator::sub_product;
use crate::keys::{PublicKey, SecretKey};
use rand_core::CryptoRng;
use rayon::prelude::*;
use tacit_ring::sampling::{gaussian, signed_to_residues_i8, signed_to_residues_i32, ternary};
use tacit_ring::{RnsPoly, ops};
use zeroize::Zeroize;

/// Encrypts under a secret key; the uniform half stays a seed, so that it is half the size on the wire.
///
/// # Errors
/// [`CkksError::Shape`] if the plaintext does not fit the key's context.
pub fn encrypt_symmetric_seeded(
    pt: &Plaintext,
    sk: &SecretKey,
    rng: &mut impl CryptoRng,
) -> Result<SeededCiphertext, CkksError> {
    let ctx = &sk.ctx;
    ctx.check_plaintext(pt)?;
    let mut seed = [0; 32];
    rng.fill_bytes(&mut seed);
    let noise = gaussian(rng, ctx.n());
    let a = ctx.uniform(&seed, 0, pt.level, 0);
    let mut b = RnsPoly::unspecified(ctx.n(), pt.level + 1);
    limbs_mut(&mut b)
        .into_par_iter()
        .enumerate()
        .for_each(|(i, b)| {
            let table = ctx.table(pt.level, i);
            let m = table.modulus();
            signed_to_residues_i32(m, &noise, b);
            table.forward(b);
            ops::add_assign(m, b, pt.poly.limb(i));
            sub_product(m, b, a.limb(i), sk.q_residues(i));
        });
    Ok(SeededCiphertext {
        b,
        seed,
        level: pt.level,
        scale: pt.scale,
    })
}

/// Encrypts under a secret key.
///
/// # Errors
/// As [`encrypt_symmetric_seeded`].
pub fn encrypt_symmetric(
    pt: &Plaintext,
    sk: &SecretKey,
    rng: &mut impl CryptoRng,
) -> Result<Ciphertext, CkksError> {
    sk.ctx.expand(&encrypt_symmetric_seeded(pt, sk, rng)?)
}

/// Encrypts under a public key.
///
/// # Errors
/// [`CkksError::Shape`] if the plaintext does not fit the key's context.
pub fn encrypt_public(
    pt: &Plaintext,
    pk: &PublicKey,
    rng: &mut impl CryptoRng,
) -> Result<Ciphertext, CkksError> {
    let ctx = &pk.ctx;
    ctx.check_plaintext(pt)?;
    let v = ternary(rng, ctx.n());
    let (e0, e1) = (gaussian(rng, ctx.n()), gaussian(rng, ctx.n()));
    let mut b = RnsPoly::unspecified(ctx.n(), pt.level + 1);
    let mut a = RnsPoly::unspecified(ctx.n(), pt.level + 1);
    limbs_mut(&mut b)
        .into_par_iter()
        .zip(limbs_mut(&mut a))
        .enumerate()
        .for_each(|(i, (b, a))| {
            let table = ctx.table(pt.level, i);
            let m = table.modulus();
            let mut mask = RnsPoly::unspecified(ctx.n(), 1);
            signed_to_residues_i8(m, &v, mask.limb_mut(0));
            table.forward(mask.limb_mut(0));
            signed_to_residues_i32(m, &e0, b);
            table.forward(b);
            ops::add_assign(m, b, pt.poly.limb(i));
            ops::mul_add_assign(m, b, pk.b.limb(i), mask.limb(0));
            signed_to_residues_i32(m, &e1, a);
            table.forward(a);
            ops::mul_add_assign(m, a, pk.a.limb(i), mask.limb(0));
            mask.as_mut_slice().zeroize();
        });
    Ok(Ciphertext {
        parts: vec![b, a],
        level: pt.level,
        scale: pt.scale,
    })
}

/// Decrypts: `parts[0] + parts[1] s (+ parts[2] s^2)`.
///
/// # Errors
/// [`CkksError::Shape`] if the ciphertext does not fit the key's context. A ciphertext under another key decrypts to noise; the wire format
/// carries key names so that this is found on reading.
pub fn decrypt(ct: &Ciphertext, sk: &SecretKey) -> Result<Plaintext, CkksError> {
    let ctx = &sk.ctx;
    ctx.check_ciphertext(ct)?;
    let mut poly = RnsPoly::unspecified(ctx.n(), ct.level + 1);
    limbs_mut(&mut poly)
        .into_par_iter()
        .enumerate()
        .for_each(|(i, out)| {
            let m = ctx.modulus(ct.level, i);
            let s = sk.q_residues(i);
            // Horner: ((c_2) s + c_1) s + c_0.
            let (last, rest) = ct.parts.split_last().expect("checked: two or three parts");
            out.copy_from_slice(last.limb(i));
            for part in rest.iter().rev() {
                ops::mul_assign(m, out, s);
                ops::add_assign(m, out, part.limb(i));
            }
        });
    Ok(Plaintext {
        poly,
        level: ct.level,
        scale: ct.scale,
    })
}
