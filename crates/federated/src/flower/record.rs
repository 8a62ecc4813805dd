//! What messages carry: named records of arrays, numbers and settings.

use std::io::Write;

use super::proto::Scalar;
use crate::{FederatedError, NamedTensors};

/// Largest number of values that an array of a message may claim to have.
const MOST_VALUES: usize = 1 << 31;

/// An array with its serialisation. `stype` `numpy.ndarray` is the content of an `.npy` file; other names pass through Flower unharmed.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// `float32`, `uint8`, ….
    pub dtype: String,
    /// Sizes.
    pub shape: Vec<i64>,
    /// Name of the serialisation.
    pub stype: String,
    /// Bytes.
    pub data: Vec<u8>,
}

/// A record.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// Arrays by name, in order.
    Arrays(Vec<(String, Array)>),
    /// Numbers by name.
    Metrics(Vec<(String, Scalar)>),
    /// Settings by name.
    Config(Vec<(String, Scalar)>),
}

/// The content of a message: records by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Content(pub Vec<(String, Record)>);

fn wrong(what: &str, problem: impl Into<String>) -> FederatedError {
    FederatedError::format(
        what,
        problem,
        "the other side must be Flower's or this version's",
    )
}

impl Array {
    /// A tensor of 32-bit numbers.
    pub fn from_f32(shape: &[usize], values: &[f32]) -> Self {
        let mut data = npy_head("<f4", shape);
        for v in values {
            data.extend(v.to_le_bytes());
        }
        Self {
            dtype: "float32".into(),
            shape: shape.iter().map(|&s| s as i64).collect(),
            stype: "numpy.ndarray".into(),
            data,
        }
    }

    /// Bytes that only the receiver understands.
    pub fn from_bytes(stype: &str, bytes: &[u8]) -> Self {
        Self {
            dtype: "uint8".into(),
            shape: vec![bytes.len() as i64],
            stype: stype.into(),
            data: bytes.to_vec(),
        }
    }

    /// The tensor: little-endian 32- or 64-bit floating-point numbers in C order, as NumPy writes them.
    ///
    /// # Errors
    /// [`FederatedError::Format`] for anything else.
    pub fn to_f32(&self) -> Result<(Vec<usize>, Vec<f32>), FederatedError> {
        let bad = |problem: String| wrong("array of a message", problem);
        if self.stype != "numpy.ndarray" {
            return Err(bad(format!(
                "it is serialised as `{}`, expected numpy.ndarray",
                self.stype
            )));
        }
        let (head, body) = npy_split(&self.data)?;
        let field = |name: &str| -> Option<&str> {
            let at = head.find(&format!("'{name}':"))? + name.len() + 3;
            Some(head[at..].trim_start())
        };
        let descr = field("descr").and_then(|d| d.strip_prefix('\'')?.split('\'').next());
        if field("fortran_order").is_none_or(|f| !f.starts_with("False")) {
            return Err(bad("it is in Fortran order, expected C order".into()));
        }
        let shape: Vec<usize> = field("shape")
            .and_then(|s| s.strip_prefix('(')?.split(')').next())
            .map(|s| {
                s.split(',')
                    .map(str::trim)
                    .filter(|x| !x.is_empty())
                    .map(str::parse)
                    .collect()
            })
            .and_then(Result::ok)
            .ok_or_else(|| bad("its head has no shape".into()))?;
        let count = shape
            .iter()
            .try_fold(1usize, |n, s| n.checked_mul(*s))
            .filter(|n| *n <= MOST_VALUES)
            .ok_or_else(|| bad(format!("its shape {shape:?} is too large")))?;
        let values: Vec<f32> = match descr {
            Some("<f4") if body.len() == 4 * count => body
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .collect(),
            Some("<f8") if body.len() == 8 * count => body
                .chunks_exact(8)
                .map(|b| {
                    f64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]) as f32
                })
                .collect(),
            other => {
                return Err(bad(format!(
                    "{} bytes of type {other:?} for shape {shape:?}, expected <f4 or <f8",
                    body.len()
                )));
            }
        };
        Ok((shape, values))
    }
}

