//! A generated language for exact tests: seeded, endless, and different from client to client as much as one wants.
//!
//! A topic is a set of nouns, verbs and adjectives made from syllables. A sentence has a fixed form in which the verb agrees with the noun's
//! ending, so that there is something to learn beyond word counts. Every client draws its topics with its own shares.

use rand_core::RngCore;

use crate::random::{below, dirichlet, stream, unit};

/// The words of a topic.
#[derive(Clone, Debug)]
struct Topic {
    nouns: Vec<String>,
    verbs: Vec<String>,
    adjectives: Vec<String>,
}

const ONSETS: [&str; 14] = [
    "b", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z",
];
const VOWELS: [&str; 5] = ["a", "e", "i", "o", "u"];
/// Words of each kind in a topic.
const WORDS: usize = 12;

fn word(rng: &mut impl RngCore, syllables: usize) -> String {
    (0..syllables)
        .map(|_| {
            format!(
                "{}{}",
                ONSETS[below(rng, ONSETS.len())],
                VOWELS[below(rng, VOWELS.len())]
            )
        })
        .collect()
}

/// Documents of `clients` clients: `documents` each of about `sentences` sentences, over `topics` topics whose shares a client draws
/// from a symmetric Dirichlet distribution with concentration `alpha` (small: clients unlike each other).
pub fn generate(
    seed: u64,
    clients: usize,
    documents: usize,
    sentences: usize,
    topics: usize,
    alpha: f64,
) -> Vec<Vec<String>> {
    let all: Vec<Topic> = (0..topics.max(1))
        .map(|t| {
            let mut rng = stream(seed, "grammar topic", &[t as u64]);
            let mut words =
                |n: usize| -> Vec<String> { (0..WORDS).map(|_| word(&mut rng, n)).collect() };
            Topic {
                nouns: words(2),
                verbs: words(2),
                adjectives: words(3),
            }
        })
        .collect();
    (0..clients)
        .map(|c| {
            let mut rng = stream(seed, "grammar client", &[c as u64]);
            let shares = dirichlet(&mut rng, all.len(), alpha);
            (0..documents)
                .map(|_| {
                    let topic = &all[pick(&mut rng, &shares)];
                    let n = 1 + below(&mut rng, 2 * sentences.max(1) - 1);
                    let text: Vec<String> = (0..n).map(|_| sentence(&mut rng, topic)).collect();
                    text.join(" ")
                })
                .collect()
        })
        .collect()
}

pub(crate) fn pick(rng: &mut impl RngCore, shares: &[f64]) -> usize {
    let mut u = unit(rng);
    for (i, s) in shares.iter().enumerate() {
        u -= s;
        if u < 0.0 {
            return i;
        }
    }
    shares.len() - 1
}

fn sentence(rng: &mut impl RngCore, topic: &Topic) -> String {
    let noun = &topic.nouns[below(rng, WORDS)];
    let other = &topic.nouns[below(rng, WORDS)];
    let verb = &topic.verbs[below(rng, WORDS)];
    let adjective = &topic.adjectives[below(rng, WORDS)];
    // The verb's ending agrees with the last vowel of its subject.
    let ending = match noun.as_bytes().last() {
        Some(b'a' | b'e') => "ta",
        Some(b'i') => "ti",
        _ => "tu",
    };
    if below(rng, 3) == 0 {
        format!("the {noun} {verb}{ending} .")
    } else {
        format!("the {adjective} {noun} {verb}{ending} the {other} .")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn texts_repeat_by_seed_agree_in_grammar_and_differ_between_clients() {
        let a = generate(1, 3, 40, 3, 6, 0.1);
        assert_eq!(a, generate(1, 3, 40, 3, 6, 0.1));
        assert_ne!(a, generate(2, 3, 40, 3, 6, 0.1));
        let words = |c: &[String]| -> HashSet<String> {
            c.iter()
                .flat_map(|d| d.split(' '))
                .map(str::to_owned)
                .collect()
        };
        let (x, y) = (words(&a[0]), words(&a[1]));
        let common = x.intersection(&y).count() as f64 / x.len().min(y.len()) as f64;
        let even = generate(1, 2, 200, 3, 6, 1000.0);
        let (x, y) = (words(&even[0]), words(&even[1]));
        let shared = x.intersection(&y).count() as f64 / x.len().min(y.len()) as f64;
        assert!(common < 0.8 && shared > 0.9, "{common} {shared}");
        for s in a[0]
            .iter()
            .flat_map(|d| d.split(" ."))
            .map(str::trim)
            .filter(|s| !s.is_empty())
        {
            let w: Vec<&str> = s.split(' ').collect();
            let (noun, verb) = if w.len() == 3 {
                (w[1], w[2])
            } else {
                (w[2], w[3])
            };
            let ending = match noun.as_bytes()[3] {
                b'a' | b'e' => "ta",
                b'i' => "ti",
                _ => "tu",
            };
            assert!(verb.ends_with(ending), "{s}");
        }
    }
}
