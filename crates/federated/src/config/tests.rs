//! What configurations are refused, and what they say.

use super::*;

fn error(text: &str) -> String {
    RunConfig::from_toml(text, "test.toml")
        .unwrap_err()
        .to_string()
}

#[test]
fn defaults_are_valid_and_survive_a_round_trip() {
    let c = RunConfig::default();
    c.check().unwrap();
    assert_eq!(RunConfig::from_toml(&c.to_toml().unwrap(), "x").unwrap(), c);
    let full = "combine = \"stack\"\n[method]\nrank = 4\nranks = [4, 2]\n[data]\nclients = 2\n[data.grammar]\n[base.random]\nhidden = 16\n[[stage]]\nkind = \"top-k\"\nshare = 0.1\n[[stage]]\nkind = \"quantise\"\nvalues = \"int4\"\n";
    let c = RunConfig::from_toml(full, "x").unwrap();
    assert_eq!(c.codec().top_k, Some(0.1));
    assert_eq!(RunConfig::from_toml(&c.to_toml().unwrap(), "x").unwrap(), c);
}

#[test]
fn single_settings_are_replaced_by_their_path() {
    let text = "rounds = 3\n[train]\nlr = 0.5\n[[stage]]\nkind = \"clip\"\nnorm = 1.0\n";
    let set = |s: &[&str]| {
        let s: Vec<String> = s.iter().map(|s| (*s).to_owned()).collect();
        RunConfig::from_toml_with(text, "x", &s)
    };
    let c = set(&[
        "train.lr=0.25",
        "method.kind=full",
        "rounds=4",
        "data.grammar.topics=2",
        "stage=[]",
    ])
    .unwrap();
    assert_eq!((c.train.lr, c.rounds, c.method.kind), (0.25, 4, Kind::Full));
    assert!(c.stages.is_empty() && c.data.grammar.unwrap().topics == 2);
    assert_eq!(set(&[]).unwrap(), RunConfig::from_toml(text, "x").unwrap());
    for wrong in ["train.lr", "rounds.lr=1", "train.rate=1", "train.lr=fast"] {
        let e = set(&[wrong]).unwrap_err().to_string();
        assert!(
            e.contains("--set") || e.contains("rate") || e.contains("fast"),
            "{e}"
        );
    }
}

#[test]
fn unknown_and_contradictory_settings_are_refused_with_a_reason() {
    assert!(error("seeds = 1").contains("seeds"));
    assert!(error("[train]\nbatches = 1").contains("batches"));
    assert!(error("[rule]\nkind = \"fedavg\"\neta = 1.0").contains("eta"));
    assert!(error("[rule]\nkind = \"fedsgd\"").contains("fedsgd"));
    assert!(error("rounds = 0").contains("rounds"));
    assert!(error("[base]\nmodel = \"a\"\ncheckpoint = \"b\"").contains("base"));
    assert!(error("combine = \"stack\"\n[rule]\nkind = \"fedadam\"").contains("fedavg"));
    assert!(error("combine = \"svd\"\n[method]\nkind = \"ffa-lora\"").contains("combine"));
    assert!(error("[[stage]]\nkind = \"secure-sum\"").contains("noise stage before it"));
    let secure = "[[stage]]\nkind = \"clip\"\nnorm = 1.0\n[[stage]]\nkind = \"secure-sum\"\n";
    assert!(RunConfig::from_toml(secure, "x").is_ok());
    assert!(
        error(&format!("{secure}[[stage]]\nkind = \"top-k\"\nshare = 0.1")).contains("masks cover")
    );
    assert!(error(&format!("combine = \"stack\"\n{secure}")).contains("hides"));
    assert!(
        error("[[stage]]\nkind = \"clip\"\nnorm = 1.0\n[[stage]]\nkind = \"clip\"\nnorm = 1.0")
            .contains("again")
    );
    let encrypted = "[[stage]]\nkind = \"clip\"\nnorm = 1.0\n[[stage]]\nkind = \"encrypted-sum\"\n";
    let signed = "[[stage]]\nkind = \"signed\"\n";
    let c = RunConfig::from_toml(&format!("{encrypted}{signed}"), "x").unwrap();
    assert!(c.encrypted() && c.signed() && c.unprotected().stages.is_empty());
    assert!(error("[[stage]]\nkind = \"encrypted-sum\"").contains("need a bound"));
    assert!(
        error(&format!("{secure}[[stage]]\nkind = \"encrypted-sum\"")).contains("keep the one")
    );
    assert!(error(&format!("{secure}{signed}")).contains("signed already"));
    assert!(
        error(&format!(
            "{encrypted}[[stage]]\nkind = \"quantise\"\nvalues = \"int8\""
        ))
        .contains("one scale")
    );
    let noise = "[[stage]]\nkind = \"noise\"\nepsilon = 8\nclip = 0.2\nexamples = 9\n";
    assert!(error(noise).contains("part of the noise"));
    assert!(
        error(&format!("{noise}[[stage]]\nkind = \"encrypted-sum\"")).contains("all clients hold")
    );
    assert!(
        error("[[stage]]\nkind = \"robust\"\nrule = { name = \"krum\", bad = 7 }").contains("bad")
    );
    let groups = |n: usize| {
        format!(
            "[[stage]]\nkind = \"robust\"\nrule = {{ name = \"median\", bad = 0 }}\nbuckets = {n}\n"
        )
    };
    assert!(RunConfig::from_toml(&format!("{secure}{}", groups(2)), "x").is_ok());
    assert!(error(&format!("{secure}{}", groups(3))).contains("two others"));
    assert!(error(&groups(2)).contains("groups are of secure sums"));
    assert!(error(&format!("{encrypted}{}", groups(2))).contains("secure-sum"));
    assert!(
        error(&format!(
            "{noise}[[stage]]\nkind = \"secure-sum\"\n{}",
            groups(2)
        ))
        .contains("too little")
    );
    let trust = "[[stage]]\nkind = \"robust\"\nrule = { name = \"fl-trust\" }\n";
    assert!(error(trust).contains("partition --clients 1"));
    assert!(RunConfig::from_toml(&format!("{trust}[data]\ngrammar = {{}}"), "x").is_ok());
    assert!(
        error(&encrypted.replace("encrypted-sum\"", "encrypted-sum\"\nshare = 1.5"))
            .contains("tenth")
    );
}
