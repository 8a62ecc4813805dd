//! Updates as bytes: exact, the largest values only, few bits, or ternary; what is left out is kept for the next round.
//!
//! ```text
//! update + kept error ──► top-k? ──► values: f32 | 8 bits | 4 bits | ternary ──► bytes
//!        ▲                                                                         │
//!        └──────────────── kept error = that sum - what the bytes say ◄────────────┘
//! ```
//!
//! | part | bytes |
//! | --- | --- |
//! | head | 4 magic `TFU1`, 1 kind of values, 1 whether positions follow, 8 of the layout's BLAKE3, 4 number of values sent |
//! | positions (top-k) | distances between kept positions as LEB128 numbers |
//! | scales (not f32) | 4 for each tensor |
//! | values | 4 each; 1 each (`round(127 x / max)`); 1 per two (`round(7 x / max)`); 1 per five (base 3) |
//!
//! Error feedback: arXiv 1901.09847. Ternary updates: 1705.07878, here without randomness, since what a round drops the next one sends.

use serde::{Deserialize, Serialize};

use crate::{FederatedError, NamedTensors};

const MAGIC: &[u8; 4] = b"TFU1";
const HEAD: usize = 18;

/// How values are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Values {
    /// 32-bit floating point.
    #[default]
    F32,
    /// 8 bits, one scale a tensor.
    Int8,
    /// 4 bits, one scale a tensor.
    Int4,
    /// -1, 0, 1 times one scale a tensor: 1.6 bits.
    Ternary,
}

impl Values {
    fn code(self) -> u8 {
        self as u8
    }

    /// Bytes of `n` values without scales.
    fn bytes(self, n: usize) -> usize {
        match self {
            Self::F32 => 4 * n,
            Self::Int8 => n,
            Self::Int4 => n.div_ceil(2),
            Self::Ternary => n.div_ceil(5),
        }
    }
}

/// A way to write updates.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Codec {
    /// Share of values that are sent, the largest by magnitude; all without it.
    pub top_k: Option<f64>,
    /// How values are written.
    pub values: Values,
}

impl Codec {
    /// Whether decoding gives back exactly what was encoded.
    pub fn is_exact(&self) -> bool {
        self.top_k.is_none() && self.values == Values::F32
    }

    /// The bytes of `update`.
    pub fn encode(&self, update: &NamedTensors) -> Vec<u8> {
        let flat = update.flatten();
        let kept = self.top_k.map(|share| largest(&flat, share));
        let count = kept.as_ref().map_or(flat.len(), Vec::len);
        let mut out = Vec::with_capacity(HEAD + self.values.bytes(count));
        out.extend(MAGIC);
        out.push(self.values.code());
        out.push(u8::from(kept.is_some()));
        out.extend(&layout(update)[..8]);
        out.extend((count as u32).to_le_bytes());
        if let Some(kept) = &kept {
            let mut next = 0usize;
            for &i in kept {
                leb128(&mut out, i - next);
                next = i + 1;
            }
        }
        // The values of each tensor, in order of position.
        let mut groups: Vec<Vec<f32>> = Vec::with_capacity(update.len());
        let (mut at, mut k) = (0, 0);
        for t in update.iter() {
            let end = at + t.values.len();
            groups.push(match &kept {
                None => t.values.clone(),
                Some(kept) => {
                    let from = k;
                    while k < kept.len() && kept[k] < end {
                        k += 1;
                    }
                    kept[from..k].iter().map(|&i| flat[i]).collect()
                }
            });
            at = end;
        }
        match self.values {
            Values::F32 => out.extend(groups.iter().flatten().flat_map(|v| v.to_le_bytes())),
            Values::Int8 | Values::Int4 => {
                let steps = if self.values == Values::Int8 {
                    127.0f32
                } else {
                    7.0
                };
                let mut codes = Vec::with_capacity(count);
                for g in &groups {
                    let max = g.iter().fold(0f32, |m, x| m.max(x.abs()));
                    let scale = max / steps;
                    out.extend(scale.to_le_bytes());
                    codes.extend(g.iter().map(|x| {
                        if scale > 0.0 {
                            (x / scale).round().clamp(-steps, steps) as i8
                        } else {
                            0
                        }
                    }));
                }
                if self.values == Values::Int8 {
                    out.extend(codes.iter().map(|c| *c as u8));
                } else {
                    out.extend(codes.chunks(2).map(|c| {
                        let low = (c[0] + 8) as u8;
                        let high = (c.get(1).copied().unwrap_or(0) + 8) as u8;
                        low | high << 4
                    }));
                }
            }
            Values::Ternary => {
                let mut trits = Vec::with_capacity(count);
                for g in &groups {
                    let mean =
                        g.iter().map(|x| f64::from(x.abs())).sum::<f64>() / g.len().max(1) as f64;
                    let limit = (0.5 * mean) as f32;
                    let (mut sum, mut n) = (0f64, 0usize);
                    for x in g {
                        let t = i8::from(*x > limit) - i8::from(*x < -limit);
                        if t != 0 {
                            sum += f64::from(x.abs());
                            n += 1;
                        }
                        trits.push(t);
                    }
                    out.extend(((sum / n.max(1) as f64) as f32).to_le_bytes());
                }
                out.extend(
                    trits
                        .chunks(5)
                        .map(|c| c.iter().rev().fold(0u8, |b, t| b * 3 + (t + 1) as u8)),
                );
            }
        }
        out
    }

