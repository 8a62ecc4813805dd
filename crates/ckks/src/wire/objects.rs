//! The wire forms of the objects of this crate.

use super::body::{BodyReader, BodyWriter, poly_len};
use super::{Kind, WireObject};
use crate::ciphertext::{Ciphertext, Plaintext, SeededCiphertext};
use crate::context::Context;
use crate::error::CkksError;
use crate::key_generator::{check_same_parameters, secret_from};
use crate::keys::{KeyId, KeyRole, KeyShape, PublicKey, SecretKey, SwitchingKey};
use crate::security::SecretDistribution;
use zeroize::Zeroizing;

/// Content: level, scale, polynomial.
impl WireObject for Plaintext {
    const KIND: Kind = Kind::PLAINTEXT;

    fn max_len(ctx: &Context) -> u64 {
        (4 + 8 + poly_len(ctx, ctx.params().max_level(), 0)) as u64
    }

    fn encode(&self, body: &mut BodyWriter<'_>) -> Result<(), CkksError> {
        body.context().check_plaintext(self)?;
        body.size(self.level);
        body.f64(self.scale);
        body.poly(&self.poly, self.level);
        Ok(())
    }

    fn decode(body: &mut BodyReader<'_>) -> Result<Self, CkksError> {
        let level = body.level()?;
        let scale = body.scale()?;
        Ok(Self {
            poly: body.poly(level, 0)?,
            level,
            scale,
        })
    }
}

/// Content: level, scale, number of parts (2 or 3), polynomials.
impl WireObject for Ciphertext {
    const KIND: Kind = Kind::CIPHERTEXT;

    fn max_len(ctx: &Context) -> u64 {
        (4 + 8 + 1 + 3 * poly_len(ctx, ctx.params().max_level(), 0)) as u64
    }

    fn encode(&self, body: &mut BodyWriter<'_>) -> Result<(), CkksError> {
        body.context().check_ciphertext(self)?;
        body.size(self.level);
        body.f64(self.scale);
        body.u8(self.parts.len() as u8);
        self.parts
            .iter()
            .for_each(|part| body.poly(part, self.level));
        Ok(())
    }

    fn decode(body: &mut BodyReader<'_>) -> Result<Self, CkksError> {
        let level = body.level()?;
        let scale = body.scale()?;
        let parts = match body.u8()? {
            parts @ (2 | 3) => (0..parts)
                .map(|_| body.poly(level, 0))
                .collect::<Result<_, _>>()?,
            other => return Err(body.corrupt(format!("it has {other} parts, 2 or 3 are possible"))),
        };
        Ok(Self {
            parts,
            level,
            scale,
        })
    }
}

/// Content: level, scale, seed, `b`.
impl WireObject for SeededCiphertext {
    const KIND: Kind = Kind::SEEDED_CIPHERTEXT;

    fn max_len(ctx: &Context) -> u64 {
        (4 + 8 + 32 + poly_len(ctx, ctx.params().max_level(), 0)) as u64
    }

    fn encode(&self, body: &mut BodyWriter<'_>) -> Result<(), CkksError> {
        body.context()
            .check_poly("seeded ciphertext", &self.b, self.level, 0)?;
        body.size(self.level);
        body.f64(self.scale);
        body.bytes(&self.seed);
        body.poly(&self.b, self.level);
        Ok(())
    }

    fn decode(body: &mut BodyReader<'_>) -> Result<Self, CkksError> {
        let level = body.level()?;
        let scale = body.scale()?;
        let seed = body.array()?;
        Ok(Self {
            b: body.poly(level, 0)?,
            seed,
            level,
            scale,
        })
    }
}

/// A coefficient of a ternary secret in two bits, -1 as 2, without a branch or an index that depends on it.
fn two_bits(c: i8) -> u8 {
    let negative = c as u8 >> 7;
    negative << 1 | (c as u8 & 1 & !negative)
}

fn encode_distribution(body: &mut BodyWriter<'_>, distribution: SecretDistribution) {
    // Weight 0 stands for dense.
    body.size(match distribution {
        SecretDistribution::DenseTernary => 0,
        SecretDistribution::FixedWeight(h) => h,
    });
}

fn decode_distribution(body: &mut BodyReader<'_>) -> Result<SecretDistribution, CkksError> {
    let n = body.context().n();
    Ok(match body.size("weight of the secret", n)? {
        0 => SecretDistribution::DenseTernary,
        h => SecretDistribution::FixedWeight(h),
    })
}

/// Content: distribution, then the coefficients in two bits each (0, 1, and 2 for -1). The buffers are wiped.
impl WireObject for SecretKey {
    const KIND: Kind = Kind::SECRET_KEY;
    const SECRET: bool = true;

    fn max_len(ctx: &Context) -> u64 {
        (4 + ctx.n() / 4) as u64
    }

    fn key_id(&self) -> Option<KeyId> {
        Some(self.id)
    }

