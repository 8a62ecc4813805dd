//! Wire forms of the two keys: the seed of the uniform halves and the packed other halves.

use super::{MlweShape, RepackKey, RingSwitchKey, ring_switch::digit_count};
use crate::{
    CkksError, Context, KeyId,
    security::SecretDistribution,
    wire::{BodyReader, BodyWriter, Kind, WireObject, poly_len},
};

fn same_parameters(
    what: &'static str,
    key: &crate::Parameters,
    ctx: &Context,
) -> Result<(), CkksError> {
    if key != ctx.params() {
        let expected = format!("N = {} and the parameters of the writer", ctx.n());
        return Err(CkksError::Shape {
            what,
            found: key.n(),
            expected,
        });
    }
    Ok(())
}

/// Content: seed, then `b` of every digit.
impl WireObject for RingSwitchKey {
    const KIND: Kind = Kind::RING_SWITCH_KEY;

    fn max_len(ctx: &Context) -> u64 {
        (32 + digits(ctx) * poly_len(ctx, 0, 0)) as u64
    }

    fn key_id(&self) -> Option<KeyId> {
        Some(self.id)
    }

    fn encode(&self, body: &mut BodyWriter<'_>) -> Result<(), CkksError> {
        same_parameters("ring-switch key", &self.params, body.context())?;
        body.bytes(&self.seed);
        self.digits.iter().for_each(|[b, _]| body.poly(b, 0));
        Ok(())
    }

    fn decode(body: &mut BodyReader<'_>) -> Result<Self, CkksError> {
        let ctx = body.context();
        let seed = body.array()?;
        let digits = (0..digits(ctx))
            .map(|i| Ok([body.poly(0, 0)?, ctx.uniform(&seed, i, 0, 0)]))
            .collect::<Result<_, CkksError>>()?;
        Ok(Self {
            params: ctx.params().clone(),
            id: body.key_id(),
            seed,
            digits,
        })
    }
}

fn digits(ctx: &Context) -> usize {
    digit_count(
        &ctx.params().q(0),
        ctx.params().literal().ring_switch_digit_bits,
    )
}

/// Content: tokens, weight of the target secret (0 for dense), seed, then `b` of every component.
impl WireObject for RepackKey {
    const KIND: Kind = Kind::REPACK_KEY;

    fn max_len(ctx: &Context) -> u64 {
        let most = 1 << ctx.params().literal().small_log_n;
        (4 + 4 + 32 + most * poly_len(ctx, 0, 1)) as u64
    }

    fn key_id(&self) -> Option<KeyId> {
        Some(self.id)
    }

    fn encode(&self, body: &mut BodyWriter<'_>) -> Result<(), CkksError> {
        same_parameters("repack key", &self.params, body.context())?;
        body.size(self.shape.tokens());
        body.size(match self.target {
            SecretDistribution::DenseTernary => 0,
            SecretDistribution::FixedWeight(weight) => weight,
        });
        body.bytes(&self.seed);
        self.keys.iter().for_each(|[b, _]| body.poly(b, 0));
        Ok(())
    }

    fn decode(body: &mut BodyReader<'_>) -> Result<Self, CkksError> {
        let ctx = body.context();
        let small_degree = 1 << ctx.params().literal().small_log_n;
        let tokens = body.size("number of tokens", small_degree)?;
        let shape = MlweShape::new(ctx.n(), small_degree, tokens)
            .map_err(|e| body.corrupt(e.to_string()))?;
        let target = match body.size("weight of the target secret", ctx.n())? {
            0 => SecretDistribution::DenseTernary,
            weight => SecretDistribution::FixedWeight(weight),
        };
        let seed = body.array()?;
        let keys = (0..shape.rank())
            .map(|i| Ok([body.poly(0, 1)?, ctx.uniform(&seed, i, 0, 1)]))
            .collect::<Result<_, CkksError>>()?;
        Ok(Self {
            params: ctx.params().clone(),
            shape,
            id: body.key_id(),
            target,
            seed,
            keys,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        InsecureParameters, KeyGenerator, ParametersLiteral,
        mlwe::{MlweContext, MlweKeys},
        wire::{Reader, Writer},
    };
    use std::sync::Arc;
    use tacit_ring::sampling::secure_rng;

    fn context(levels: usize) -> Arc<Context> {
        Context::new(InsecureParameters::new(ParametersLiteral::levelled(10, levels, 1)).unwrap())
            .unwrap()
    }

    fn keys(ctx: &Arc<Context>, tokens: usize) -> MlweKeys {
        let mut generator = KeyGenerator::new(ctx.clone());
        let secret = generator.secret();
        let ephemeral = generator.ephemeral_secret(&secret).unwrap();
        let context = MlweContext::new(ctx, tokens).unwrap();
        MlweKeys::generate(&context, &secret, &ephemeral, &mut secure_rng()).unwrap()
    }

    #[test]
    fn keys_survive_the_wire() {
        let ctx = context(1);
        let keys = keys(&ctx, 16);
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&ctx, keys.id(), &mut bytes);
        writer.write(keys.ring_switch()).unwrap();
        writer.write(keys.repack()).unwrap();
        // Half of each key is a seed, and 50 of 64 bits are sent.
        assert!((bytes.len() as f64) < 0.4 * keys.bytes() as f64);

        let mut reader = Reader::new(&ctx, Some(keys.id()), &bytes[..]);
        let back = MlweKeys::new(reader.read().unwrap(), reader.read().unwrap()).unwrap();
        assert_eq!(
            (back.id(), back.descriptions()),
            (keys.id(), keys.descriptions())
        );
        let polys = |keys: &MlweKeys| -> Vec<Vec<u64>> {
            let all = keys
                .ring_switch()
                .digits
                .iter()
                .chain(&keys.repack().keys)
                .flatten();
            all.map(|poly| poly.as_slice().to_vec()).collect()
        };
        assert!(polys(&back) == polys(&keys));

        let again = |bytes: &[u8]| Reader::new(&ctx, None, bytes).read::<RingSwitchKey>().err();
        for len in [0, 63, 64, 1000, 5000] {
            assert!(
                matches!(again(&bytes[..len]), Some(CkksError::Truncated { .. })),
                "{len} bytes"
            );
        }
        let mut flipped = bytes.clone();
        flipped[2000] ^= 1;
        assert!(matches!(again(&flipped), Some(CkksError::Corrupt { .. })));
        let error = Reader::new(&ctx, None, &bytes[..])
            .read::<RepackKey>()
            .err();
        assert!(matches!(error, Some(CkksError::WrongKind { .. })));
        let other = context(2);
        let error = Reader::new(&other, None, &bytes[..])
            .read::<RingSwitchKey>()
            .err();
        assert!(matches!(error, Some(CkksError::ForeignParameters { .. })));
    }

    #[test]
    fn keys_of_two_clients_do_not_mix() {
        let ctx = context(1);
        let [a, b] = [keys(&ctx, 16), keys(&ctx, 16)];
        let error = MlweKeys::new(a.ring_switch().clone(), b.repack().clone()).err();
        assert!(matches!(error, Some(CkksError::ForeignKey { .. })));
    }
}