    /// Writes `update` plus the error kept from earlier rounds, and keeps the new error. Returns the bytes and what they say.
    ///
    /// # Errors
    /// [`FederatedError::Layout`] when the kept error is of another layout.
    pub fn encode_with_feedback(
        &self,
        update: &NamedTensors,
        kept: &mut NamedTensors,
    ) -> Result<(Vec<u8>, NamedTensors), FederatedError> {
        if self.is_exact() {
            return Ok((self.encode(update), update.clone()));
        }
        let mut wanted = update.clone();
        if !kept.is_empty() {
            wanted.axpy(1.0, kept)?;
        }
        let bytes = self.encode(&wanted);
        let said = decode(&bytes, update)?;
        *kept = wanted.difference(&said)?;
        Ok((bytes, said))
    }
}

/// Reads an update in the layout of `like`.
///
/// # Errors
/// [`FederatedError::Format`] when the bytes are not such an update: wrong head, other layout, positions out of range, missing or surplus
/// bytes, or a scale that is no number.
pub fn decode(bytes: &[u8], like: &NamedTensors) -> Result<NamedTensors, FederatedError> {
    let bad = |problem: String| {
        FederatedError::format(
            "an update",
            problem,
            "both ends must run the same version with the same configuration",
        )
    };
    if bytes.len() < HEAD || &bytes[..4] != MAGIC {
        return Err(bad("does not begin with TFU1 and a head of 18 bytes".into()));
    }
    let values = match bytes[4] {
        0 => Values::F32,
        1 => Values::Int8,
        2 => Values::Int4,
        3 => Values::Ternary,
        c => return Err(bad(format!("has values of unknown kind {c}"))),
    };
    if bytes[6..14] != layout(like)[..8] {
        return Err(bad("is of another model or adapter".into()));
    }
    let n = like.count();
    let count = u32::from_le_bytes([bytes[14], bytes[15], bytes[16], bytes[17]]) as usize;
    let mut rest = &bytes[HEAD..];
    let kept: Option<Vec<usize>> = match bytes[5] {
        0 if count == n => None,
        1 if count <= n => {
            let mut kept = Vec::with_capacity(count);
            let mut next = 0usize;
            for _ in 0..count {
                let (distance, behind) =
                    read_leb128(rest).ok_or_else(|| bad("ends among its positions".into()))?;
                rest = behind;
                let i = next
                    .checked_add(distance)
                    .filter(|&i| i < n)
                    .ok_or_else(|| bad(format!("has a position beyond {n} values")))?;
                kept.push(i);
                next = i + 1;
            }
            Some(kept)
        }
        f => return Err(bad(format!("says {count} of {n} values with flag {f}"))),
    };
    // How many values each tensor has.
    let mut sizes = Vec::with_capacity(like.len());
    let (mut at, mut k) = (0, 0);
    for t in like.iter() {
        let end = at + t.values.len();
        sizes.push(match &kept {
            None => t.values.len(),
            Some(kept) => {
                let from = k;
                while k < kept.len() && kept[k] < end {
                    k += 1;
                }
                k - from
            }
        });
        at = end;
    }
    let scales_bytes = if values == Values::F32 {
        0
    } else {
        4 * like.len()
    };
    if rest.len() != scales_bytes + values.bytes(count) {
        return Err(bad(format!(
            "has {} bytes of values, expected {}",
            rest.len(),
            scales_bytes + values.bytes(count)
        )));
    }
    let (scales, body) = rest.split_at(scales_bytes);
    let floats = |b: &[u8]| -> Vec<f32> {
        b.as_chunks::<4>()
            .0
            .iter()
            .map(|b| f32::from_le_bytes(*b))
            .collect()
    };
    let scales = floats(scales);
    if let Some(s) = scales.iter().find(|s| !s.is_finite()) {
        return Err(bad(format!("has the scale {s}")));
    }
    let mut codes: Vec<f32> = match values {
        Values::F32 => floats(body),
        Values::Int8 => body.iter().map(|b| f32::from(*b as i8)).collect(),
        Values::Int4 => body
            .iter()
            .flat_map(|b| [f32::from(b & 15) - 8.0, f32::from(b >> 4) - 8.0])
            .collect(),
        Values::Ternary => {
            if let Some(b) = body.iter().find(|b| **b >= 243) {
                return Err(bad(format!("has the byte {b} where five trits stand")));
            }
            body.iter()
                .flat_map(|b| {
                    let mut b = *b;
                    std::array::from_fn::<f32, 5, _>(|_| {
                        let t = b % 3;
                        b /= 3;
                        f32::from(t) - 1.0
                    })
                })
                .collect()
        }
    };
    codes.truncate(count);
    if values != Values::F32 {
        let mut from = 0;
        for (size, scale) in sizes.iter().zip(&scales) {
            codes[from..from + size]
                .iter_mut()
                .for_each(|c| *c *= scale);
            from += size;
        }
    }
    match kept {
        None => like.unflatten(&codes),
        Some(kept) => {
            let mut flat = vec![0f32; n];
            for (i, v) in kept.into_iter().zip(codes) {
                flat[i] = v;
            }
            like.unflatten(&flat)
        }
    }
}

