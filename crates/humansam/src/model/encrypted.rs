//! The head on encrypted features: whoever holds the video computes its features, whoever holds the head never sees them.
//!
//! Fusion and head are one affine map `z = W x + b` ([`AffineHead`]). In the ring `Z_Q[X]/(X^N + 1)`, a product of polynomials holds
//! inner products among its coefficients: with blocks of `s ≥ width` coefficients, `C` classes and window `w` of a video,
//!
//! ```text
//! x(X) = Σ_w Σ_i x_{w,i} X^{C s w + i}        W(X) = Σ_k Σ_i W_{k,i} X^{s k + s − 1 − i}
//! coefficient C s w + s k + s − 1 of x · W  =  Σ_i x_{w,i} W_{k,i}
//! ```
//!
//! and no other pair of terms meets that coefficient, for a difference of block numbers cannot be made up by one of `i` below `s`. So a
//! ciphertext of features is multiplied once by a plaintext: no rotation, no evaluation key, nothing but the ciphertexts travels. The other
//! coefficients would tell about `W`; the server adds uniform residues there before it answers.
//!
//! Parameters: `N = 2^13`, `log2 QP = 150` of at most 214 bits for 128-bit security (two primes of 50 bits and the special prime that
//! the library always has; it is not used). Features and weights are encoded with scale `2^30`.

use std::sync::Arc;

use tacit_ckks::encrypt::{decrypt, encrypt_symmetric_seeded};
use tacit_ckks::wire::{Reader, Writer};
use tacit_ckks::{
    Ciphertext, CkksError, Context, Encoder, Evaluator, KeyGenerator, Parameters,
    ParametersLiteral, Plaintext, SecretKey, SeededCiphertext,
};
use tacit_ring::RnsPoly;
use tacit_ring::sampling::{secure_rng, uniform};

use super::fusion::AffineHead;
use crate::error::{HumansamError, Result};

/// `log2` of the scale of features and of weights.
const LOG_SCALE: i32 = 30;
/// The level of everything: two limbs.
const LEVEL: usize = 1;
/// Most ciphertexts of a message.
const MOST: usize = 64;

/// The parameters of both sides.
///
/// # Errors
/// Never, unless primes of the sizes asked for run out.
pub fn parameters() -> Result<Parameters> {
    Ok(Parameters::new(ParametersLiteral {
        q0_bits: 50,
        user_bits: vec![50],
        special_bits: vec![50],
        log_user_scale: 30,
        ephemeral_weight: 0,
        ..ParametersLiteral::levelled(13, 1, 1)
    })?)
}

/// Where windows and classes lie among the coefficients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    width: usize,
    classes: usize,
    stride: usize,
    windows: usize,
}

impl Layout {
    fn new(n: usize, width: usize, classes: usize) -> Result<Self> {
        let stride = width.next_power_of_two();
        let windows = n / (stride * classes).max(1);
        if width == 0 || classes == 0 || windows == 0 {
            return Err(HumansamError::Argument(format!(
                "a head of {classes} classes over {width} numbers does not fit into a ring of dimension {n}"
            )));
        }
        Ok(Self {
            width,
            classes,
            stride,
            windows,
        })
    }

    fn result(&self, window: usize, class: usize) -> usize {
        self.stride * (self.classes * window + class + 1) - 1
    }
}

fn argument(what: &'static str) -> impl FnOnce(CkksError) -> HumansamError {
    move |e| HumansamError::Argument(format!("{what}: {e}"))
}

/// A message: the number of ciphertexts in one byte, then each in its wire form.
fn written<T: tacit_ckks::wire::WireObject>(
    context: &Arc<Context>,
    key: tacit_ckks::KeyId,
    objects: &[T],
) -> Result<Vec<u8>> {
    let mut bytes = vec![objects.len() as u8];
    let mut writer = Writer::new(context, key, &mut bytes);
    for o in objects {
        writer.write(o)?;
    }
    Ok(bytes)
}

