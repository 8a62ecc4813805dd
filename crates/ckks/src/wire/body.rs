//! The content of a frame: little-endian numbers and packed polynomials, every length checked before it is believed.

use super::pack::{pack, packed_len, push_words, unpack};
use crate::context::{Context, limbs_mut};
use crate::error::CkksError;
use crate::keys::KeyId;
use rayon::prelude::*;
use std::sync::Arc;
use tacit_ring::{PackedPoly, RnsPoly};

/// Builds the content of a frame.
pub struct BodyWriter<'a> {
    pub(super) ctx: &'a Context,
    pub(super) bytes: Vec<u8>,
}

impl BodyWriter<'_> {
    /// The context of the objects.
    pub fn context(&self) -> &Context {
        self.ctx
    }

    /// Raw bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// One byte.
    pub fn u8(&mut self, x: u8) {
        self.bytes.push(x);
    }

    /// A 32-bit number.
    pub fn u32(&mut self, x: u32) {
        self.bytes(&x.to_le_bytes());
    }

    /// A 64-bit number.
    pub fn u64(&mut self, x: u64) {
        self.bytes(&x.to_le_bytes());
    }

    /// A floating-point number, by its bits.
    pub fn f64(&mut self, x: f64) {
        self.bytes(&x.to_bits().to_le_bytes());
    }

    /// A level or a count.
    pub fn size(&mut self, x: usize) {
        self.u32(u32::try_from(x).expect("levels and counts are far below 2^32"));
    }

    /// A polynomial over `q_0..=q_level` and the special primes that follow, packed.
    pub fn poly(&mut self, poly: &RnsPoly, level: usize) {
        for (j, limb) in poly.limbs_iter().enumerate() {
            let bits = self.ctx.modulus(level, j).bits();
            pack(&mut self.bytes, limb, bits);
        }
    }

    /// The same of a polynomial that is packed in memory.
    pub fn packed_poly(&mut self, poly: &PackedPoly) {
        for limb in (0..poly.limbs()).map(|j| poly.limb(j)) {
            let len = packed_len(limb.len(), limb.bits());
            push_words(&mut self.bytes, limb.words(), len);
        }
    }
}

/// Bytes of a packed polynomial over `q_0..=q_level` and `special` special primes.
pub fn poly_len(ctx: &Context, level: usize, special: usize) -> usize {
    (0..level + 1 + special)
        .map(|j| packed_len(ctx.n(), ctx.modulus(level, j).bits()))
        .sum()
}

/// Reads the content of a frame. Every method errors instead of reading past the end.
pub struct BodyReader<'a> {
    pub(super) ctx: &'a Arc<Context>,
    pub(super) what: &'static str,
    pub(super) key: KeyId,
    pub(super) rest: &'a [u8],
}

impl<'a> BodyReader<'a> {
    /// The context of the objects.
    pub fn context(&self) -> &'a Arc<Context> {
        self.ctx
    }

    /// The key name in the frame's header.
    pub fn key_id(&self) -> KeyId {
        self.key
    }

    /// The error for content that breaks the format.
    pub fn corrupt(&self, reason: impl Into<String>) -> CkksError {
        CkksError::Corrupt {
            what: self.what,
            reason: reason.into(),
        }
    }

    /// The next `len` bytes.
    ///
    /// # Errors
    /// [`CkksError::Corrupt`] if there are fewer; so for all methods below.
    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8], CkksError> {
        let Some((head, rest)) = self.rest.split_at_checked(len) else {
            return Err(self.corrupt(format!(
                "its content ends {} bytes too early",
                len - self.rest.len()
            )));
        };
        self.rest = rest;
        Ok(head)
    }

    /// The next bytes as an array.
    ///
    /// # Errors
    /// [`CkksError::Corrupt`].
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], CkksError> {
        let mut out = [0; N];
        out.copy_from_slice(self.bytes(N)?);
        Ok(out)
    }

    /// One byte.
    ///
    /// # Errors
    /// [`CkksError::Corrupt`].
    pub fn u8(&mut self) -> Result<u8, CkksError> {
        Ok(self.array::<1>()?[0])
    }

    /// A 32-bit number.
    ///
    /// # Errors
    /// [`CkksError::Corrupt`].
    pub fn u32(&mut self) -> Result<u32, CkksError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// A 64-bit number.
    ///
    /// # Errors
    /// [`CkksError::Corrupt`].
    pub fn u64(&mut self) -> Result<u64, CkksError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A floating-point number.
    ///
    /// # Errors
    /// [`CkksError::Corrupt`].
    pub fn f64(&mut self) -> Result<f64, CkksError> {
        Ok(f64::from_bits(self.u64()?))
    }

    /// A number of at most `max`.
    ///
    /// # Errors
    /// [`CkksError::Corrupt`] naming `field` if it is larger.
    pub fn size(&mut self, field: &str, max: usize) -> Result<usize, CkksError> {
        let x = self.u32()? as usize;
        if x > max {
            return Err(self.corrupt(format!("{field} is {x}, at most {max} is possible")));
        }
        Ok(x)
    }

    /// A level of the context.
    ///
    /// # Errors
    /// [`CkksError::Corrupt`].
    pub fn level(&mut self) -> Result<usize, CkksError> {
        self.size("level", self.ctx.params().max_level())
    }

    /// A scale: finite and positive.
    ///
    /// # Errors
    /// [`CkksError::Corrupt`].
    pub fn scale(&mut self) -> Result<f64, CkksError> {
        let scale = self.f64()?;
        if !(scale.is_finite() && scale > 0.0) {
            return Err(self.corrupt(format!(
                "scale is {scale:e}, it must be finite and positive"
            )));
        }
        Ok(scale)
    }

    /// A polynomial over `q_0..=q_level` and `special` special primes (numbers that exist in the context).
    ///
    /// # Errors
    /// [`CkksError::Corrupt`] if bytes are missing or a residue is not below its modulus.
    pub fn poly(&mut self, level: usize, special: usize) -> Result<RnsPoly, CkksError> {
        let ctx = self.ctx;
        let bytes = self.bytes(poly_len(ctx, level, special))?;
        let mut poly = RnsPoly::unspecified(ctx.n(), level + 1 + special);
        let mut rest = bytes;
        let limbs: Vec<(&[u8], &mut [u64])> = limbs_mut(&mut poly)
            .into_iter()
            .enumerate()
            .map(|(j, limb)| {
                let (head, tail) = rest.split_at(packed_len(ctx.n(), ctx.modulus(level, j).bits()));
                rest = tail;
                (head, limb)
            })
            .collect();
        let valid = limbs
            .into_par_iter()
            .enumerate()
            .map(|(j, (bytes, limb))| (j, unpack(bytes, ctx.modulus(level, j), limb)));
        match valid.find_first(|(_, valid)| !valid) {
            Some((j, _)) => Err(self.corrupt(format!(
                "limb {j} has a residue that is not below its modulus"
            ))),
            None => Ok(poly),
        }
    }
}