/// Positions of the `ceil(share n)` values of largest magnitude, ascending; of equal ones the earlier.
fn largest(flat: &[f32], share: f64) -> Vec<usize> {
    let k = ((share * flat.len() as f64).ceil() as usize).min(flat.len());
    let mut order: Vec<usize> = (0..flat.len()).collect();
    if k < flat.len() {
        order.select_nth_unstable_by(k, |&a, &b| {
            flat[b].abs().total_cmp(&flat[a].abs()).then(a.cmp(&b))
        });
        order.truncate(k);
    }
    order.sort_unstable();
    order
}

/// BLAKE3 of names and shapes.
fn layout(t: &NamedTensors) -> [u8; 32] {
    let mut h = blake3::Hasher::new();
    for t in t.iter() {
        h.update(&(t.name.len() as u64).to_le_bytes());
        h.update(t.name.as_bytes());
        h.update(&(t.shape.len() as u64).to_le_bytes());
        for &axis in &t.shape {
            h.update(&(axis as u64).to_le_bytes());
        }
    }
    *h.finalize().as_bytes()
}

fn leb128(out: &mut Vec<u8>, mut n: usize) {
    while n >= 128 {
        out.push((n & 127) as u8 | 128);
        n >>= 7;
    }
    out.push(n as u8);
}