/// The head of an `.npy` file of version 1.0.
fn npy_head(descr: &str, shape: &[usize]) -> Vec<u8> {
    let sizes: String = match shape {
        [one] => format!("{one},"),
        many => many
            .iter()
            .map(usize::to_string)
            .collect::<Vec<_>>()
            .join(", "),
    };
    let mut text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({sizes}), }}");
    while !(10 + text.len() + 1).is_multiple_of(64) {
        text.push(' ');
    }
    text.push('\n');
    let mut out = b"\x93NUMPY\x01\x00".to_vec();
    // Writing to a vector does not fail.
    let _ = out.write_all(&(text.len() as u16).to_le_bytes());
    out.extend(text.as_bytes());
    out
}

fn npy_split(data: &[u8]) -> Result<(&str, &[u8]), FederatedError> {
    let bad = |problem: &str| wrong("array of a message", problem);
    let rest = data
        .strip_prefix(b"\x93NUMPY")
        .ok_or_else(|| bad("it does not begin as an .npy file"))?;
    let (version, rest) = rest
        .split_at_checked(2)
        .ok_or_else(|| bad("it ends early"))?;
    let width = if version[0] == 1 { 2 } else { 4 };
    let (size, rest) = rest
        .split_at_checked(width)
        .ok_or_else(|| bad("it ends early"))?;
    let size = size
        .iter()
        .rev()
        .fold(0usize, |n, b| n << 8 | usize::from(*b));
    let (head, body) = rest
        .split_at_checked(size)
        .ok_or_else(|| bad("it ends early"))?;
    let head = std::str::from_utf8(head).map_err(|_| bad("its head is not text"))?;
    Ok((head, body))
}

impl Content {
    /// Bytes of its arrays, numbers and names, near enough to what travels; nothing is copied to know it.
    pub fn size(&self) -> u64 {
        let values = |v: &[(String, Scalar)]| -> u64 {
            v.iter()
                .map(|(name, s)| (name.len() + s.encoded_len()) as u64)
                .sum()
        };
        self.0
            .iter()
            .map(|(name, r)| {
                let inside = match r {
                    Record::Arrays(all) => all
                        .iter()
                        .map(|(name, a)| (name.len() + a.data.len()) as u64)
                        .sum(),
                    Record::Metrics(v) | Record::Config(v) => values(v),
                };
                name.len() as u64 + inside
            })
            .sum()
    }

    /// The record of this name.
    pub fn get(&self, name: &str) -> Option<&Record> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, r)| r)
    }

    /// The arrays called `name`, or the only record of arrays there is.
    ///
    /// # Errors
    /// [`FederatedError::Format`] when there are none.
    pub fn arrays(&self, name: &str) -> Result<&[(String, Array)], FederatedError> {
        let named = match self.get(name) {
            Some(Record::Arrays(a)) => Some(a),
            _ => None,
        };
        let mut all = self.0.iter().filter_map(|(_, r)| match r {
            Record::Arrays(a) => Some(a),
            _ => None,
        });
        named
            .or_else(|| all.next().filter(|_| all.next().is_none()))
            .map(Vec::as_slice)
            .ok_or_else(|| wrong("message", format!("it has no arrays called `{name}`")))
    }

    /// A value of any record of numbers or settings.
    pub fn value(&self, name: &str) -> Option<&Scalar> {
        self.0.iter().find_map(|(_, r)| match r {
            Record::Metrics(v) | Record::Config(v) => {
                v.iter().find(|(n, _)| n == name).map(|(_, s)| s)
            }
            Record::Arrays(_) => None,
        })
    }

    /// A number, of whatever kind.
    pub fn number(&self, name: &str) -> Option<f64> {
        match self.value(name)? {
            Scalar::Double(x) => Some(*x),
            Scalar::Sint(x) => Some(*x as f64),
            Scalar::Uint(x) => Some(*x as f64),
            _ => None,
        }
    }

    /// Text.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.value(name)? {
            Scalar::Text(t) => Some(t),
            _ => None,
        }
    }

    /// Bytes that were sent as an array of one's own serialisation.
    pub fn bytes(&self, record: &str, stype: &str) -> Option<&[u8]> {
        match self.get(record)? {
            Record::Arrays(a) => a
                .iter()
                .find(|(_, a)| a.stype == stype)
                .map(|(_, a)| a.data.as_slice()),
            _ => None,
        }
    }
}

