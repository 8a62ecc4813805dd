use super::*;
use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};

const RULES: [Rule; 8] = [
    Rule::Median { bad: 2 },
    Rule::TrimmedMean { bad: 2 },
    Rule::Krum { bad: 2 },
    Rule::MultiKrum { bad: 2, keep: None },
    Rule::Bulyan { bad: 2 },
    Rule::GeometricMedian { bad: 2 },
    Rule::FlTrust,
    Rule::Flame {
        bad: 2,
        noise: 0.0,
        seed: 1,
    },
];

fn near(a: &[f32], b: &[f32], tolerance: f32) -> bool {
    a.iter().zip(b).all(|(x, y)| (x - y).abs() <= tolerance)
}

#[test]
fn small_cases_by_hand() {
    let u = vec![
        vec![0.0, 0.0],
        vec![1.0, 2.0],
        vec![2.0, 4.0],
        vec![3.0, 6.0],
        vec![100.0, -50.0],
    ];
    let get = |rule: Rule| rule.aggregate(&u, Some(&[1.0, 1.0])).unwrap();
    assert_eq!(get(Rule::Median { bad: 1 }).update, [2.0, 2.0]);
    assert_eq!(get(Rule::TrimmedMean { bad: 1 }).update, [2.0, 2.0]);
    assert_eq!(
        get(Rule::TrimmedMean { bad: 0 }).update,
        get(Rule::Mean).update
    );
    // Two nearest: scores 5 + 20, 5 + 5, 5 + 5, 5 + 20, far.
    assert_eq!(
        get(Rule::Krum { bad: 1 }).weights,
        [0.0, 1.0, 0.0, 0.0, 0.0]
    );
    assert_eq!(
        get(Rule::MultiKrum {
            bad: 1,
            keep: Some(2)
        })
        .update,
        [1.5, 3.0]
    );
    // FLTrust: cosines to (1,1) are 0, 3/√10, 3/√10, 3/√10, 50/(√2·111.8).
    let trust = get(Rule::FlTrust);
    assert_eq!(trust.weights[0], 0.0);
    let cos = 3.0 / 10f64.sqrt();
    let bad = 50.0 / (2f64.sqrt() * 12500f64.sqrt());
    let total = 3.0 * cos + bad;
    assert!((trust.weights[1] - cos / total * 2f64.sqrt() / 5f64.sqrt()).abs() < 1e-12);
    // Norm clipping: the far one keeps its direction at norm 10.
    let clipped = get(Rule::NormClip { max_norm: 10.0 });
    assert!((clipped.weights[4] - 10.0 / 12500f64.sqrt() / 5.0).abs() < 1e-12);
    assert_eq!(clipped.weights[3], 0.2);
}

#[test]
fn the_geometric_median_of_a_triangle_is_its_fermat_point() {
    // All angles below 120°: seen from the point, the corners are 120° apart; for the equilateral triangle it is the centre. With a heavy
    // corner (two equal updates of three) it is that corner.
    let h = 3f32.sqrt() / 2.0;
    let triangle = vec![vec![0.0, 0.0], vec![1.0, 0.0], vec![0.5, h]];
    let out = Rule::GeometricMedian { bad: 1 }
        .aggregate(&triangle, None)
        .unwrap();
    assert!(near(&out.update, &[0.5, h / 3.0], 1e-6));
    let heavy = vec![vec![2.0, 2.0], vec![2.0, 2.0], vec![9.0, -4.0]];
    let out = Rule::GeometricMedian { bad: 1 }
        .aggregate(&heavy, None)
        .unwrap();
    assert!(near(&out.update, &[2.0, 2.0], 1e-4), "{:?}", out.update);
}

#[test]
fn bulyan_by_its_definition() {
    // Seven clients, one bad: six selections of five (θ = 5), three values about the median.
    let u: Vec<Vec<f32>> = [1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 900.0]
        .iter()
        .map(|&x| vec![x])
        .collect();
    let out = Rule::Bulyan { bad: 1 }.aggregate(&u, None).unwrap();
    assert!(
        out.update[0] >= 1.1 && out.update[0] <= 1.4,
        "{:?}",
        out.update
    );
}

#[test]
fn conditions_are_enforced() {
    let u = |n: usize| vec![vec![1.0f32]; n];
    for (rule, least) in [
        (Rule::Median { bad: 3 }, 7),
        (Rule::TrimmedMean { bad: 3 }, 7),
        (Rule::GeometricMedian { bad: 3 }, 7),
        (Rule::Krum { bad: 3 }, 9),
        (Rule::MultiKrum { bad: 3, keep: None }, 9),
        (Rule::Bulyan { bad: 3 }, 15),
        (Rule::Bulyan { bad: 0 }, 3),
        (Rule::Krum { bad: 0 }, 3),
    ] {
        assert!(
            matches!(
                rule.aggregate(&u(least - 1), None),
                Err(ProtectionError::TooManyBad { .. })
            ),
            "{rule:?}"
        );
        assert_eq!(rule.aggregate(&u(least), None).unwrap().update, [1.0]);
    }
    assert!(Rule::FlTrust.aggregate(&u(4), None).is_err());
    assert!(
        Rule::Mean
            .aggregate(&[vec![1.0], vec![1.0, 2.0]], None)
            .is_err()
    );
    assert!(Rule::Mean.aggregate(&[], None).is_err());
    assert!(Rule::Mean.aggregate(&[vec![f32::NAN]], None).is_err());
    let keep = Rule::MultiKrum {
        bad: 1,
        keep: Some(3),
    };
    assert!(keep.aggregate(&u(5), None).is_err());
}