fn read<T: tacit_ckks::wire::WireObject>(
    context: &Arc<Context>,
    key: Option<tacit_ckks::KeyId>,
    bytes: &[u8],
    what: &'static str,
) -> Result<(Vec<T>, Option<tacit_ckks::KeyId>)> {
    let bad = |found: String| {
        HumansamError::Argument(format!(
            "{what}: expected a count of 1 to {MOST} and as many ciphertexts, found {found}"
        ))
    };
    let Some((&count, mut rest)) = bytes.split_first() else {
        return Err(bad("no bytes".to_owned()));
    };
    let count = usize::from(count);
    if !(1..=MOST).contains(&count) {
        return Err(bad(format!("a count of {count}")));
    }
    let mut reader = Reader::new(context, key, &mut rest);
    let objects = (0..count)
        .map(|_| reader.read())
        .collect::<std::result::Result<Vec<T>, _>>()
        .map_err(argument(what))?;
    let id = reader.key_id();
    if !rest.is_empty() {
        return Err(bad(format!("{} bytes more", rest.len())));
    }
    Ok((objects, id))
}

/// Who has the video and the secret key.
pub struct Client {
    context: Arc<Context>,
    secret: SecretKey,
    layout: Layout,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({:?})", self.layout)
    }
}

impl Client {
    /// A client with a new key, for heads of `classes` classes over `width` numbers.
    ///
    /// # Errors
    /// When such a head does not fit into the ring.
    pub fn new(width: usize, classes: usize) -> Result<Self> {
        let context = Context::new(parameters()?)?;
        Ok(Self {
            layout: Layout::new(context.n(), width, classes)?,
            secret: KeyGenerator::new(context.clone()).secret(),
            context,
        })
    }

    /// The encrypted features of the windows of a video, as bytes.
    ///
    /// # Errors
    /// When there are no windows, too many, or one has another length.
    pub fn question(&self, windows: &[Vec<f64>]) -> Result<Vec<u8>> {
        let l = self.layout;
        if windows.is_empty() || windows.len() > MOST * l.windows {
            return Err(HumansamError::Argument(format!(
                "1 to {} windows can be asked about at once, not {}",
                MOST * l.windows,
                windows.len()
            )));
        }
        if let Some(w) = windows.iter().find(|w| w.len() != l.width) {
            return Err(HumansamError::Argument(format!(
                "a feature of {} numbers for a head of {}",
                w.len(),
                l.width
            )));
        }
        let encoder = Encoder::new(self.context.clone());
        let mut rng = secure_rng();
        let sealed = windows
            .chunks(l.windows)
            .map(|some| {
                let mut coefficients = vec![0.0; self.context.n()];
                for (w, x) in some.iter().enumerate() {
                    let at = w * l.classes * l.stride;
                    coefficients[at..at + l.width].copy_from_slice(x);
                }
                let plain = encoder.encode_coeffs(&coefficients, 2f64.powi(LOG_SCALE), LEVEL)?;
                Ok(encrypt_symmetric_seeded(&plain, &self.secret, &mut rng)?)
            })
            .collect::<Result<Vec<SeededCiphertext>>>()?;
        written(&self.context, self.secret.id(), &sealed)
    }

    /// The logits of `windows` windows in the server's answer.
    ///
    /// # Errors
    /// When the bytes are not an answer to this client's question.
    pub fn logits(&self, answer: &[u8], windows: usize) -> Result<Vec<Vec<f64>>> {
        let l = self.layout;
        let (sealed, _) = read::<Ciphertext>(
            &self.context,
            Some(self.secret.id()),
            answer,
            "the server's answer",
        )?;
        if windows == 0 || sealed.len() != windows.div_ceil(l.windows) {
            return Err(HumansamError::Argument(format!(
                "{} ciphertexts answer {windows} windows; {} are expected",
                sealed.len(),
                windows.div_ceil(l.windows)
            )));
        }
        let encoder = Encoder::new(self.context.clone());
        let mut out = Vec::with_capacity(windows);
        for (c, sealed) in sealed.iter().enumerate() {
            let plain = decrypt(sealed, &self.secret)?;
            let coefficients = encoder.decode_coeffs(&plain)?;
            for w in 0..l.windows.min(windows - c * l.windows) {
                out.push(
                    (0..l.classes)
                        .map(|k| coefficients[l.result(w, k)])
                        .collect(),
                );
            }
        }
        Ok(out)
    }
}