/// Tensors as a record.
pub fn from_tensors(tensors: &NamedTensors) -> Record {
    Record::Arrays(
        tensors
            .iter()
            .map(|t| (t.name.clone(), Array::from_f32(&t.shape, &t.values)))
            .collect(),
    )
}

/// Arrays as tensors with the names and shapes of `like`, whatever their order.
///
/// # Errors
/// [`FederatedError::Format`] for arrays that are not numbers, [`FederatedError::Layout`] when names or shapes differ.
pub fn to_tensors(
    arrays: &[(String, Array)],
    like: &NamedTensors,
) -> Result<NamedTensors, FederatedError> {
    let mut out = NamedTensors::new();
    for t in like.iter() {
        let array =
            arrays
                .iter()
                .find(|(n, _)| *n == t.name)
                .ok_or_else(|| FederatedError::Layout {
                    what: "tensors of a message".into(),
                    tensor: t.name.clone(),
                    expected: format!("{:?}", t.shape),
                    found: "nothing".into(),
                    remedy: "both ends must use the same model and adapter settings".into(),
                })?;
        let (shape, values) = array.1.to_f32()?;
        if shape != t.shape {
            return Err(FederatedError::Layout {
                what: "tensors of a message".into(),
                tensor: t.name.clone(),
                expected: format!("{:?}", t.shape),
                found: format!("{shape:?}"),
                remedy: "both ends must use the same model and adapter settings".into(),
            });
        }
        out.insert(t.name.as_str(), &shape, values)?;
    }
    if arrays.len() != like.len() {
        return Err(wrong(
            "tensors of a message",
            format!("{} arrays, expected {}", arrays.len(), like.len()),
        ));
    }
    out.check_finite("a tensor of a message")?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn arrays_are_npy_files_and_come_back() {
        let a = Array::from_f32(&[2, 3], &[1.0, -2.5, 0.0, 4.0, 5.0, -6.0]);
        assert_eq!(a.data.len(), 128 + 24);
        assert!(a.data.windows(20).any(|w| w == b"{'descr': '<f4', 'fo"));
        let (shape, values) = a.to_f32().unwrap();
        assert_eq!((shape, values[1]), (vec![2, 3], -2.5));
        let scalar = Array::from_f32(&[], &[7.0]).to_f32().unwrap();
        assert_eq!(scalar, (vec![], vec![7.0]));
        let mut tensors = NamedTensors::new();
        tensors.insert("b", &[2], vec![1.0, 2.0]).unwrap();
        tensors.insert("a", &[1, 1], vec![3.0]).unwrap();
        let Record::Arrays(mut arrays) = from_tensors(&tensors) else {
            unreachable!()
        };
        arrays.reverse();
        assert_eq!(to_tensors(&arrays, &tensors).unwrap(), tensors);
        arrays.pop();
        assert!(to_tensors(&arrays, &tensors).is_err());
        let nan = vec![
            ("b".to_owned(), Array::from_f32(&[2], &[f32::NAN, 0.0])),
            ("a".to_owned(), Array::from_f32(&[1, 1], &[0.0])),
        ];
        assert!(to_tensors(&nan, &tensors).is_err());
    }

    proptest! {
        #[test]
        fn noise_is_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), cut in 0usize..200, at in 0usize..128, bit in 0u32..8) {
            let mut a = Array::from_f32(&[3, 4], &[1.0; 12]);
            a.data[at] ^= 1 << bit;
            a.data.truncate(a.data.len().saturating_sub(cut));
            let _ = a.to_f32();
            a.data = bytes;
            prop_assert!(a.to_f32().is_err());
        }
    }
}