fn read_leb128(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut n = 0usize;
    for (i, b) in bytes.iter().enumerate().take(5) {
        n |= usize::from(b & 127) << (7 * i);
        if b & 128 == 0 {
            return Some((n, &bytes[i + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{normal, stream};
    use proptest::prelude::*;

    fn update(label: u64) -> NamedTensors {
        let mut rng = stream(5, "compress", &[label]);
        let mut t = NamedTensors::new();
        for (name, rows, cols, size) in
            [("a", 40, 31, 1.0), ("zero", 3, 1, 0.0), ("b", 13, 7, 1e-3)]
        {
            let v = (0..rows * cols)
                .map(|_| (size * normal(&mut rng)) as f32)
                .collect();
            t.insert(name, &[rows, cols], v).unwrap();
        }
        t
    }

    fn codecs() -> Vec<Codec> {
        [None, Some(0.1)]
            .into_iter()
            .flat_map(|top_k| {
                [Values::F32, Values::Int8, Values::Int4, Values::Ternary]
                    .map(|values| Codec { top_k, values })
            })
            .collect()
    }

    #[test]
    fn sizes_are_as_the_table_says_and_errors_within_half_a_step() {
        let u = update(1);
        let n = u.count();
        assert_eq!(n, 1240 + 3 + 91);
        for (values, size) in [
            (Values::F32, 18 + 4 * n),
            (Values::Int8, 18 + 12 + n),
            (Values::Int4, 18 + 12 + n.div_ceil(2)),
            (Values::Ternary, 18 + 12 + n.div_ceil(5)),
        ] {
            let codec = Codec {
                top_k: None,
                values,
            };
            let bytes = codec.encode(&u);
            assert_eq!(bytes.len(), size);
            let said = decode(&bytes, &u).unwrap();
            for (t, s) in u.iter().zip(said.iter()) {
                let max = t.values.iter().fold(0f32, |m, x| m.max(x.abs()));
                let step = match values {
                    Values::F32 => 0.0,
                    Values::Int8 => 0.5 * max / 127.0,
                    Values::Int4 => 0.5 * max / 7.0,
                    Values::Ternary => max,
                };
                assert!(
                    t.values
                        .iter()
                        .zip(&s.values)
                        .all(|(a, b)| (a - b).abs() <= 1.0001 * step)
                );
            }
        }
        let top = Codec {
            top_k: Some(0.1),
            values: Values::F32,
        };
        let said = decode(&top.encode(&u), &u).unwrap().flatten();
        let kept = said.iter().filter(|x| **x != 0.0).count();
        assert_eq!(kept, n.div_ceil(10));
        let smallest = said
            .iter()
            .filter(|x| **x != 0.0)
            .fold(f32::MAX, |m, x| m.min(x.abs()));
        let dropped = u
            .flatten()
            .iter()
            .zip(&said)
            .filter(|(_, s)| **s == 0.0)
            .fold(0f32, |m, (x, _)| m.max(x.abs()));
        assert!(smallest >= dropped);
        assert!(top.encode(&u).len() < 18 + 134 * 4 + 134 + 20);
    }

    #[test]
    fn feedback_sends_in_the_end_what_was_dropped() {
        for codec in codecs().into_iter().filter(|c| !c.is_exact()) {
            let mut kept = NamedTensors::new();
            let mut sum = update(0).zeros_like();
            let mut want = sum.clone();
            for round in 0..40 {
                let u = update(round % 3);
                want.axpy(1.0, &u).unwrap();
                let (_, said) = codec.encode_with_feedback(&u, &mut kept).unwrap();
                sum.axpy(1.0, &said).unwrap();
            }
            // All that was ever wanted is what was sent and what is still kept.
            sum.axpy(1.0, &kept).unwrap();
            assert!(
                sum.difference(&want).unwrap().norm() < 1e-4 * want.norm(),
                "{codec:?}"
            );
            assert!(kept.norm() < want.norm(), "{codec:?}");
        }
        let exact = Codec::default();
        let mut kept = NamedTensors::new();
        let (_, said) = exact.encode_with_feedback(&update(1), &mut kept).unwrap();
        assert_eq!((said, kept.is_empty()), (update(1), true));
    }

    proptest! {
        #[test]
        fn damaged_updates_are_refused_or_read_but_never_panic(which in 0usize..8, at in any::<prop::sample::Index>(), to in any::<u8>(), cut in any::<prop::sample::Index>()) {
            let u = update(1);
            let mut bytes = codecs()[which].encode(&u);
            let i = at.index(bytes.len());
            bytes[i] = to;
            let _ = decode(&bytes, &u);
            bytes.truncate(cut.index(bytes.len()));
            prop_assert!(decode(&bytes, &u).is_err());
        }

        #[test]
        fn outside_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let u = update(1);
            let _ = decode(&bytes, &u);
            if bytes.len() >= HEAD {
                bytes[..4].copy_from_slice(MAGIC);
                bytes[4] %= 4;
                bytes[5] = 1;
                bytes[6..14].copy_from_slice(&layout(&u)[..8]);
                bytes[16..18].fill(0);
                let _ = decode(&bytes, &u);
            }
        }
    }
}