#[test]
fn buckets_hold_a_bad_client_in_one_group() {
    let clients: Vec<ClientId> = (0..30).collect();
    let buckets = Buckets::new(&clients, 10, [4; 32]).unwrap();
    let mut all: Vec<ClientId> = buckets.groups().concat();
    all.sort_unstable();
    assert_eq!(all, clients);
    let sums: Vec<Option<(Vec<f64>, usize)>> = buckets
        .groups()
        .iter()
        .map(|g| {
            let bad = g.contains(&7) || g.contains(&8);
            let value = if bad { -1e6 } else { g.len() as f64 };
            Some((vec![value; 4], g.len()))
        })
        .collect();
    let out = buckets
        .aggregate(Rule::Krum { bad: 2 }, &sums, None)
        .unwrap();
    assert_eq!(out.update, [1.0; 4]);
    let mut lost = sums.clone();
    lost[0] = None;
    let out = buckets
        .aggregate(Rule::Median { bad: 3 }, &lost, None)
        .unwrap();
    assert_eq!((out.update, out.rejected), (vec![1.0; 4], vec![0]));
    assert!(Buckets::new(&clients, 11, [4; 32]).is_err());
}

use super::super::ClientId;

proptest! {
    /// Two of eleven clients send anything at all: the result stays within the spread of the others.
    #[test]
    fn two_bad_of_eleven_do_not_steer(seed in any::<u64>(), size in 1.0f32..1e6, bad in prop::collection::vec(-1.0f32..1.0, 16), same in any::<bool>()) {
        use rand_chacha::ChaCha20Rng;
        use rand_core::{RngCore, SeedableRng};
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let mut noise = || (rng.next_u32() as f32 / u32::MAX as f32 - 0.5) * 0.2;
        let mut updates: Vec<Vec<f32>> = (0..9).map(|_| (0..8).map(|i| 1.0 + i as f32 + noise()).collect()).collect();
        let root: Vec<f32> = (0..8).map(|i| 1.0 + i as f32 + noise()).collect();
        let first: Vec<f32> = bad[..8].iter().map(|x| x * size).collect();
        let second: Vec<f32> = if same { first.clone() } else { bad[8..].iter().map(|x| x * size).collect() };
        updates.insert((seed % 9) as usize, first);
        updates.insert((seed / 9 % 9) as usize, second);
        let centre: Vec<f32> = (0..8).map(|i| 1.0 + i as f32).collect();
        let scale = vector::norm(&centre) as f32;
        for rule in RULES {
            let out = rule.aggregate(&updates, Some(&root)).unwrap();
            let off: f64 = vector::squared_distance(&out.update, &centre).sqrt();
            // FLTrust scales all to one norm, and a bad one that points the right way keeps a share of the weight.
            let allowed = if rule == Rule::FlTrust { 0.35 * scale } else { 0.05 * scale };
            prop_assert!(off < f64::from(allowed), "{}: off by {off}", rule.name());
        }
    }

    /// The order of clients does not matter; equal updates give that update.
    #[test]
    fn order_does_not_matter(values in prop::collection::vec(prop::collection::vec(-10.0f32..10.0, 3), 11..14), turn in 1usize..10) {
        for rule in RULES {
            if let Ok(a) = rule.aggregate(&values, Some(&[1.0, 1.0, 1.0])) {
                let mut turned = values.clone();
                turned.rotate_left(turn);
                let b = rule.aggregate(&turned, Some(&[1.0, 1.0, 1.0])).unwrap();
                prop_assert!(near(&a.update, &b.update, 1e-4), "{}", rule.name());
            }
            let one: Vec<f32> = values[0].iter().map(|x| x.abs() + 0.1).collect();
            let same = vec![one.clone(); 11];
            let out = rule.aggregate(&same, Some(&one)).unwrap();
            prop_assert!(near(&out.update, &one, 1e-4), "{}", rule.name());
        }
    }

    #[test]
    fn selections_do_not_depend_on_threads(values in prop::collection::vec(prop::collection::vec(-1.0f32..1.0, 40), 11)) {
        let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        for rule in RULES {
            let root = vec![0.5; 40];
            let a = rule.aggregate(&values, Some(&root));
            let b = one.install(|| rule.aggregate(&values, Some(&root)));
            prop_assert_eq!(a.map(|x| x.update), b.map(|x| x.update));
        }
    }
}