    fn encode(&self, body: &mut BodyWriter<'_>) -> Result<(), CkksError> {
        check_same_parameters("secret key", &self.ctx, body.context())?;
        body.bytes.reserve_exact(4 + self.coefficients.len() / 4);
        encode_distribution(body, self.distribution);
        for four in self.coefficients.chunks_exact(4) {
            let byte = four
                .iter()
                .rev()
                .fold(0, |byte, &c| byte << 2 | two_bits(c));
            body.u8(byte);
        }
        Ok(())
    }

    fn decode(body: &mut BodyReader<'_>) -> Result<Self, CkksError> {
        let distribution = decode_distribution(body)?;
        let ctx = body.context();
        let packed = body.bytes(ctx.n() / 4)?;
        let mut coefficients = Zeroizing::new(Vec::with_capacity(ctx.n()));
        let mut invalid = 0;
        for byte in packed {
            for k in 0..4 {
                let two = byte >> (2 * k) & 3;
                invalid |= two & (two >> 1);
                coefficients.push((two & 1) as i8 - (two >> 1) as i8);
            }
        }
        if invalid != 0 {
            return Err(body.corrupt("a coefficient is not -1, 0 or 1"));
        }
        if let SecretDistribution::FixedWeight(h) = distribution {
            let weight = coefficients.iter().filter(|c| **c != 0).count();
            if weight != h {
                return Err(body.corrupt(format!("its weight is {weight}, not {h}")));
            }
        }
        Ok(secret_from(ctx, coefficients, distribution, body.key_id()))
    }
}

/// Content: distribution of the secret, seed, `b`.
impl WireObject for PublicKey {
    const KIND: Kind = Kind::PUBLIC_KEY;

    fn max_len(ctx: &Context) -> u64 {
        (4 + 32 + poly_len(ctx, ctx.params().max_level(), 0)) as u64
    }

    fn key_id(&self) -> Option<KeyId> {
        Some(self.id)
    }

    fn encode(&self, body: &mut BodyWriter<'_>) -> Result<(), CkksError> {
        check_same_parameters("public key", &self.ctx, body.context())?;
        encode_distribution(body, self.target);
        body.bytes(&self.seed);
        body.poly(&self.b, self.ctx.params().max_level());
        Ok(())
    }

    fn decode(body: &mut BodyReader<'_>) -> Result<Self, CkksError> {
        let ctx = body.context();
        let level = ctx.params().max_level();
        let target = decode_distribution(body)?;
        let seed = body.array()?;
        let b = body.poly(level, 0)?;
        let a = ctx.uniform(&seed, 0, level, 0);
        Ok(Self {
            ctx: ctx.clone(),
            b,
            a,
            seed,
            target,
            id: body.key_id(),
        })
    }
}

/// Content: level, number of special primes, role, distribution of the target secret, seed, then `b` of every digit.
impl WireObject for SwitchingKey {
    const KIND: Kind = Kind::SWITCHING_KEY;

    fn max_len(ctx: &Context) -> u64 {
        let (level, special) = (ctx.params().max_level(), ctx.params().p_len());
        (64 + ctx.params().digits_at(level) * poly_len(ctx, level, special)) as u64
    }

    fn key_id(&self) -> Option<KeyId> {
        Some(self.id)
    }

    fn encode(&self, body: &mut BodyWriter<'_>) -> Result<(), CkksError> {
        crate::key_switch::check_key(body.context(), self, 0)?;
        body.size(self.level);
        body.size(self.special);
        let (tag, value) = match self.role {
            KeyRole::Relinearisation => (0, 0),
            KeyRole::Galois(element) => (1, element),
            KeyRole::Switch(number) => (2, number as u64),
        };
        body.u8(tag);
        body.u64(value);
        encode_distribution(body, self.target);
        body.bytes(&self.seed);
        self.digits.iter().for_each(|(b, _)| body.packed_poly(b));
        Ok(())
    }

    fn decode(body: &mut BodyReader<'_>) -> Result<Self, CkksError> {
        let ctx = body.context();
        let level = body.level()?;
        let special = body.size("number of special primes", ctx.params().p_len())?;
        KeyShape { level, special }
            .check(ctx.params())
            .map_err(|e| body.corrupt(e.to_string()))?;
        let role = match (body.u8()?, body.u64()?) {
            (0, 0) => KeyRole::Relinearisation,
            (1, element) if element % 2 == 1 && element < 2 * ctx.n() as u64 => {
                KeyRole::Galois(element)
            }
            (2, number) if u32::try_from(number).is_ok() => KeyRole::Switch(number as u32),
            (tag, value) => {
                return Err(body.corrupt(format!("its role ({tag}, {value}) does not exist")));
            }
        };
        let target = decode_distribution(body)?;
        let seed = body.array()?;
        let digits = (0..ctx.params().digits_at(level))
            .map(|digit| {
                Ok((
                    ctx.packed(&body.poly(level, special)?, level),
                    ctx.packed(&ctx.uniform(&seed, digit, level, special), level),
                ))
            })
            .collect::<Result<_, CkksError>>()?;
        Ok(Self {
            level,
            special,
            role,
            digits,
            seed,
            target,
            id: body.key_id(),
        })
    }
}