/// Who has the head.
pub struct Server {
    evaluator: Evaluator,
    encoder: Encoder,
    layout: Layout,
    weights: Plaintext,
    bias: Vec<f64>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Server({:?})", self.layout)
    }
}

impl Server {
    /// A server of this head.
    ///
    /// # Errors
    /// When it does not fit into the ring.
    pub fn new(head: &AffineHead) -> Result<Self> {
        let context = Context::new(parameters()?)?;
        let layout = Layout::new(context.n(), head.width, head.classes)?;
        let encoder = Encoder::new(context.clone());
        let mut coefficients = vec![0.0; context.n()];
        for (k, row) in head.weight.chunks(head.width).enumerate() {
            for (i, w) in row.iter().enumerate() {
                coefficients[layout.result(0, k) - i] = *w;
            }
        }
        let weights = encoder.encode_coeffs(&coefficients, 2f64.powi(LOG_SCALE), LEVEL)?;
        Ok(Self {
            evaluator: Evaluator::new(context),
            encoder,
            layout,
            weights,
            bias: head.bias.clone(),
        })
    }

    /// Answers a client's question: `W x + b` of each window, all else hidden under uniform residues.
    ///
    /// # Errors
    /// When the bytes are not a question.
    pub fn answer(&self, question: &[u8]) -> Result<Vec<u8>> {
        let context = self.evaluator.context();
        let (asked, key) =
            read::<SeededCiphertext>(context, None, question, "the client's question")?;
        let Some(key) = key else {
            return Err(HumansamError::Argument(
                "the client's question names no key".to_owned(),
            ));
        };
        let answers = asked
            .iter()
            .map(|a| {
                let x = context.expand(a)?;
                if x.level != LEVEL || x.scale != 2f64.powi(LOG_SCALE) {
                    return Err(HumansamError::Argument(format!(
                        "the client's question has level {} and scale 2^{}; {LEVEL} and 2^{LOG_SCALE} are expected",
                        x.level,
                        x.scale.log2()
                    )));
                }
                let product = self.evaluator.mul_plain(&x, &self.weights)?;
                Ok(self
                    .evaluator
                    .add_plain(&product, &self.cover(product.scale)?)?)
            })
            .collect::<Result<Vec<Ciphertext>>>()?;
        written(context, key, &answers)
    }

