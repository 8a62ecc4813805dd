//! The accountants against Google's `dp-accounting`: 200 settings, made by `tests/interop/privacy_grid.py`.

use tacit_federated::protection::privacy::{Accounting, Event, Mechanism, RdpAccountant, epsilon};

struct Row {
    event: Event,
    delta: f64,
    by_orders: Option<f64>,
    by_loss: f64,
}

fn grid() -> Vec<Row> {
    include_str!("data/privacy_grid.csv")
        .lines()
        .skip(1)
        .map(|line| {
            let f: Vec<&str> = line.trim().split(',').collect();
            let number = |i: usize| f[i].parse::<f64>().unwrap();
            let sigma = number(2);
            let mechanism = match f[0] {
                "gaussian" => Mechanism::Gaussian {
                    noise_multiplier: sigma,
                },
                "discrete" => Mechanism::DiscreteGaussian {
                    sigma,
                    sensitivity: f[3].parse().unwrap(),
                },
                other => panic!("{other}"),
            };
            Row {
                event: Event {
                    mechanism,
                    sampling: number(1),
                    steps: f[4].parse().unwrap(),
                },
                delta: number(5),
                by_orders: f[6].parse().ok(),
                by_loss: number(7),
            }
        })
        .collect()
}

/// Checks every setting to one percent and gives the largest relative difference.
fn compare(
    rows: &[Row],
    name: &str,
    ours: impl Fn(&Row) -> f64,
    oracle: impl Fn(&Row) -> Option<f64>,
) -> f64 {
    let mut worst = 0.0f64;
    let mut compared = 0;
    for row in rows {
        let Some(want) = oracle(row) else { continue };
        let got = ours(row);
        let off = (got / want - 1.0).abs();
        assert!(
            off <= 0.01,
            "{:?} at delta {:e}: {got}, dp-accounting says {want}",
            row.event,
            row.delta
        );
        worst = worst.max(off);
        compared += 1;
    }
    println!(
        "{name}: {compared} settings, largest difference {:.4} %",
        100.0 * worst
    );
    worst
}

#[test]
fn both_accountants_agree_with_the_oracle_to_one_percent() {
    let rows = grid();
    assert_eq!(rows.len(), 200);
    // The whole orders of the script; see there why not fractional ones.
    let whole = || {
        (2..64)
            .chain((0..8).map(|i| 64 + 8 * i))
            .chain((0..8).map(|i| 128 + 16 * i))
            .chain([256, 320, 384, 512, 768, 1024])
            .map(f64::from)
    };
    let by_orders = |row: &Row| {
        let mut accountant = RdpAccountant::with_orders(whole());
        accountant.compose(&row.event).unwrap();
        accountant.epsilon(row.delta).unwrap()
    };
    let orders = compare(&rows, "Renyi orders", by_orders, |row| row.by_orders);
    assert!(orders < 1e-6, "one formula at the same orders: {orders}");
    compare(
        &rows,
        "privacy loss distributions",
        |row| epsilon(Accounting::Pld, &[row.event], row.delta).unwrap(),
        |row| Some(row.by_loss),
    );
}

#[test]
fn orders_bound_losses() {
    for row in grid() {
        let by_orders = epsilon(Accounting::Rdp, &[row.event], row.delta).unwrap();
        assert!(by_orders >= row.by_loss * 0.999, "{:?}", row.event);
    }
}
