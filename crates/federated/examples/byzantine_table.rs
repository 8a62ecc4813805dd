//! Every attack against every aggregation rule: clean accuracy and attack success with 10 and 20 % bad clients.
//!
//! ```text
//! cargo run --release -p tacit-federated --example byzantine_table
//! ```

use tacit_federated::audit::byzantine::{Attack, Setup, defences, table};

fn main() {
    for bad in [2, 4] {
        let setup = Setup {
            bad,
            ..Setup::default()
        };
        let cells = table(setup, || {});
        println!(
            "\n{} clients, {bad} bad, {} rounds. Accuracy % / attack success %\n",
            setup.clients, setup.rounds
        );
        print!("| rule |");
        for attack in Attack::ALL {
            print!(" {} |", attack.name());
        }
        println!("\n|{}", " --- |".repeat(Attack::ALL.len() + 1));
        for (name, _) in defences() {
            print!("| {name} |");
            for attack in Attack::ALL {
                let cell = cells
                    .iter()
                    .find(|c| c.attack == attack && c.defence == name)
                    .expect("the table has all pairs");
                match (&cell.outcome, cell.success) {
                    (Ok(o), Some(s)) => print!(" {:.0} / {:.0} |", 100.0 * o.accuracy, 100.0 * s),
                    _ => print!(" refuses |"),
                }
            }
            println!();
        }
    }
}