    /// The bias where results are, uniform residues everywhere else.
    fn cover(&self, scale: f64) -> Result<Plaintext> {
        let (context, l) = (self.evaluator.context(), self.layout);
        let mut bias = vec![0.0; context.n()];
        let mut noise = RnsPoly::unspecified(context.n(), LEVEL + 1);
        let mut rng = secure_rng();
        for j in 0..=LEVEL {
            uniform(context.modulus(LEVEL, j), &mut rng, noise.limb_mut(j));
        }
        for w in 0..l.windows {
            for (k, b) in self.bias.iter().enumerate() {
                bias[l.result(w, k)] = *b;
                for j in 0..=LEVEL {
                    noise.limb_mut(j)[l.result(w, k)] = 0;
                }
            }
        }
        context.forward(&mut noise, LEVEL);
        let mut plain = self.encoder.encode_coeffs(&bias, scale, LEVEL)?;
        for j in 0..=LEVEL {
            let m = context.modulus(LEVEL, j);
            tacit_ring::ops::add_assign(m, plain.poly.limb_mut(j), noise.limb(j));
        }
        Ok(plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(width: usize) -> AffineHead {
        let at = |i: usize| ((i * 37 % 101) as f64 / 50.0 - 1.0) * 0.3;
        AffineHead {
            classes: 4,
            width,
            weight: (0..4 * width).map(at).collect(),
            bias: vec![0.5, -1.0, 0.25, 2.0],
        }
    }

    fn windows(count: usize, width: usize) -> Vec<Vec<f64>> {
        (0..count)
            .map(|w| {
                (0..width)
                    .map(|i| ((w * 31 + i * 7) as f64).sin() * 3.0)
                    .collect()
            })
            .collect()
    }

    #[test]
    fn encrypted_and_clear_logits_agree_to_twenty_bits_without_any_key() {
        for (width, count) in [(298, 5), (512, 4), (3, 1)] {
            let head = head(width);
            let (client, server) = (Client::new(width, 4).unwrap(), Server::new(&head).unwrap());
            let windows = windows(count, width);
            let question = client.question(&windows).unwrap();
            let answer = server.answer(&question).unwrap();
            assert!(question.len() < 1_000_000, "{}", question.len());
            let got = client.logits(&answer, count).unwrap();
            for (x, z) in windows.iter().zip(&got) {
                for (a, b) in head.apply(x).unwrap().iter().zip(z) {
                    assert!((a - b).abs() < 2f64.powi(-20), "{a} {b}");
                }
            }
        }
    }

    #[test]
    fn nothing_but_the_results_can_be_read() {
        let head = head(100);
        let (client, server) = (Client::new(100, 4).unwrap(), Server::new(&head).unwrap());
        let question = client.question(&windows(1, 100)).unwrap();
        let open = |answer: &[u8]| {
            let (sealed, _) = read::<Ciphertext>(&client.context, None, answer, "answer").unwrap();
            let plain = decrypt(&sealed[0], &client.secret).unwrap();
            Encoder::new(client.context.clone())
                .decode_coeffs(&plain)
                .unwrap()
        };
        let a = open(&server.answer(&question).unwrap());
        let b = open(&server.answer(&question).unwrap());
        let results: Vec<usize> = (0..16)
            .flat_map(|w| (0..4).map(move |k| (w, k)))
            .map(|(w, k)| client.layout.result(w, k))
            .collect();
        // Q over the scale: uniform residues are as large as that, a hundred-millionth of it next to never.
        let large = 2f64.powi(100 - 2 * LOG_SCALE) / 1e8;
        for i in 0..a.len() {
            if results.contains(&i) {
                assert!((a[i] - b[i]).abs() < 1e-6, "{i}");
            } else {
                assert!((a[i] - b[i]).abs() > large, "{i}: {} {}", a[i], b[i]);
            }
        }
    }

    #[test]
    fn foreign_and_spoiled_messages_are_refused() {
        let head = head(20);
        let server = Server::new(&head).unwrap();
        let (client, other) = (Client::new(20, 4).unwrap(), Client::new(20, 4).unwrap());
        let question = client.question(&windows(2, 20)).unwrap();
        let answer = server.answer(&question).unwrap();
        assert!(other.logits(&answer, 2).is_err());
        assert!(client.logits(&answer, 400).is_err());
        assert!(client.question(&[]).is_err() && client.question(&windows(1, 19)).is_err());
        for cut in [0, 1, 50, question.len() - 1] {
            assert!(server.answer(&question[..cut]).is_err());
        }
        for (at, bit) in [(0, 7), (3, 0), (40, 2), (question.len() / 2, 6)] {
            let mut spoiled = question.clone();
            spoiled[at] ^= 1 << bit;
            assert!(server.answer(&spoiled).is_err(), "byte {at}");
        }
        let more = [question.clone(), vec![0]].concat();
        assert!(server.answer(&more).is_err());
    }
}
